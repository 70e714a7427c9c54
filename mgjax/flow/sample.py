"""Sampling: integration from noise to data (Movie Gen §3.4.2), checked by
tests/flow/test_sample.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Bool, Float
from mgjax.flow.adaptive import dormand_prince
from mgjax.flow.solvers import STEPPED, Velocity, make_steps, velocity_at


def check_solver(solver: str, reuse: float = 0.0) -> None:
  """Raises ConfigError if no solver has this name, or it cannot `reuse` velocities."""
  if solver not in (known := [*STEPPED, 'dormand_prince']):
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
    times: increasing, steps + 1 of them, from `make_time_grid`; 'unipc' takes them from the host.
    solver: a name in `STEPPED`, or 'dormand_prince', which chooses its own steps from the first
      time to the last, with its default tolerances, and returns NaN if it does not reach it.
    reuse: threshold of `sample_reusing`, which takes Euler steps; 0 uses the solver.

  Raises:
    ConfigError: no solver has this name, or `reuse` is given with another solver than Euler.
  """
  check_solver(solver, reuse)
  if reuse:
    return sample_reusing(velocity, noise, times, reuse)[0]
  x = noise.astype(jnp.promote_types(noise.dtype, jnp.float32))
  if solver == 'dormand_prince':
    times = jnp.asarray(times, x.dtype)
    x, statistics = dormand_prince(velocity, x, start=times[0], end=times[-1])
    return jnp.where(statistics.finished, x, jnp.nan)
  steps = make_steps(solver)
  rows = jax.tree.map(lambda *rows: jnp.stack(rows).astype(x.dtype), *steps.rows(times))

  def advance(state: tuple[Array, ...], row: tuple[Array, ...]) -> tuple[tuple[Array, ...], None]:
    return steps.step(velocity, state, row), None

  (x, *_), _ = jax.lax.scan(advance, steps.begin(x), rows)
  return x


def sample_reusing(
  velocity: Velocity,
  noise: Float[Array, 'b *axes'],
  times: np.ndarray | Float[Array, ' points'],
  threshold: float,
) -> tuple[Float[Array, 'b *axes'], Bool[Array, ' steps']]:
  """Takes Euler steps that reuse an earlier velocity while velocities change little.

  For two velocities at times s < t, r = |u_t - u_s| / (|u_t| (t - s)) is their relative rate of
  change. At t' the last velocity is reused while r (t' - t) is below the threshold. Rows decide on
  their own, so a sample does not depend on the others of its batch; the velocity is not computed if
  no row needs it. (TeaCache, Liu et al. 2024, estimates the change from the time embedding, with a
  polynomial fitted to each model; here it is measured on the velocities.)

  Returns x at the last time, and a mask of steps that computed the velocity; at threshold 0 all do.
  """
  x = noise.astype(jnp.promote_types(noise.dtype, jnp.float32))
  times = jnp.asarray(times, x.dtype)
  over_axes = (len(x), *[1] * (x.ndim - 1))
  size = lambda v: jnp.sqrt(jnp.sum(jnp.square(v).reshape(len(v), -1), axis=1))  # noqa: E731

  def advance(state, interval):
    x, last, since, rate = state
    time, next_time = interval
    # The first velocity has no rate yet: it is infinite, and 0 times infinity is NaN.
    needed = ~(rate * (time - since) < threshold)
    fresh = jnp.any(needed)
    slope = jax.lax.cond(fresh, lambda: velocity_at(velocity, x, time), lambda: last)
    slope = jnp.where(needed.reshape(over_axes), slope, last)
    change = size(slope - last) / (size(slope) * (time - since))
    change = jnp.where(jnp.isfinite(since), change, jnp.inf)
    rate = jnp.where(needed, change, rate)
    since = jnp.where(needed, time, since)
    return (x + (next_time - time) * slope, slope, since, rate), fresh

  never = jnp.full(len(x), -jnp.inf, x.dtype)
  state = (x, jnp.zeros_like(x), never, -never)
  (x, *_), computed = jax.lax.scan(advance, state, (times[:-1], times[1:]))
  return x, computed
