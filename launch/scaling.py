"""Experiments: several runs of one configuration, compared.

python -m launch.scaling plan --config=configs/scaling/isoflop.py
python -m launch.scaling plan --config=configs/scaling/report.py --topology=v5p:8x8x8
Prints the runs of a grid, budgets by sizes: widths, depths, learning rates, tokens, operations with
and without attention's own. A topology adds what they cost there. --noise=0.002 adds how sure the
exponent of the best size will be, and the cheapest sweep that pins it.

python -m launch.scaling run --config=configs/scaling/predictor.py --workdir=runs/predictor
Trains the arms or the grid of a configuration, one run after the other. The same command resumes
where it stopped. Started several times, on one machine or on several that share the disk, each
takes a run that no other has. runs/predictor/sweep.jsonl has a line a run.

python -m launch.scaling correlate --workdir=runs/predictor
Prints how well validation loss and training loss tell which run is better: their rank correlation
with a score of the runs. Writes predictor.png, predictor.svg and predictor.json.

python -m launch.scaling rank --records=runs/worlds/solids/sweep.jsonl --score=validation_loss
Prints the arms of an experiment from the best to the worst, and in how many seeds they have that
order.

python -m launch.scaling fit --records=runs.csv
python -m launch.scaling predict --records=runs.csv --compute=1e23
python -m launch.scaling compare --records=runs.csv --first=llama --second=dit
python -m launch.scaling plot --records=runs.csv --out=runs/laws
These read records of any runs, with the columns parameters, loss, tokens or flops, and arm if there
are several. fit prints the law of loss by size and data, with intervals and what spoils it. predict
prints how a budget is spent best. compare prints how much more compute one recipe needs for the
loss of another (of records without sizes, by their seeds). plot draws all of it, with the page
laws.html. With --hold_out=1 the law of the smaller budgets is tested at the largest one.

python -m launch.scaling claims --config=configs/scaling/claims.py --records=docs/records \
  --out=docs/results/claims.md
Writes the page of the paper's claims, of records alone: for each what it says, what runs of two
arms say, and whether it holds, does not, or is not settled by so many seeds.
"""

from absl import flags

from . import command_line

_OF_RECORDS = ('rank', 'fit', 'predict', 'compare', 'plot', 'claims')

_CONFIG = command_line.define_config(
  'configs/scaling/predictor.py', commands=('plan', 'run', 'claims')
)
_WORKDIR = command_line.define_required(
  'workdir',
  'runs/predictor',
  'Directory of the experiment: a folder a run.',
  commands=('run', 'correlate'),
)
_TOPOLOGY = flags.DEFINE_string('topology', '', 'Of plan: chips, as v5p:8x8x8 or h200:8.')
_NOISE = flags.DEFINE_float(
  'noise',
  None,
  'Of plan: how losses of seeds scatter, as .002 of them; says what the grid tells.',
  lower_bound=1e-6,
  upper_bound=0.5,
)
_SCORE = flags.DEFINE_string('score', 'all', 'Of correlate and rank: which number of a run.')
_RECORDS = command_line.define_required(
  'records',
  'runs.csv',
  'Records of runs: a .csv or a .jsonl; of claims their folder.',
  commands=_OF_RECORDS,
)
_COMPUTE = command_line.define_required(
  'compute', '1e21', 'Of predict: FLOPs to spend.', commands=('predict',), define=flags.DEFINE_float
)
_ARM = flags.DEFINE_string('arm', '', 'Which runs, where a column arm says.')
_FIRST = flags.DEFINE_string('first', '', 'Of compare and plot: the arm compared with.')
_SECOND = flags.DEFINE_string('second', '', 'Of compare and plot: the other arm.')
_OUT = command_line.define_required(
  'out',
  'runs/laws',
  'Of plot: the folder of pictures and page; of claims the page.',
  commands=('plot', 'claims'),
)
_HOLD_OUT = flags.DEFINE_integer(
  'hold_out',
  0,
  'Of fit and plot: so many of the largest budgets are predicted by the others.',
  lower_bound=0,
)
_RESAMPLES = flags.DEFINE_integer('resamples', 200, 'Fits that intervals are from.', lower_bound=10)

command_line.flags_of(
  {
    'plan': (_CONFIG, _NOISE, _TOPOLOGY),
    'run': (_CONFIG, _WORKDIR),
    'correlate': (_SCORE, _WORKDIR),
    'rank': (_RECORDS, _SCORE),
    'fit': (_ARM, _HOLD_OUT, _RECORDS, _RESAMPLES),
    'predict': (_ARM, _COMPUTE, _RECORDS, _RESAMPLES),
    'compare': (_FIRST, _RECORDS, _RESAMPLES, _SECOND),
    'plot': (_ARM, _FIRST, _HOLD_OUT, _OUT, _RECORDS, _RESAMPLES, _SECOND),
    'claims': (_CONFIG, _OUT, _RECORDS),
  }
)


