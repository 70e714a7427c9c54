r"""Rehearses a long run before it is paid for: failures, checkpoints, spares, elasticity and cost.

python -m launch.rehearse --config=configs/video/t2iv_768.py:30b --topology=h100:8x768 --days=14
python -m launch.rehearse --config=configs/video/t2iv_768.py:30b --topology=v5p:8x8x8 --price=4.2
python -m launch.rehearse --config=configs/video/t2iv_768.py:30b --topology=h100:8x64 --days=60 \
  --assume=failures=0.81,restart=20,blocking=1 --spares=2
The step is the one that launch.plan plans by formula. The run is simulated by events, many times:
what fails, how it is detected, what is repeated, where machines come from. The command prints
goodput and where the rest of the time goes, and the best interval of checkpoints beside Young's and
Daly's. It also prints how many spare machines to keep, what elastic training would save, the cost,
and which assumption matters. Into --out go rehearsal.png and rehearsal.json. What is assumed, with
sources, is printed at the end; docs/how_to/rehearse.md explains.
"""

import contextlib

from absl import flags

from mgjax.core.errors import ConfigError

from . import command_line, flag_values

# Of mgjax/lab/planning/rehearsal/assumptions.py, which is not imported before a flag is read.
_NAMES = (
  'failures',
  'shape',
  'hardware',
  'planned',
  'detect',
  'restart',
  'repair',
  'storage',
  'blocking',
  'pause',
  'slow',
  'slowdown',
  'find',
  'stalls',
  'stall',
  'regroup',
)

_CONFIG = command_line.define_config('configs/video/t2iv_768.py:30b')
_TOPOLOGY = command_line.define_required(
  'topology', 'h100:8x768', 'Chips, as v5p:8x8x8, h100:8x64, v5p-64 or 8xH100.'
)
_DAYS = flags.DEFINE_float('days', 14, 'Of each simulated run.', 0.01, 3650)
_MESH = flag_values.define_mesh('Mesh, as data=8,fsdp=8,context=8; by default the best.')
_ROWS = flags.DEFINE_integer('rows', 0, 'Samples a step; 0 is one a group of chips.', lower_bound=0)
_SPARES = flags.DEFINE_integer(
  'spares', -1, 'Machines that stand by; -1 takes as many as make a step cheapest.', -1, 10_000
)
_ASSUME = command_line.define_fields(
  'assume',
  f'What to assume instead: some of {", ".join(_NAMES)}, in the units that are printed.',
  **dict.fromkeys(_NAMES, (float, 0, 1e5)),
)
_PRICE = flag_values.define(
  'price', flag_values.price, 'Dollars a chip-hour; an assumption.', default='2.5'
)
_RUNS = flags.DEFINE_integer('runs', 100, 'Simulated runs of every scenario.', 2, 100_000)
_SEED = flags.DEFINE_integer('seed', 0, 'Of all that is drawn.', lower_bound=0)
_OUT = flags.DEFINE_string('out', 'out/rehearsal', 'Folder for the picture and the numbers.')


def main(_) -> None:
  config = _CONFIG.value
  if command_line.print_config(config):
    return
  if -1 in (_MESH.value or {}).values():
    raise ConfigError('--mesh: a plan needs every size, as in data=8,fsdp=8,context=8')

  import jax

  from mgjax.lab.planning.plan import Choices, make_plan
  from mgjax.lab.planning.rehearsal import report, study
  from mgjax.lab.planning.rehearsal.assumptions import Assumptions, Job
  from mgjax.lab.planning.step_spec import FlowRun
  from mgjax.lab.planning.workload import make_workload
  from mgjax.training.monitoring.progress import Progress

  jax.config.update('jax_platforms', 'cpu')  # shapes alone: whatever devices there are, stay free
  assumed = Assumptions(**(_ASSUME.value or {}))
  if _OUT.value:
    report.check_pictures()
  choices = Choices(_MESH.value or None, _ROWS.value)
  plan = make_plan(make_workload(FlowRun.of(config)), _TOPOLOGY.value, choices)
  job = Job.of(plan)
  spares = None if _SPARES.value < 0 else _SPARES.value
  total = study.count_scenarios(job, assumed, spares)
  with contextlib.closing(Progress(total, unit='scenario')) as progress:
    rehearsal = study.rehearse(
      job,
      assumed,
      _DAYS.value,
      runs=_RUNS.value,
      seed=_SEED.value,
      spares=spares,
      tell=progress.report,
    )
  print(report.describe(rehearsal, plan, _PRICE.value))
  if _OUT.value:
    paths = report.write(rehearsal, plan, _PRICE.value, _OUT.value)
    print(f'{"written":12}{", ".join(map(str, paths))}')


if __name__ == '__main__':
  command_line.run(main)
