"""MultiDiffusion: a model of windows generates something longer than a window (§3.1.5, §6).

The velocities of overlapping windows are averaged at every step of the solver.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Batch, Float
from mgjax.flow.guidance import MakeVelocity
from mgjax.flow.solvers import Velocity
from mgjax.flow.windows import Cover
from mgjax.parallel.rules import BATCH, ambient, place_rows, size


def bartlett_window(size: int) -> Float[np.ndarray, ' t']:
  """The triangular window, positive everywhere: min(i + 1/2, size - i - 1/2) (Movie Gen §6)."""
  positions = np.arange(size) + 0.5
  return np.minimum(positions, size - positions)


SHAPES: dict[str, Callable[[int], np.ndarray]] = {
  'bartlett': bartlett_window,
  'uniform': np.ones,  # every position has the same weight; worse in the Movie Gen paper
}


def window_weights(cover: Cover, shape: str = 'bartlett') -> Float[np.ndarray, 'windows t']:
  """Returns w_i(x) = u(x - s_i) / sum_j u(x - s_j) of each window at its own positions.

  Raises ConfigError if no window has this shape.
  """
  return weights_at(cover.starts, cover.size, shape)


def weights_at(starts: Sequence[int], size: int, shape: str) -> Float[np.ndarray, 'windows t']:
  """Returns the `window_weights` of windows that begin at `starts`, which ascend."""
  check_window_shape(shape)
  rise = SHAPES[shape](size)
  total = np.zeros(starts[-1] - starts[0] + size)
  spans = [slice(start - starts[0], start - starts[0] + size) for start in starts]
  for span in spans:
    total[span] += rise
  return np.stack([rise / total[span] for span in spans])


def check_window_shape(shape: str) -> None:
  """Raises ConfigError if no window has this shape."""
  if shape not in SHAPES:
    raise ConfigError(f'unknown window {shape!r}; choose one of {", ".join(SHAPES)}')


def check_rows(rows: int) -> None:
  """Raises ConfigError if `rows` is less than 1."""
  if rows < 1:
    raise ConfigError(f'{rows} rows at a time; expected 1 at least')


def fill_devices(windows: int, count: int = 1) -> int:
  """Returns the smallest number >= `windows` whose rows, `count` a window, divide over the mesh."""
  mesh = ambient()
  groups = 1 if mesh is None else size(mesh, BATCH)
  unit = groups // math.gcd(groups, count)
  return -(-windows // unit) * unit


def multi_diffusion(
  make_velocity: MakeVelocity,
  covers: Sequence[Cover],
  *,
  along: Mapping[str, int],
  shape: str = 'bartlett',
  rows: int = 8,
) -> MakeVelocity:
  """Turns a model of windows into a model of the complete array, in time or in time and space.

  v(x, t) = sum_i w_i v_i(x_i, t), where x_i is x in window i, v_i its velocity under the conditions
  there, and w_i its weight (Movie Gen §3.1.5, §6). The solver sees one velocity, so the windows
  agree at every step. A window over several axes is a product of windows, and its weight the
  product of theirs: again a partition of unity. Windows are rows of a batch, up to `rows` at a
  time, split over the devices of a mesh. A loop runs over the groups, so the program and its memory
  are those of one group, beside the complete x.

  For tiles of space alone, time is a cover of one window: `windows(frames, frames)`.

  Args:
    make_velocity: batch of windows -> velocity, for instance `make_guided` with its model.
    covers: the windows of the axes 1, 2, .. of x: of (t,), or of (t, h, w).
    along: keys of arrays that are cut with x -> how many of their axes 1, 2, .. are cut, by the
      first covers: 1 for features of frames (b t e), 3 for latents (b t h w c) under three covers.
      Every window sees the complete array of other keys.
    shape: of their weights, a name in `SHAPES`.
    rows: in a call of the model, without the terms of guidance; rounded up to divide over a mesh.

  Returns:
    A function of the complete batch that returns the velocity of the complete array.

  Raises:
    ConfigError: no window has this shape, `rows` is not positive, or `along` names more axes than
      there are covers; on use, if an array does not have the lengths of its covers.
  """
  check_rows(rows)
  for name, axes in along.items():
    if not 1 <= axes <= len(covers):
      raise ConfigError(
        f'{axes} axes of {name!r} are to be cut; expected 1 to {len(covers)}, as there are covers'
      )
  starts = list(itertools.product(*(cover.starts for cover in covers)))
  sizes = [cover.size for cover in covers]
  # For each axis (windows, size). The product over axes is only formed for one group at a time.
  weights_of_windows = itertools.product(*(window_weights(cover, shape) for cover in covers))
  shares = [np.stack(share) for share in zip(*weights_of_windows, strict=True)]

  def make_whole(batch: Batch) -> Velocity:
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    for name in along.keys() & batch.keys():
      _check_lengths(name, batch[name], covers[: along[name]])

    def velocity(
      x: Float[Array, 'b *axes c'], time: Float[Array, ' b']
    ) -> Float[Array, 'b *axes c']:
      _check_lengths('x', x, covers)
      count = len(x)
      together = fill_devices(min(max(1, rows // count), len(starts)), count)

      def add(total: Array, group: tuple[Array, list[Array]]) -> tuple[Array, None]:
        corners, shares = group

        def cut(array: Array, axes: int) -> Array:
          pieces = [_slice(array, corners[i, :axes], sizes[:axes]) for i in range(together)]
          return place_rows(jnp.concatenate(pieces))

        cut_batch = {
          name: cut(value, along[name])
          if name in along
          else place_rows(jnp.concatenate([value] * together))
          for name, value in batch.items()
        }
        answer = make_velocity(cut_batch)(cut(x, len(sizes)), jnp.tile(time, together))
        answer = answer.astype(total.dtype).reshape(together, count, *answer.shape[1:])
        for axis, share in enumerate(shares):
          answer *= jnp.expand_dims(share, [i for i in range(1, answer.ndim) if i != axis + 2])
        for i in range(together):  # one after another, so that the order of sums is fixed
          total = _add(total, answer[i], corners[i])
        return total, None

      zeros = jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))
      groups = (_group(np.array(starts, np.int32), together), [_group(s, together) for s in shares])
      return jax.lax.scan(add, zeros, groups)[0]

    return velocity

  return make_whole


def _check_lengths(name: str, array: Array, covers: Sequence[Cover]) -> None:
  # `dynamic_slice` would silently shift a slice beyond the end.
  actual = array.shape[1 : 1 + len(covers)]
  lengths = tuple(cover.length for cover in covers)
  if actual != lengths:
    raise ConfigError(f'{name!r} is of shape {array.shape}; the windows cover {lengths} of it')


def _group(values: np.ndarray, together: int) -> Array:
  """Groups values of windows; the last group is padded with windows at 0 of weight 0."""
  extra = -len(values) % together
  padded = np.pad(values, ((0, extra), (0, 0))).reshape(-1, together, values.shape[1])
  return jnp.asarray(padded, jnp.int32 if values.dtype == np.int32 else jnp.float32)


def _slice(array: Array, corner: Array, sizes: Sequence[int]) -> Array:
  rest = array.shape[1 + len(sizes) :]
  begin = (0, *corner, *[0] * len(rest))
  return jax.lax.dynamic_slice(array, begin, (len(array), *sizes, *rest))


def _add(total: Array, part: Array, corner: Array) -> Array:
  begin = (0, *corner, *[0] * (total.ndim - 1 - len(corner)))
  sofar = jax.lax.dynamic_slice(total, begin, part.shape)
  return jax.lax.dynamic_update_slice(total, sofar + part, begin)
