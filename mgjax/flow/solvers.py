"""Solvers of `dX_t / dt = u(X_t, t)` (Movie Gen §3.4.2), checked by tests/flow/test_solvers.py.

A velocity maps x (b ...) and time (b,) to an array like x. The paper samples video with Euler and
sound with midpoint, and found both to beat the adaptive Dormand-Prince method for video.

UniPC of order 2 (Zhao et al. 2023, arXiv 2302.04867) is how Wan is sampled. With the noise level
s = 1 - t, the data that a velocity u predicts are m = x + s u. A step goes from s to s', with
h = log((1 - s') / s') - log((1 - s) / s) and e = expm1(-h):

  predict  x' = (s' / s) x - (1 - s') e (m + (m_before - m) / (2 r)),   r = h_before / h
  correct  the same step once more, with m' of its end as a third point

The correction uses the evaluation of the next step, so a step costs one evaluation.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float

Velocity = Callable[[Array, Array], Array]
Time = float | np.floating | Float[Array, '']


def euler(
  velocity: Velocity, x: Float[Array, 'b *axes'], time: Time, next_time: Time
) -> Float[Array, 'b *axes']:
  """Takes a step of order 1 with one evaluation: `x + h u(x, t)`."""
  return x + (next_time - time) * velocity_at(velocity, x, time)


def midpoint(
  velocity: Velocity, x: Float[Array, 'b *axes'], time: Time, next_time: Time
) -> Float[Array, 'b *axes']:
  """Takes a step of order 2 with two evaluations: `x + h u(x + h/2 u(x, t), t + h/2)`."""
  step = next_time - time
  middle = x + step / 2 * velocity_at(velocity, x, time)
  return x + step * velocity_at(velocity, middle, time + step / 2)


def heun(
  velocity: Velocity, x: Float[Array, 'b *axes'], time: Time, next_time: Time
) -> Float[Array, 'b *axes']:
  """Takes a step of order 2 with two evaluations: `x + h/2 (u(x, t) + u(x + h u(x, t), t + h))`."""
  step = next_time - time
  slope = velocity_at(velocity, x, time)
  next_slope = velocity_at(velocity, x + step * slope, next_time)
  return x + step / 2 * (slope + next_slope)


SOLVERS: dict[str, Callable[[Velocity, Array, Time, Time], Array]] = {
  'euler': euler,
  'midpoint': midpoint,
  'heun': heun,
}


def velocity_at(velocity: Velocity, x: Array, time: Time) -> Array:
  """Returns `u(x, t)` in the dtype of x, which a model in bfloat16 must not lower."""
  return velocity(x, jnp.full(x.shape[:1], time, x.dtype)).astype(x.dtype)


_FIRST = 1 - 1e-6  # the noise level of pure noise, whose logarithm would be infinite


def _unipc_coefficients(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the coefficients of all steps, in float64.

  Args:
    times: increasing from noise to data, steps + 1 of them; the last one is 1.

  Returns:
    Of corrections (steps, 4): of the x of the previous step, its two data predictions and that of
    its end. Of predictions (steps, 3): of x, the previous and the present data prediction.
  """
  levels = np.minimum(1 - np.asarray(times, np.float64), _FIRST)
  steps = len(levels) - 1
  with np.errstate(divide='ignore'):
    ratios = np.log1p(-levels) - np.log(levels)
  correct, predict = np.zeros((steps, 4)), np.zeros((steps, 3))
  correct[0, 0] = 1  # nothing to correct before the first step
  for i in range(steps):
    order = min(2, steps - i, i + 1)  # lower at both ends
    h = ratios[i + 1] - ratios[i]
    factor = -(1 - levels[i + 1]) * np.expm1(-h)
    scale = levels[i + 1] / levels[i]
    before = 0.5 * h / (ratios[i - 1] - ratios[i]) if order == 2 else 0.0
    predict[i] = scale, factor * before, factor * (1 - before)
    if i + 1 < steps:
      weights = _correction(h, ratios[i - 1] - ratios[i]) if order == 2 else (0.0, 0.5, 0.5)
      correct[i + 1] = scale, *(factor * np.array(weights))
  return correct, predict


def _correction(h: float, before: float) -> tuple[float, float, float]:
  """Returns the weights of the three data predictions of a corrected step; they sum to 1."""
  r = before / h
  first = np.expm1(-h) / -h - 1
  moments = np.array([first, (first / -h - 0.5) * 2]) / np.expm1(-h)
  earlier, end = np.linalg.solve([[1, 1], [r, 1]], moments)
  earlier = earlier / r
  return earlier, 1 - earlier - end, end


class _UniPCState(NamedTuple):
  """What a step hands to the next one: x, the x that it began at, and two data predictions."""

  x: Array
  start: Array
  older: Array
  old: Array


class _UniPCRow(NamedTuple):
  """What a step reads of a schedule.

  Attributes:
    time: flow time that the model reads, a whole number of thousandths, as published samplers
      round it.
    level: noise level of x.
    correct, predict: a row of each table of `_unipc_coefficients`.
  """

  time: Time
  level: Time
  correct: np.ndarray
  predict: np.ndarray


def _begin_unipc(x: Float[Array, 'b *axes']) -> _UniPCState:
  """Returns the state before the first step."""
  nothing = jnp.zeros_like(x)
  return _UniPCState(x, x, nothing, nothing)


def _unipc_rows(times: np.ndarray) -> list[_UniPCRow]:
  """Returns what each step of a schedule reads; `times` as above."""
  levels = np.minimum(1 - np.asarray(times, np.float64)[:-1], _FIRST)
  told = 1 - np.floor(1000 * levels) / 1000
  return list(map(_UniPCRow, told, levels, *_unipc_coefficients(times)))


def _unipc_step(velocity: Velocity, state: _UniPCState, row: _UniPCRow) -> _UniPCState:
  """Corrects x by the data prediction at it, and takes the next step: one evaluation."""
  x, start, older, old = state
  data = x + row.level * velocity_at(velocity, x, row.time)
  factors, step = row.correct, row.predict
  x = factors[0] * start + factors[1] * older + factors[2] * old + factors[3] * data
  return _UniPCState(step[0] * x + step[1] * old + step[2] * data, x, old, data)


STEPPED = (*SOLVERS, 'unipc')  # solvers that take the steps of a schedule


class Steps(NamedTuple):
  """A solver step by step: `state = begin(x)`, then `state = step(velocity, state, row)`.

  Attributes:
    begin: x -> state, a tuple whose first entry is x.
    rows: times -> what each step reads of the schedule.
    step: takes a step.
  """

  begin: Callable[[Array], tuple[Array, ...]]
  rows: Callable[[Any], Sequence[tuple[Any, ...]]]
  step: Callable[[Velocity, Any, Any], tuple[Array, ...]]


def make_steps(solver: str) -> Steps:
  """Makes the steps of a solver in `STEPPED`."""
  if solver == 'unipc':
    return Steps(_begin_unipc, _unipc_rows, _unipc_step)
  take_step = SOLVERS[solver]

  def step(velocity: Velocity, state: tuple[Array], row: tuple[Time, Time]) -> tuple[Array]:
    return (take_step(velocity, state[0], *row),)

  return Steps(lambda x: (x,), lambda times: list(itertools.pairwise(times)), step)
