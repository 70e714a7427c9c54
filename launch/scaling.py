"""Experiments: several runs of one configuration, compared.

python -m launch.scaling plan --config=configs/scaling/isoflop.py
python -m launch.scaling plan --config=configs/scaling/report.py --topology=v5p:8x8x8
Prints the runs of a grid, budgets by sizes: widths, depths, learning rates, tokens, operations with
and without attention's own; with a topology, what they cost there.

python -m launch.scaling run --config=configs/scaling/predictor.py --workdir=runs/predictor
Trains the arms or the grid of a configuration, one run after the other; the same command goes on
where it stopped, and started several times, on one machine or on several that share the disk, each
takes a run that no other has. runs/predictor/sweep.jsonl has a line a run.

python -m launch.scaling correlate --workdir=runs/predictor
Prints how well validation loss and training loss tell which run is better: their rank correlation
with a score of the runs. Writes predictor.png, predictor.svg and predictor.json.

python -m launch.scaling fit --records=runs.csv
python -m launch.scaling predict --records=runs.csv --compute=1e23
python -m launch.scaling compare --records=runs.csv --first=llama --second=dit
Of records of runs, yours or anybody's, with the columns parameters, loss, tokens or flops, and arm
if there are several: the law of loss by size and data with intervals and what spoils it, how a
budget is spent best, and how much more compute one recipe needs for the loss of another.
"""

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line

COMMANDS = ('plan', 'run', 'correlate', 'fit', 'predict', 'compare')
_OF_RECORDS = ('fit', 'predict', 'compare')

_CONFIG = command_line.define_config('configs/scaling/predictor.py', commands=('plan', 'run'))
_WORKDIR = command_line.define_required(
  'workdir',
  'runs/predictor',
  'Directory of the experiment: a folder a run.',
  commands=('run', 'correlate'),
)
_TOPOLOGY = flags.DEFINE_string('topology', '', 'Of plan: chips, as v5p:8x8x8 or h200:8.')
_SCORE = flags.DEFINE_string('score', 'all', 'Of correlate: which of the scores of a run.')
_RECORDS = command_line.define_required(
  'records', 'runs.csv', 'Records of runs: a .csv or a .jsonl.', commands=_OF_RECORDS
)
_COMPUTE = flags.DEFINE_float('compute', None, 'Of predict: FLOPs to spend.', lower_bound=1.0)
_ARM = flags.DEFINE_string('arm', '', 'Of fit and predict: which runs, where a column arm says.')
_FIRST = flags.DEFINE_string('first', '', 'Of compare: the arm that the other is compared with.')
_SECOND = flags.DEFINE_string('second', '', 'Of compare: the other arm.')
_RESAMPLES = flags.DEFINE_integer('resamples', 200, 'Fits that intervals are from.', lower_bound=10)
_SEED = flags.DEFINE_integer('seed', 0, 'Of their draws.', lower_bound=0)


def main(arguments) -> None:
  commands = {'plan': _plan, 'run': _run, 'correlate': _correlate, 'fit': _fit, 'predict': _predict,
              'compare': _compare}  # fmt: skip
  commands[arguments[1]]()


def _plan() -> None:
  import jax

  from mgjax.scaling.design.cost import describe_grid
  from mgjax.scaling.design.grid import make_grid

  if command_line.print_config(_CONFIG.value):
    return
  jax.config.update('jax_platforms', 'cpu')  # shapes alone: whatever devices there are, stay free
  print(describe_grid(make_grid(_CONFIG.value), _TOPOLOGY.value))


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


def _found():
  from mgjax.scaling.findings import find_law
  from mgjax.scaling.records import choose_arm, read_arms

  runs = choose_arm(read_arms(_RECORDS.value), _ARM.value, 'arm')
  return find_law(runs, resamples=_RESAMPLES.value, seed=_SEED.value), runs


def _fit() -> None:
  print(_found()[0].table())


def _predict() -> None:
  from mgjax.scaling.findings import predict

  if _COMPUTE.value is None:
    raise ConfigError('--compute is missing; say how many FLOPs are to be spent, as 1e21')
  print(predict(*_found(), _COMPUTE.value))


def _compare() -> None:
  from mgjax.scaling.comparison import budgets_of, compare_recipes
  from mgjax.scaling.findings import describe_comparison
  from mgjax.scaling.records import choose_arm, read_arms

  arms = read_arms(_RECORDS.value)
  first, second = (choose_arm(arms, flag.value, flag.name) for flag in (_FIRST, _SECOND))
  found = compare_recipes(
    first, second, budgets_of(second), resamples=_RESAMPLES.value, seed=_SEED.value
  )
  print(describe_comparison(found, (_FIRST.value, _SECOND.value)))


if __name__ == '__main__':
  command_line.run(main, COMMANDS)