def main(arguments) -> None:
  COMMANDS[arguments[1]]()


def _plan() -> None:
  import jax

  from mgjax.lab.scaling.design.cost import describe_grid
  from mgjax.lab.scaling.design.grid import make_grid
  from mgjax.lab.scaling.design.precision import describe_precision

  if command_line.print_config(_CONFIG.value):
    return
  jax.config.update('jax_platforms', 'cpu')  # shapes alone: whatever devices there are, stay free
  points = make_grid(_CONFIG.value.to_dict())
  print(describe_grid(points, _TOPOLOGY.value))
  if _NOISE.value is not None:
    print(describe_precision(points, _NOISE.value))


def _run() -> None:
  from mgjax.lab.scaling.experiment import run_experiment
  from mgjax.parallel import distributed

  if command_line.print_config(_CONFIG.value):
    return
  distributed.initialize()
  distributed.check_shared(_WORKDIR.value)
  if run_experiment(_CONFIG.value.to_dict(), _WORKDIR.value):
    print(f'{_WORKDIR.value}/sweep.jsonl')


def _correlate() -> None:
  from mgjax.lab.scaling.predictor import write_prediction

  prediction, paths = write_prediction(_WORKDIR.value, _SCORE.value)
  print(prediction.table(), *paths, sep='\n')


def _rank() -> None:
  from mgjax.lab.scaling.records import read_rows
  from mgjax.lab.scaling.seeds import describe_ranking

  print(describe_ranking(read_rows(_RECORDS.value), _SCORE.value))


def _fit() -> None:
  from mgjax.lab.scaling.findings import find_law
  from mgjax.lab.scaling.held_out import hold_out

  records = _arm(_ARM)
  resamples = _RESAMPLES.value
  if _HOLD_OUT.value:
    print(hold_out(records, _HOLD_OUT.value, resamples=resamples).table())
  else:
    print(find_law(records, resamples=resamples).table())


def _predict() -> None:
  from mgjax.lab.scaling.findings import find_law, predict

  print(predict(find_law(_arm(_ARM), resamples=_RESAMPLES.value), _COMPUTE.value))


def _compare() -> None:
  from mgjax.lab.scaling.comparison import budgets_of, compare_recipes
  from mgjax.lab.scaling.findings import describe_comparison
  from mgjax.lab.scaling.records import have_sizes, read_rows
  from mgjax.lab.scaling.seeds import describe_seeds

  names = _FIRST.value, _SECOND.value
  if not have_sizes(rows := read_rows(_RECORDS.value)):
    print(describe_seeds(rows, *names))
    return
  first, second = (_arm(flag).runs for flag in (_FIRST, _SECOND))
  comparison = compare_recipes(first, second, budgets_of(second), resamples=_RESAMPLES.value)
  print(describe_comparison(comparison, names))


def _plot() -> None:
  from mgjax.lab.scaling.comparison import budgets_of, compare_recipes
  from mgjax.lab.scaling.findings import find_law
  from mgjax.lab.scaling.held_out import hold_out
  from mgjax.lab.scaling.plots import write_laws
  from mgjax.lab.scaling.records import read_records

  chosen = {flag.value: _arm(flag) for flag in (_ARM, _FIRST, _SECOND) if flag.value}
  arms = chosen or read_records(_RECORDS.value)
  draws = {'resamples': _RESAMPLES.value}
  held_out = _HOLD_OUT.value
  comparison = None
  if len(arms) == 2:
    first, second = (arm.at_best_rates().runs for arm in arms.values())
    comparison = compare_recipes(first, second, budgets_of(second), **draws), tuple(arms)
  tests = {name: hold_out(arm, held_out, **draws) for name, arm in arms.items()} if held_out else {}
  laws = {name: find_law(arm, **draws) for name, arm in arms.items()}
  print(*write_laws(laws, _OUT.value, tests=tests, comparison=comparison), sep='\n')


def _claims() -> None:
  from mgjax.lab.scaling.claims import write_claims

  if not command_line.print_config(_CONFIG.value):
    print(*write_claims(_CONFIG.value.to_dict(), _RECORDS.value, _OUT.value), sep='\n')


def _arm(flag):
  """Returns the records of the arm that a flag names."""
  from mgjax.lab.scaling.records import choose_arm, read_records

  return choose_arm(read_records(_RECORDS.value), flag.value, flag.name)


COMMANDS = {
  'plan': _plan,
  'run': _run,
  'correlate': _correlate,
  'rank': _rank,
  'fit': _fit,
  'predict': _predict,
  'compare': _compare,
  'plot': _plot,
  'claims': _claims,
}


if __name__ == '__main__':
  command_line.run(main, tuple(COMMANDS))
