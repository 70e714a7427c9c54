"""What a grid of runs is and costs, before any of them is trained."""

from collections.abc import Mapping, Sequence

from mgjax.lab.planning.plan import Choices, make_plan
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_workload
from mgjax.lab.report.tables import aligned
from mgjax.lab.scaling.design.grid import Point
from mgjax.lab.scaling.law import FLOPS


def describe_grid(points: Sequence[Point], topology: str = '') -> str:
  """Formats the runs of a grid as a table, with what they cost on a topology."""
  seconds = cost_seconds(points, topology) if topology else {}
  header = (
    'run',
    'parameters',
    'N by work',
    'tokens',
    'FLOPs',
    '6 N D',
    'rate',
    'rows',
    'steps',
    'seeds',
  )
  rows = [header if not seconds else (*header, 'hours, low', 'high')]
  for point in points:
    cells = (
      point.name,
      f'{point.parameters:,}',
      f'{point.size:.4g}',
      f'{point.tokens:.3g}',
      f'{point.flops:.4g}',
      f'{FLOPS * point.parameters * point.tokens / point.flops - 1:+.0%}',
      f'{point.learning_rate:.3g}',
      str(point.rows),
      f'{point.steps:,}',
      str(len(point.seeds)),
    )
    ends = seconds.get(point.name, ())
    rows.append((*cells, *(f'{end / 3600:.3g}' for end in ends)))
  runs = sum(len(point.seeds) for point in points)
  total = sum(point.flops * len(point.seeds) for point in points)
  lines = [*aligned(rows), '', f'{runs} runs, {total:.4g} FLOPs']
  if seconds:
    low, high = (
      sum(seconds[point.name][end] * len(point.seeds) for point in points) / 3600 for end in (0, 1)
    )
    lines.append(
      f'{low:,.3g} to {high:,.3g} hours of {topology}, one run after the other, by formula'
    )
  return '\n'.join(lines)


def cost_seconds(points: Sequence[Point], topology: str) -> Mapping[str, tuple[float, float]]:
  """Estimates the least and most seconds of every run on a topology by the planner's formula."""
  seconds = {}
  step_seconds = {}
  for point in points:
    key = (point.recipe, point.rung, point.rows)
    if key not in step_seconds:
      work = make_workload(FlowRun.of(point.config))
      time = make_plan(work, topology, Choices(rows=point.rows)).chosen.time
      step_seconds[key] = time.fast.step, time.slow.step
    fast, slow = step_seconds[key]
    seconds[point.name] = fast * point.steps, slow * point.steps
  return seconds
