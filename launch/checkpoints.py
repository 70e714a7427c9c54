r"""Lists, verifies, prunes, averages and exports the checkpoints of runs.

python -m launch.checkpoints list --workdir=runs/video
python -m launch.checkpoints verify --workdir=runs/video
python -m launch.checkpoints prune --workdir=runs/video --keep=2 --keep_every=10000 --keep_best=1 \
  --dry_run
python -m launch.checkpoints average --runs=runs/a,runs/b@4000,runs/c --workdir=runs/averaged
python -m launch.checkpoints average --runs=runs/a,runs/b --weights=2,1 --workdir=runs/averaged
python -m launch.checkpoints average --runs=runs/a,runs/b,runs/c --greedy --workdir=runs/averaged
python -m launch.checkpoints export --workdir=runs/video --step=4000 --out=video.safetensors
list reads no arrays: it finds missing and truncated files. verify reads every number and compares
its fingerprint with the one taken on the devices when it was saved. prune keeps the newest, those
at multiples of a step and the best by validation loss, by default as the run itself does; it
removes nothing unless the newest of them is verified, and refuses while a run is going on.
average takes the averaged parameters of runs of the same model, from the newest good checkpoint or
from run@step, with equal weights, with given weights, or greedily: in the order of their losses it
keeps those that lower the loss of the average. Each candidate and the average are validated on the
data of the first run; the result is the work directory of a run, for launch.sample, launch.evaluate
and --config.start_from. list and verify end with exit code 5 if a checkpoint is damaged.
"""

import contextlib
import time

from absl import flags
from etils import epy

from mgjax.core.errors import CheckpointError, ConfigError

from . import command_line, flag_values

with epy.lazy_imports():
  from mgjax.checkpoints import maintenance, orbax_io
  from mgjax.checkpoints import workdir as runs
  from mgjax.core import tables
  from mgjax.runtime import workdir_lock
  from mgjax.workflows import average_runs, weights


def _numbers(text: str) -> list[float]:
  try:
    return [float(word) for word in text.split(',')]
  except ValueError:
    raise ConfigError(f'--weights={text}: expected numbers, as in 2,1,1') from None


COMMANDS = ('list', 'verify', 'prune', 'average', 'export')

_WORKDIR = command_line.define_required(
  'workdir', 'runs/video', 'Work directory of the run; average makes one.'
)
_STEP = flags.DEFINE_integer(
  'step', None, 'verify, export: of one checkpoint; by default of all, of the newest good one.'
)
_KEEP = flags.DEFINE_integer('keep', None, 'prune: the newest that stay; by default as the run.')
_KEEP_EVERY = flags.DEFINE_integer(
  'keep_every', None, 'prune: steps that are a multiple of it stay; by default as the run.'
)
_KEEP_BEST = flags.DEFINE_integer(
  'keep_best', None, 'prune: those with the lowest losses that stay; by default as the run.'
)
_CORRUPT = flags.DEFINE_bool('corrupt', False, 'prune: what was set aside as damaged goes too.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'prune: say what would go, and remove nothing.')
_RUNS = command_line.define_required(
  'runs',
  'runs/a,runs/b',
  'average: work directories, or work directory@step.',
  commands=('average',),
  define=flags.DEFINE_list,
)
_WEIGHTS = flag_values.define(
  'weights', _numbers, 'average: one for each run; by default all alike.'
)
_GREEDY = flags.DEFINE_bool('greedy', False, 'average: those runs alone that make it better.')
_VALIDATE = flags.DEFINE_bool('validate', True, 'average: validate each run, and the average.')
_OUT = command_line.define_required(
  'out', 'video.safetensors', 'export: .safetensors file.', commands=('export',)
)
_WHICH = flags.DEFINE_enum(
  'which', 'average', ['average', 'params'], 'export: the averaged parameters, or themselves.'
)


def main(arguments) -> None:
  if arguments[1] == 'average':
    _average()
  elif arguments[1] == 'export':
    weights.export_weights(_WORKDIR.value, _OUT.value, which=_WHICH.value, step=_STEP.value)
  else:
    runs.read_config(_WORKDIR.value)  # or an empty folder would pass for a run without checkpoints
    {'list': _list, 'verify': _verify, 'prune': _prune}[arguments[1]](
      runs.open_checkpoints(_WORKDIR.value)
    )


def _list(checkpoints) -> None:
  rows, damaged = [('step', 'written', 'MiB', 'validation loss', '')], []
  for seen in maintenance.list_checkpoints(checkpoints):
    written = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seen.written))
    loss = '-' if seen.loss is None else f'{seen.loss:.6g}'
    rows.append((seen.name, written, f'{seen.size / 2**20:,.1f}', loss, seen.problem))
    damaged += [seen.name] * bool(seen.problem and seen.name.isdecimal())
  # What is wrong is a sentence: it stands behind the columns.
  lines = tables.aligned([row[:-1] for row in rows])
  for line, row in zip(lines, rows, strict=True):
    print(f'{line}  {row[-1]}'.rstrip())
  _end_if(damaged, checkpoints)


def _verify(checkpoints) -> None:
  def report(step: int, problem: str) -> None:
    print(f'{step:>9}  {problem or "good"}', flush=True)

  asked = None if _STEP.value is None else [_STEP.value]
  found = maintenance.verify_all(checkpoints, asked, report)
  _end_if([str(step) for step, problem in found.items() if problem], checkpoints)


def _end_if(damaged: list[str], checkpoints) -> None:
  if damaged:
    raise CheckpointError(
      f'{len(damaged)} damaged in {checkpoints.directory}: step {", ".join(damaged)}; a run that '
      'goes on sets such aside and begins at the newest good one'
    )


def _prune(checkpoints) -> None:
  ours = checkpoints.keep
  given = (_KEEP.value, _KEEP_EVERY.value, _KEEP_BEST.value)
  usual = (ours.latest, ours.every, ours.best)
  keep = orbax_io.Keep(*(b if a is None else a for a, b in zip(given, usual, strict=True)))
  with contextlib.nullcontext() if _DRY_RUN.value else workdir_lock.hold(_WORKDIR.value):
    _remove(checkpoints, maintenance.plan_pruning(checkpoints, keep, _CORRUPT.value))


def _remove(checkpoints, plan) -> None:
  for step, problem in plan.damaged.items():
    print(f'{step:>9}  damaged, left alone: {problem}')
  for step in plan.stay:
    print(f'{step:>9}  stays{", verified" * (step == plan.stay[-1])}')
  for name in plan.remove:
    if not _DRY_RUN.value:
      maintenance.remove(checkpoints, name)
    print(f'{name:>9}  {"would go" if _DRY_RUN.value else "removed"}', flush=True)


def _average() -> None:
  averaged = average_runs.average_runs(
    [_candidate(run) for run in _RUNS.value],
    _WORKDIR.value,
    weights=_WEIGHTS.value,
    greedy=_GREEDY.value,
    validate=_VALIDATE.value,
  )
  print(averaged.table())


def _candidate(run: str):
  workdir, _, step = run.rpartition('@')
  return (
    average_runs.AverageCandidate(workdir, int(step))
    if workdir and step.isdecimal()
    else average_runs.AverageCandidate(run)
  )


if __name__ == '__main__':
  command_line.run(main, commands=COMMANDS)
