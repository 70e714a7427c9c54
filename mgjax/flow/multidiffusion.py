"""MultiDiffusion: one model of windows makes something longer than a window (Movie Gen §3.1.5, §6).

The velocities of overlapping windows are averaged at every step of the solver.
"""

from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Batch, Float
from mgjax.flow.guidance import MakeVelocity
from mgjax.flow.solvers import Velocity
from mgjax.flow.windows import Cover


def bartlett_window(size: int) -> Float[np.ndarray, ' t']:
  """The triangular window, positive everywhere: min(i + 1/2, size - i - 1/2) (Movie Gen §6)."""
  places = np.arange(size) + 0.5
  return np.minimum(places, size - places)


def uniform_window(size: int) -> Float[np.ndarray, ' t']:
  """Every place of a window counts the same, which the report found to be worse."""
  return np.ones(size)


SHAPES: dict[str, Callable[[int], np.ndarray]] = {
  'bartlett': bartlett_window,
  'uniform': uniform_window,
}


def window_weights(cover: Cover, shape: str = 'bartlett') -> Float[np.ndarray, 'windows t']:
  """Returns w_i(x) = u(x - s_i) / sum_j u(x - s_j) of each window at its own places.

  Raises:
    ConfigError: no window has this shape.
  """
  if shape not in SHAPES:
    raise ConfigError(f'unknown window {shape!r}; choose one of {", ".join(SHAPES)}')
  rise, total = SHAPES[shape](cover.size), np.zeros(cover.length)
  for start in cover.starts:
    total[start : start + cover.size] += rise
  return np.stack([rise / total[start : start + cover.size] for start in cover.starts])


def multi_diffusion(
  make_velocity: MakeVelocity,
  cover: Cover,
  *,
  along: Collection[str],
  shape: str = 'bartlett',
  rows: int = 8,
) -> MakeVelocity:
  """Makes a model of windows into one of the whole length (Movie Gen §6).

  v(x, t) = sum_i w_i v_i(x_i, t), where x_i is what window i shows of x, v_i its velocity under the
  conditions of those frames, and w_i its weight. The solver sees one velocity, so the windows agree
  on one sound at every step. Windows are rows of a batch, as many as `rows` allows at a time, and
  the times are a loop: the program and its memory are those of one group.

  Args:
    make_velocity: batch of windows -> velocity, for instance `make_guided` with its model.
    cover: the windows.
    along: keys of what a batch has for every frame, on axis 1.
    shape: of their weights, a name in `SHAPES`.
    rows: in a call of the model, guidance not counted.

  Returns:
    batch of the whole length -> velocity of the whole length.

  Raises:
    ConfigError: no window has this shape, or `rows` is not positive.
  """
  if rows < 1:
    raise ConfigError(f'{rows} rows at a time; expected 1 at least')
  starts, share = list(cover.starts), window_weights(cover, shape)

  def make_whole(batch: Batch) -> Velocity:
    batch = {name: jnp.asarray(value) for name, value in batch.items()}

    def velocity(
      x: Float[Array, 'b t 1 1 c'], time: Float[Array, ' b']
    ) -> Float[Array, 'b t 1 1 c']:
      count = len(x)
      together = min(max(1, rows // count), len(starts))
      extra = -len(starts) % together  # windows that fill the last group, without weight
      groups = jnp.array(starts + [0] * extra, jnp.int32).reshape(-1, together)
      shares = jnp.array(np.pad(share, ((0, extra), (0, 0))), jnp.float32)
      shares = shares.reshape(-1, together, cover.size)

      def cut(array: Array, begin: Array) -> Array:
        pieces = [_slice(array, begin[i], cover.size) for i in range(together)]
        return jnp.concatenate(pieces)

      def add(total: Array, group: tuple[Array, Array]) -> tuple[Array, None]:
        begin, share = group
        shown = {
          name: cut(value, begin) if name in along else jnp.concatenate([value] * together)
          for name, value in batch.items()
        }
        answer = make_velocity(shown)(cut(x, begin), jnp.tile(time, together))
        answer = answer.astype(total.dtype).reshape(together, count, *answer.shape[1:])
        answer *= share[:, None, :, None, None, None]
        for i in range(together):  # one after another, so that sums are always in one order
          sofar = _slice(total, begin[i], cover.size)
          total = jax.lax.dynamic_update_slice_in_dim(total, sofar + answer[i], begin[i], 1)
        return total, None

      zeros = jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))
      return jax.lax.scan(add, zeros, (groups, shares))[0]

    return velocity

  return make_whole


def _slice(array: Array, start: Array, size: int) -> Array:
  return jax.lax.dynamic_slice_in_dim(array, start, size, 1)
