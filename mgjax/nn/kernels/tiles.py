"""Attention to tiles of tokens: those around, and those that fit best.

The tokens of a grid (t h w) are cut into tiles, and the queries of a tile read the keys of a window
of tiles around it (Zhang et al. 2025, "Fast video generation with sliding tile attention"). Near an
edge the window is moved inwards, so that every query reads as many. A kernel then sees tiles of
heads as rows of a batch, (b g T) s 1 k against (b g T) (W s) 1 k: each is dense, and of n^2 scores
n W s are left. It costs W copies of keys and values.

A head may choose further tiles: those whose mean key has the largest product with the mean query of
a tile (Zhang et al. 2025, "Faster video diffusion with trainable sparse attention"). Which these
are has no gradient; `attend_to_means`, added through a gate, lets means learn what to say.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float
from mgjax.nn.kernels.kernel import NOTHING, AttentionKernel, Saved

Sizes = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Which tokens read which.

  Attributes:
    grid: tokens along t, h, w; further ones, which fill up a mesh, read nothing.
    tile: tokens of a tile along t, h, w.
    window: tiles that are read along t, h, w; odd, or all there are.
    chosen: further tiles that each head reads, by what they hold.
  """

  grid: Sizes
  tile: Sizes
  window: Sizes
  chosen: int = 0

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
    tiles = min(math.prod(self.read) + self.chosen, math.prod(self.counts))
    return tiles * math.prod(self.tile)

  @property
  def work(self) -> int:
    """Keys that would take as many operations: means of T tiles, three that a token is part of and
    one that it gets back, take those of 2 T keys."""
    return self.keys + (2 * math.prod(self.counts) if self.chosen else 0)

  def seen(self, shape: tuple[int, ...], keys: bool = False) -> tuple[int, ...]:
    """Returns the shape that a kernel sees of queries, or of keys, (b n g k)."""
    b, _, g, k = shape
    return b * g * math.prod(self.counts), self.keys if keys else math.prod(self.tile), 1, k


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


class _Cut:
  """Tokens (b n ..) as tiles (b T s ..), and back."""

  def __init__(self, tiles: Tiles):
    self._tokens = _tokens(tiles)
    self.count, self.size = self._tokens.shape
    self.inside = self._tokens >= 0
    self._back = np.zeros(math.prod(tiles.grid), np.int32)  # of each token, its place in tiles
    self._back[self._tokens[self.inside]] = np.flatnonzero(self.inside)

  def tiles(self, x: Array) -> Array:
    """Returns (b T s ..), zero beyond the grid."""
    inside = self.inside.reshape(self.count, self.size, *[1] * (x.ndim - 2))
    return jnp.where(inside, x[:, np.maximum(self._tokens, 0)], jnp.zeros((), x.dtype))

  def whole(self, x: Array, length: int, nothing: float = 0.0) -> Array:
    """Returns (b n ..) of (b T s ..), `nothing` beyond the grid."""
    flat = x.reshape(len(x), self.count * self.size, *x.shape[3:])[:, self._back]
    more = [(0, 0), (0, length - len(self._back)), *[(0, 0)] * (flat.ndim - 2)]
    return jnp.pad(flat, more, constant_values=nothing)


