"""From noise to data (Movie Gen §3.4.2), checked by tests/flow/test_sample.py."""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Bool, Float
from mgjax.flow.adaptive import dormand_prince
from mgjax.flow.solvers import SOLVERS, Velocity, velocity_at


def check_solver(solver: str, reuse: float = 0.0) -> None:
  """Raises ConfigError if no solver has this name, or it cannot `reuse` velocities."""
  if solver not in (known := [*SOLVERS, 'dormand_prince']):
    raise ConfigError(f'unknown solver {solver!r}; choose one of {", ".join(known)}')
  if reuse and solver != 'euler':
    raise ConfigError(f"reuse = {reuse:g} with solver {solver!r}; velocities are reused by 'euler'")


def sample(
  velocity: Velocity,
  noise: Float[Array, 'b *axes'],
  times: np.ndarray | Float[Array, ' points'],
  solver: str = 'euler',
  reuse: float = 0.0,
) -> Float[Array, 'b *axes']:
  """Integrates `dX_t / dt = u(X_t, t)` from noise through `times`, in float32 or better.

  The paper's sampler is Euler over `linear_quadratic(50)` for video, midpoint with 64 steps for
  sound (Movie Gen §3.4.2, §6). The fixed-step solvers are one `lax.scan`, so that the model is
  compiled once for all steps, and again only for another shape or number of steps.

  Args:
    velocity: x (b ...), time (b,) -> velocity (b ...), from `make_guided` or any function.
    noise: X_0 ~ N(0, 1); or a point of the path at `times[0]`.
    times: increasing, steps + 1 of them, from `make_time_grid`.
    solver: a name in `SOLVERS`, or 'dormand_prince', which goes from the first time to the last
      on steps of its own, with its default tolerances, and answers NaN if it does not arrive.
    reuse: threshold of `sample_reusing`, which takes steps of Euler; 0 for the solver.

  Raises:
    ConfigError: no solver has this name, or one other than Euler is to reuse velocities.
  """
  check_solver(solver, reuse)
  if reuse:
    return sample_reusing(velocity, noise, times, reuse)[0]
  x = noise.astype(jnp.promote_types(noise.dtype, jnp.float32))
  times = jnp.asarray(times, x.dtype)
  if solver == 'dormand_prince':
    x, statistics = dormand_prince(velocity, x, start=times[0], end=times[-1])
    return jnp.where(statistics.finished, x, jnp.nan)
  take_step = SOLVERS[solver]

  def advance(x: Array, interval: tuple[Array, Array]) -> tuple[Array, None]:
    return take_step(velocity, x, *interval), None

  x, _ = jax.lax.scan(advance, x, (times[:-1], times[1:]))
  return x


def sample_reusing(
  velocity: Velocity,
  noise: Float[Array, 'b *axes'],
  times: np.ndarray | Float[Array, ' points'],
  threshold: float,
) -> tuple[Float[Array, 'b *axes'], Bool[Array, ' steps']]:
  """Takes steps of Euler, with a velocity of before while it has changed little.

  Of two velocities that were computed at times s < t, r = |u_t - u_s| / (|u_t| (t - s)) is how fast
  they change, relative to their size. At t' the last one is taken again while r (t' - t) is below
  the threshold, row by row, so that a sample does not depend on the others of its batch; what is
  not needed by any row is not computed. (TeaCache, Liu et al. 2024, asks the embedding of the time
  how much changes, with a polynomial fitted to each model; this asks the velocities themselves.)

  Returns x at the last time, and at which steps the velocity was computed; at a threshold of 0 all.
  """
  x = noise.astype(jnp.promote_types(noise.dtype, jnp.float32))
  times = jnp.asarray(times, x.dtype)
  over_axes = (len(x), *[1] * (x.ndim - 1))
  size = lambda v: jnp.sqrt(jnp.sum(jnp.square(v).reshape(len(v), -1), axis=1))  # noqa: E731

  def advance(state, interval):
    x, last, since, rate = state
    time, next_time = interval
    # Of the first velocity nothing is known: its rate is infinite, and 0 times that not a number.
    needed = ~(rate * (time - since) < threshold)
    fresh = jnp.any(needed)
    slope = jax.lax.cond(fresh, lambda: velocity_at(velocity, x, time), lambda: last)
    slope = jnp.where(needed.reshape(over_axes), slope, last)
    change = size(slope - last) / (size(slope) * (time - since))
    change = jnp.where(jnp.isfinite(since), change, jnp.inf)
    rate, since = jnp.where(needed, change, rate), jnp.where(needed, time, since)
    return (x + (next_time - time) * slope, slope, since, rate), fresh

  never = jnp.full(len(x), -jnp.inf, x.dtype)
  state = (x, jnp.zeros_like(x), never, -never)
  (x, *_), computed = jax.lax.scan(advance, state, (times[:-1], times[1:]))
  return x, computed
