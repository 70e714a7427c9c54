"""Passes of a flow model that one sample takes, as configured and with fewer or cheaper ones."""

import collections
import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array
from mgjax.flow.guidance import Guidance, intervals_of, make_guided
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.solvers import STEPPED, make_steps
from mgjax.models.flow_model.settings import SampleSettings

# What weights are kept in while a model samples, and bytes of a number. Scales of int8, one a
# channel, are a thousandth of it and left out.
SAVED = 'float32'
HALF = 'bfloat16'
INT8 = 'int8'
WEIGHTS = {SAVED: 4, HALF: 2, INT8: 1}
CONFIGURED = 'as configured'
STUDENTS = (4, 1)  # steps of models that learnt to take few (flow/distillation/few_steps.py)


@dataclasses.dataclass(frozen=True)
class Way:
  """One way to sample: rows of a sample in a call of the model -> number of such calls."""

  name: str
  passes: Mapping[int, int]
  weights: str = SAVED

  @property
  def evaluations(self) -> int:
    """Forward passes of one row."""
    return sum(rows * count for rows, count in self.passes.items())


def count_passes(sample: SampleSettings) -> dict[int, int]:
  """Counts passes of a configured sampler by the rows that a sample has in them.

  The solver runs on one number, and guidance gives the rows at every time: outside of its intervals
  there may be fewer. ConfigError: the solver chooses its steps itself.
  """
  if sample.solver not in STEPPED:
    raise ConfigError(
      f'solver {sample.solver!r} chooses its steps while it runs, and no plan can count them '
      f'before; plan with config.sample.solver one of {", ".join(STEPPED)}'
    )
  counts: collections.Counter[int] = collections.Counter()

  def velocity(x: Array, time: Array) -> Array:
    counts[count_branches(guidance_at(sample.guidance, float(time[0])))] += 1
    return x

  steps = make_steps(sample.solver)
  state = steps.begin(jnp.zeros((1, 1)))
  for row in steps.rows(make_time_grid(steps=sample.steps, **sample.schedule)):
    state = steps.step(velocity, state, row)
  return dict(counts)


def list_ways(sample: SampleSettings) -> list[Way]:
  """Lists how a model could be sampled: as configured first, then cheaper one by one and together.

  Fewer calls need a model that was trained for them (guidance, few steps).
  """
  passes = count_passes(sample)
  total = sum(passes.values())
  ways = [
    Way(CONFIGURED, passes),
    Way('weights in bfloat16', passes, HALF),
    Way('weights in int8', passes, INT8),
  ]
  if max(passes) > 1:
    ways.append(Way('guidance distilled', {1: total}))
  for steps in STUDENTS:
    if steps < total:
      words = f'distilled to {steps} step{"s" * (steps > 1)}'
      ways += [Way(words, {1: steps}), Way(f'{words}, weights in int8', {1: steps}, INT8)]
  return ways


def count_branches(guidance: Guidance) -> int:
  """Counts the rows of the model that guidance makes of one, with scales of an interval in it."""
  row_counts = []

  def predict(x, *_):
    row_counts.append(len(x))
    return x

  scales = tuple(
    (name, max((value for value, _ in intervals_of(scale)), default=scale))
    for name, scale in guidance
  )
  make_guided(predict, {}, scales)(jnp.zeros((1, 1)), jnp.zeros(1))
  return row_counts[0]


def guidance_at(guidance: Guidance, time: float) -> Guidance:
  """Returns the scales that guidance has at a flow time, those of intervals as plain numbers."""
  intervals = [edges for _, scale in guidance for _, edges in intervals_of(scale)]
  inside = any(low <= time < high for low, high in intervals)
  # Inside of any interval all rows are computed, as in `flow.guidance.make_guided`.
  return guidance if inside else tuple((n, 1.0 if intervals_of(s) else s) for n, s in guidance)
