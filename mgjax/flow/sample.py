"""From noise to data (Movie Gen §3.4.2), checked by tests/flow/test_sample.py."""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float
from mgjax.flow.adaptive import dormand_prince
from mgjax.flow.solvers import SOLVERS, Velocity


def check_solver(solver: str) -> None:
  """Raises ConfigError if no solver has this name."""
  if solver not in (known := [*SOLVERS, 'dormand_prince']):
    raise ConfigError(f'unknown solver {solver!r}; choose one of {", ".join(known)}')


def sample(
  velocity: Velocity,
  noise: Float[Array, 'b *axes'],
  times: np.ndarray | Float[Array, ' points'],
  solver: str = 'euler',
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

  Raises:
    ConfigError: no solver has this name.
  """
  x = noise.astype(jnp.promote_types(noise.dtype, jnp.float32))
  times = jnp.asarray(times, x.dtype)
  if solver == 'dormand_prince':
    x, statistics = dormand_prince(velocity, x, start=times[0], end=times[-1])
    return jnp.where(statistics.finished, x, jnp.nan)
  check_solver(solver)
  take_step = SOLVERS[solver]

  def advance(x: Array, interval: tuple[Array, Array]) -> tuple[Array, None]:
    return take_step(velocity, x, *interval), None

  x, _ = jax.lax.scan(advance, x, (times[:-1], times[1:]))
  return x
