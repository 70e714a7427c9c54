"""The adaptive Dormand-Prince solver of `dX_t / dt = u(X_t, t)` (Movie Gen §3.4.2).

The paper tried it and found Euler to be better for video at a given cost.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.flow.solvers import Time, Velocity, velocity_at

# Dormand and Prince 1980: stage i starts from x + h sum_j STAGES[i, j] k_j at t + h NODES[i]. The
# last stage starts from the solution of order 5, so its slope is the first one of the next step.
NODES = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
STAGES = np.array(
  [
    [0, 0, 0, 0, 0, 0, 0],
    [1 / 5, 0, 0, 0, 0, 0, 0],
    [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
    [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
  ]
)
ORDER_4 = np.array([5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40])
FIRST_STEP = 0.01


class SolverStatistics(NamedTuple):
  """The cost of an adaptive solution; `finished` is False if it did not reach the end."""

  accepted: Int[Array, '']
  rejected: Int[Array, '']
  evaluations: Int[Array, '']
  finished: Bool[Array, '']


class _Progress(NamedTuple):
  x: Array
  slope: Array  # velocity(x, time)
  time: Array
  step: Array  # the size to try next
  accepted: Array
  rejected: Array
  grow: Array  # a step just after a rejected one may not grow


def dormand_prince(
  velocity: Velocity,
  x: Float[Array, 'b *axes'],
  *,
  start: Time = 0.0,
  end: Time = 1.0,
  rtol: float = 1e-5,
  atol: float = 1e-5,
  max_steps: int = 1000,
) -> tuple[Float[Array, 'b *axes'], SolverStatistics]:
  """Integrates from `start` to `end` > `start` with the adaptive method of order 5(4).

  A step is accepted when the two orders differ by less than `atol + rtol |x|` in root mean square
  over each row, for every row of the batch; then `h <- h min(10, max(0.2, 0.9 error^(-1/5)))`.

  Returns:
    The solution, and its cost. If `statistics.finished` is False, the solution is the last accepted
    point: `max_steps` attempts were not enough, or the steps vanished because the velocity is not
    finite or not smooth.
  """
  start, end = (jnp.asarray(time, x.dtype) for time in (start, end))
  smallest = 10 * jnp.finfo(x.dtype).eps
  zero = jnp.zeros((), jnp.int32)

  def unfinished(progress: _Progress) -> Array:
    attempts = progress.accepted + progress.rejected
    going = (progress.time < end) & (progress.step > smallest)
    return going & (attempts < max_steps)

  def attempt(progress: _Progress) -> _Progress:
    next_time = jnp.minimum(progress.time + progress.step, end)
    step = next_time - progress.time
    x, slope, difference = _stages(velocity, progress.x, progress.slope, progress.time, step)
    scale = atol + rtol * jnp.maximum(jnp.abs(progress.x), jnp.abs(x))
    squares = jnp.mean(jnp.square(difference / scale), axis=tuple(range(1, x.ndim)))
    error = jnp.max(jnp.sqrt(squares))
    error = jnp.where(jnp.isfinite(error), error, jnp.inf)  # NaN would end the loop, inf retries

    accept = error < 1
    factor = jnp.clip(0.9 * error**-0.2, 0.2, jnp.where(progress.grow, 10.0, 1.0))
    return _Progress(
      x=jnp.where(accept, x, progress.x),
      slope=jnp.where(accept, slope, progress.slope),
      time=jnp.where(accept, next_time, progress.time),
      step=(step * factor).astype(x.dtype),
      accepted=progress.accepted + accept,
      rejected=progress.rejected + ~accept,
      grow=accept,
    )

  first = jnp.minimum(jnp.asarray(FIRST_STEP, x.dtype), end - start)
  slope = velocity_at(velocity, x, start)
  progress = _Progress(x, slope, start, first, zero, zero, jnp.array(True))
  progress = jax.lax.while_loop(unfinished, attempt, progress)
  evaluations = 1 + (len(NODES) - 1) * (progress.accepted + progress.rejected)
  finished = progress.time >= end
  return progress.x, SolverStatistics(progress.accepted, progress.rejected, evaluations, finished)


def _stages(
  velocity: Velocity, x: Array, slope: Array, time: Array, step: Array
) -> tuple[Array, Array, Array]:
  """Returns the solution of order 5 after a step, its slope, and its difference from order 4."""
  nodes = jnp.asarray(NODES, x.dtype)
  stages = jnp.asarray(STAGES, x.dtype)

  def combine(weights: Array, slopes: Array) -> Array:
    # Not a matrix product, which accelerators may round to bfloat16.
    weights = weights.reshape(weights.shape + (1,) * x.ndim)
    return step * jnp.sum(weights * slopes, axis=0)

  def stage(index: Array, slopes: Array) -> Array:
    point = x + combine(stages[index], slopes)
    return slopes.at[index].set(velocity_at(velocity, point, time + step * nodes[index]))

  slopes = jnp.zeros((len(NODES), *x.shape), x.dtype).at[0].set(slope)
  # A loop, so that a large model is traced and compiled once and not six times.
  slopes = jax.lax.fori_loop(1, len(NODES), stage, slopes)
  difference = combine(jnp.asarray(STAGES[-1] - ORDER_4, x.dtype), slopes)
  return x + combine(stages[-1], slopes), slopes[-1], difference
