"""Plans the stages of a recipe as `launch.train` runs them: batch, policy, mesh as configured."""

import math
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.lab.planning.efficiency import bounds, spread
from mgjax.lab.planning.plan import Choices, Plan, make_plan
from mgjax.lab.planning.search import mesh_flag
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import Workload, make_workload
from mgjax.lab.report.tables import markdown
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.rules import AXES, BATCH
from mgjax.registry import find_component

_HEADER = ('Stage', 'Tokens', 'Batch', 'Mesh', 'GiB a chip', 'Seconds a step', 'Steps', 'Days')


def read_stages(config: ConfigDict) -> dict[str, FlowRun]:
  """Reads those stages of a recipe that train a flow model, in their order."""
  stages = {name: config.stages[name] for name in config.order}
  return {
    name: FlowRun.of(stage)
    for name, stage in stages.items()
    if 'model' in stage and find_component(stage.component).family == 'flow model'
  }


def plan_stages(runs: Mapping[str, FlowRun], topology: str) -> JSON:
  """Plans stages that train a flow model, by formula.

  A mesh is the configured one if its groups divide the batch, else the fastest. A batch that does
  not fit is cut into the fewest micro-batches that do; each takes a step's time. Days are for all
  configured steps, if all samples were as long as the longest. Returns plain JSON values; `flags`
  are those that `launch.train` needs beside the recipe to do the same.
  """
  cluster = parse_topology(topology)
  stages = {}
  flags = []
  for name, run in runs.items():
    work = make_workload(run)
    plan, cuts = _plan(work, cluster)
    key = f'--config.stages.{name}'
    own = {axis: work.mesh.get(axis, 1) for axis in AXES}
    changed = {a: size for a, size in plan.chosen.sizes.items() if own[a] not in (size, -1)}
    flags += [f'{key}.mesh.{axis}={size}' for axis, size in changed.items()]
    flags += [f'{key}.train.accumulate={cuts}'] * (cuts > run.train.accumulate)
    steps = run.train.steps
    seconds = plan.chosen.time.map(lambda time, cuts=cuts: cuts * time.step)
    stages[name] = {
      'tokens': work.tokens,
      'batch': work.batch,
      'micro_batches': cuts,
      'mesh': dict(plan.chosen.sizes),
      'peak_gib_per_chip': plan.peak_gib,
      'fits': plan.fits,
      'step_seconds': bounds(seconds),
      'steps': steps,
      'days': bounds(seconds.map(lambda duration, steps=steps: duration * steps / 86_400)),
    }
  total = {end: sum(stage['days'][end] for stage in stages.values()) for end in ('low', 'high')}
  return {
    'topology': cluster.name,
    'devices': cluster.devices,
    'gib_of_a_chip': cluster.chip.memory / GIB,
    'stages': stages,
    'stage': {'name': 'all stages', 'days': total},
    'flags': flags,
  }


def _plan(work: Workload, topology: Topology) -> tuple[Plan, int]:
  """Returns the plan of a micro-batch and how many make a step; the smallest if none fits."""
  sizes = {axis: work.mesh.get(axis, 1) for axis in AXES}
  fixed = math.prod(size for size in sizes.values() if size > 0)
  sizes = {axis: size if size > 0 else topology.devices // fixed for axis, size in sizes.items()}
  if not _takes(work, sizes) or math.prod(sizes.values()) != topology.devices:
    best = make_plan(work, topology.name, Choices(rows=work.batch))
    sizes = best.chosen.sizes
  rows = work.batch // math.prod(sizes[axis] for axis in BATCH)
  plan = None
  cuts = 1
  for cuts in (count for count in range(1, rows + 1) if rows % count == 0):
    plan = make_plan(work, topology.name, Choices(sizes, work.batch // cuts))
    if plan.fits:
      break
  if plan is None:
    raise ConfigError(
      f'{topology.name} takes no batch of {work.batch} in equal parts; take fewer chips'
    )
  return plan, cuts


def _takes(work: Workload, sizes: Mapping[str, int]) -> bool:
  return work.batch % math.prod(sizes[axis] for axis in BATCH) == 0


def describe_stages(answer: Fields) -> str:
  """Returns what `plan_stages` found as a table in Markdown, and the command that does it."""
  rows: list[Sequence[str]] = [_HEADER]
  for name, stage in answer['stages'].items():
    cuts = f' in {stage["micro_batches"]}' * (stage['micro_batches'] > 1)
    rows.append(
      (
        f'`{name}`',
        f'{stage["tokens"]:,}',
        f'{stage["batch"]:,}{cuts}',
        mesh_flag(stage['mesh']).replace(',', ', '),
        f'{stage["peak_gib_per_chip"]:.1f}' + ', does not fit' * (not stage['fits']),
        spread(stage['step_seconds']),
        f'{stage["steps"]:,}',
        spread(stage['days']),
      )
    )
  rows.append(('all', *('',) * 6, spread(answer['stage']['days'])))
  about = (
    f'{answer["topology"]}, {answer["devices"]:,} devices of {answer["gib_of_a_chip"]:.0f} GiB'
  )
  flags = answer['flags']
  command = ['', 'launch.train needs for this, beside the recipe:', *flags] if flags else []
  return '\n'.join([f'{about}, by formula:', '', markdown(rows), *command])