def tiled(kernel: AttentionKernel, tiles: Tiles) -> AttentionKernel:
  """Makes a kernel that reads some tiles of one that reads everything."""
  cut, near = _Cut(tiles), _neighbours(tiles)
  count, size = cut.count, cut.size

  def heads(x: Array) -> Array:  # (b n g ..) -> (b g T s ..)
    return jnp.moveaxis(cut.tiles(x), 3, 1)

  def rows(x: Array) -> Array:  # -> (b g T) s 1 .., of queries
    x = heads(x)
    return x.reshape(-1, size, 1, *x.shape[4:])

  def whole(x: Array, like: Array, nothing: float = 0.0) -> Array:  # the inverse of `rows`
    b, n, g, *_ = like.shape
    return cut.whole(jnp.moveaxis(x.reshape(b, g, count, size, *x.shape[3:]), 1, 3), n, nothing)

  def choose(q: Array, k: Array, read: Array | None) -> Array:  # (b g T K)
    if not tiles.chosen:
      return jnp.broadcast_to(near, (len(q), q.shape[2], *near.shape))
    read = jnp.ones((len(k), count, size), bool) if read is None else read
    shares = read / jnp.maximum(read.sum(-1, keepdims=True), 1)
    q, k = (jnp.einsum('bgtsk,bts->bgtk', heads(x).astype(jnp.float32), shares) for x in (q, k))
    fits = jnp.where(read.any(-1)[:, None, None], jnp.einsum('bgtk,bguk->bgtu', q, k), -jnp.inf)
    always = np.zeros((count, count), bool)
    always[np.arange(count)[:, None], near] = True
    return lax.top_k(jnp.where(always, jnp.inf, fits), tiles.keys // size)[1]

  def keys(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, list[Array | None]]:
    read = None
    if mask is not None or not cut.inside.all():
      read = cut.tiles(jnp.ones(k.shape[:2], bool) if mask is None else mask)
    index = choose(q, k, read)
    pick = jax.vmap(lambda x, at: x[at])
    found = [jax.vmap(pick)(heads(x), index).reshape(-1, tiles.keys, 1, x.shape[3]) for x in (k, v)]
    return index, [*found, None if read is None else pick(read, index).reshape(-1, tiles.keys)]

  def forward(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
    y, lse = kernel.forward(rows(q), *keys(q, k, v, mask)[1])
    lse = whole(jnp.swapaxes(lse, 1, 2), q, 10 * NOTHING)
    return whole(y, q), jnp.swapaxes(lse, 1, 2)

  def backward(saved: Saved, dy: Array) -> tuple[Array, Array, Array]:
    q, k, v, mask, output, lse = saved
    index, read = keys(q, k, v, mask)
    turn = lambda x: jnp.swapaxes(x, 1, 2)  # noqa: E731
    output = rows(output) if kernel.takes_output else turn(rows(turn(output)))
    dq, *dkv = kernel.backward((rows(q), *read, output, turn(rows(turn(lse)))), rows(dy))

    def gather(gradient: Array, x: Array) -> Array:
      parts = gradient.astype(jnp.float32).reshape(*index.shape, size, x.shape[3])
      nothing = jnp.zeros((count, size, x.shape[3]), jnp.float32)
      sums = jax.vmap(jax.vmap(lambda part, at: nothing.at[at].add(part)))(parts, index)
      # What lies beyond the grid is masked, and has no gradient.
      return cut.whole(jnp.moveaxis(sums, 1, 3), x.shape[1]).astype(gradient.dtype)

    return whole(dq, q), *map(gather, dkv, (k, v))

  return AttentionKernel(forward, backward, kernel.takes_output)


def attend_to_means(
  q: Float[Array, 'b n g k'], k: Float[Array, 'b n g k'], v: Float[Array, 'b n g k'], tiles: Tiles
) -> Float[Array, 'b n g k']:
  """Returns softmax(Q K^T / sqrt(k)) V of the means over tiles, each for all tokens of its tile."""
  count = math.prod(tiles.counts)
  tile_of = np.full(q.shape[1], -1, np.int32)  # of tokens beyond the grid none
  tokens = _tokens(tiles)
  tile_of[tokens[tokens >= 0]] = np.nonzero(tokens >= 0)[0]
  member = jax.nn.one_hot(tile_of, count, dtype=q.dtype)  # (n T): its sums are local on a mesh
  sizes = (tokens >= 0).sum(1).astype(np.float32)[None, :, None, None]

  def mean(x: Array) -> Array:
    sums = jnp.einsum('nt,bngk->btgk', member, x, preferred_element_type=jnp.float32)
    return sums / sizes

  scores = jnp.einsum('btgk,bugk->bgtu', mean(q), mean(k)) / math.sqrt(q.shape[-1])
  y = jnp.einsum('bgtu,bugk->btgk', jax.nn.softmax(scores), mean(v))
  return jnp.einsum('nt,btgk->bngk', member, y.astype(q.dtype))
