"""Solvers of `dX_t / dt = u(X_t, t)` (Movie Gen §3.4.2), checked by tests/flow/test_solvers.py.

A velocity maps x (b ...) and time (b,) to an array like x. The paper samples video with Euler and
sound with midpoint, and found both to beat the adaptive Dormand-Prince method for video.
"""

from collections.abc import Callable

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
