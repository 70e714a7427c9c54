"""Attention to the neighbourhood alone: sliding tiles of space and time (after Zhang et al. 2025,
"Fast video generation with sliding tile attention").

The tokens of a grid (t h w) are cut into tiles, and the queries of a tile read the keys of a window
of tiles around it. Near an edge the window is moved inwards, so that every query reads as many. A
kernel then sees tiles as rows of a batch, (b T) s g k against (b T) (W s) g k: each is dense, and
of n^2 scores n W s are left. It costs W copies of keys and values.
"""

import dataclasses
import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array
from mgjax.nn.kernels.kernel import NOTHING, AttentionKernel, Saved

Sizes = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Which tokens read which.

  Attributes:
    grid: tokens along t, h, w; further ones, which fill up a mesh, read nothing.
    tile: tokens of a tile along t, h, w.
    window: tiles that are read along t, h, w; odd, or all there are.
  """

  grid: Sizes
  tile: Sizes
  window: Sizes

  def __post_init__(self):
    if any(count % 2 == 0 for count in self.window):
      raise ConfigError(
        f'a window of {self.window} tiles has no middle; expected odd numbers, as in (3, 3, 3)'
      )

  @property
  def counts(self) -> Sizes:
    """Tiles along t, h, w; the last ones may reach beyond the grid."""
    return tuple(-(-size // tile) for size, tile in zip(self.grid, self.tile, strict=True))

  @property
  def read(self) -> Sizes:
    """Tiles that are read along t, h, w."""
    return tuple(map(min, self.window, self.counts))

  @property
  def keys(self) -> int:
    """Keys that a query reads, those beyond the grid counted."""
    return math.prod(self.read) * math.prod(self.tile)

  def seen(self, shape: tuple[int, ...], keys: bool = False) -> tuple[int, ...]:
    """Returns the shape that a kernel sees of queries, or of keys, (b n g k)."""
    b, _, g, k = shape
    return b * math.prod(self.counts), self.keys if keys else math.prod(self.tile), g, k


@functools.cache
def _tokens(tiles: Tiles) -> np.ndarray:
  """Returns the tokens of every tile (T s), -1 where it reaches beyond the grid."""
  padded = [n * size for n, size in zip(tiles.counts, tiles.tile, strict=True)]
  index = np.full(padded, -1, np.int32)
  inside = tuple(slice(0, size) for size in tiles.grid)
  index[inside] = np.arange(math.prod(tiles.grid)).reshape(tiles.grid)
  sides = itertools.chain.from_iterable(zip(tiles.counts, tiles.tile, strict=True))
  return index.reshape(*sides).transpose(0, 2, 4, 1, 3, 5).reshape(math.prod(tiles.counts), -1)


@functools.cache
def _neighbours(tiles: Tiles) -> np.ndarray:
  """Returns the tiles that every tile reads (T W)."""
  each = []
  for place in itertools.product(*map(range, tiles.counts)):
    ranges = []
    for at, count, width in zip(place, tiles.counts, tiles.read, strict=True):
      first = min(max(at - width // 2, 0), count - width)
      ranges.append(range(first, first + width))
    each.append([np.ravel_multi_index(near, tiles.counts) for near in itertools.product(*ranges)])
  return np.array(each, np.int32)


def tiled(kernel: AttentionKernel, tiles: Tiles) -> AttentionKernel:
  """Makes a kernel that reads windows of tiles of one that reads everything."""
  tokens, near = _tokens(tiles), _neighbours(tiles)
  count, size = tokens.shape
  back = np.zeros(math.prod(tiles.grid), np.int32)  # of each token of the grid, its place in tiles
  back[tokens[tokens >= 0]] = np.flatnonzero(tokens.reshape(-1) >= 0)
  inside = tokens >= 0

  def cut(x: Array) -> Array:  # (b n ..) -> (b T s ..), zero beyond the grid
    tiles = x[:, np.maximum(tokens, 0)]
    return jnp.where(
      inside.reshape(count, size, *[1] * (x.ndim - 2)), tiles, jnp.zeros((), x.dtype)
    )

  def rows(x: Array) -> Array:  # (b n g _k) -> (b T) s g _k, of queries
    return cut(x).reshape(-1, size, *x.shape[2:])

  def windows(x: Array) -> Array:  # (b n ..) -> (b T) (W s) .., of keys
    return cut(x)[:, near].reshape(len(x) * count, -1, *x.shape[2:])

  def whole(x: Array, length: int, nothing: float = 0.0) -> Array:  # the inverse of `rows`
    flat = x.reshape(-1, count * size, *x.shape[2:])[:, back]
    more = [(0, 0), (0, length - len(back)), *[(0, 0)] * (flat.ndim - 2)]
    return jnp.pad(flat, more, constant_values=nothing)

  def read(k: Array, mask: Array | None) -> Array | None:
    if mask is None and inside.all():
      return None
    return windows(jnp.ones(k.shape[:2], bool) if mask is None else mask)

  def forward(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
    y, lse = kernel.forward(rows(q), windows(k), windows(v), read(k, mask))
    length = q.shape[1]
    lse = whole(jnp.swapaxes(lse, 1, 2), length, 10 * NOTHING)
    return whole(y, length), jnp.swapaxes(lse, 1, 2)

  def backward(saved: Saved, dy: Array) -> tuple[Array, Array, Array]:
    q, k, v, mask, output, lse = saved
    turn = lambda x: jnp.swapaxes(x, 1, 2)  # noqa: E731
    output = rows(output) if kernel.takes_output else turn(rows(turn(output)))
    lse = turn(rows(turn(lse)))
    dq, *dkv = kernel.backward(
      (rows(q), windows(k), windows(v), read(k, mask), output, lse), rows(dy)
    )

    def gather(gradient: Array) -> Array:  # the transpose of `windows`
      parts = gradient.astype(jnp.float32).reshape(-1, count, *near.shape[1:], size, *k.shape[2:])
      sums = jnp.zeros((len(k), count, size, *k.shape[2:]), jnp.float32).at[:, near].add(parts)
      # What lies beyond the grid is masked, and has no gradient.
      return whole(sums.reshape(-1, size, *k.shape[2:]), k.shape[1]).astype(gradient.dtype)

    return whole(dq, q.shape[1]), *map(gather, dkv)

  return AttentionKernel(forward, backward, kernel.takes_output)
