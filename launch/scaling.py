"""Experiments: several runs of one configuration, compared.

python -m launch.scaling run --config=configs/scaling/predictor.py --workdir=runs/predictor
Trains the arms of a configuration, one after the other, and judges each; the same command goes on
where it stopped. runs/predictor/sweep.jsonl has a line a run.

python -m launch.scaling correlate --workdir=runs/predictor
Prints how well validation loss and training loss tell which run is better: their rank correlation
with a score of the runs. Writes predictor.png, predictor.svg and predictor.json.
"""

from absl import flags

from . import command_line

COMMANDS = ('run', 'correlate')

_CONFIG = command_line.define_config('configs/scaling/predictor.py', commands=('run',))
_WORKDIR = command_line.define_required(
  'workdir', 'runs/predictor', 'Directory of the experiment: a folder a run.'
)
_SCORE = flags.DEFINE_string('score', 'all', 'Of correlate: which of the scores of a run.')


def main(arguments) -> None:
  {'run': _run, 'correlate': _correlate}[arguments[1]]()


def _run() -> None:
  from mgjax.parallel import distributed
  from mgjax.scaling.experiment import run_experiment

  if command_line.print_config(_CONFIG.value):
    return
  distributed.initialize()
  distributed.check_shared(_WORKDIR.value)
  if run_experiment(_CONFIG.value, _WORKDIR.value):
    print(f'{_WORKDIR.value}/sweep.jsonl')


def _correlate() -> None:
  from mgjax.scaling.predictor import write_prediction

  found, paths = write_prediction(_WORKDIR.value, _SCORE.value)
  print(found.table(), *paths, sep='\n')


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
