"""Block-sparse attention: a window of tiles around each tile, and tiles selected by content.

The tokens of a grid (t h w) are cut into tiles. The queries of a tile read the keys of a window of
tiles around it (Zhang et al. 2025, "Fast video generation with sliding tile attention"). Near an
edge the window is moved inwards, so that every query reads as many keys. A kernel then sees tiles
of heads as rows of a batch, (b g T) s 1 k against (b g T) (W s) 1 k. Each is dense, and n W s of
n^2 scores are computed. This takes W copies of keys and values. A kernel that takes an index of
tiles, such as `experimental/tpu_attention`, reads them in place: tokens are then ordered by tiles.

A head may choose further tiles: those whose mean key has the largest product with the mean query of
a tile (Zhang et al. 2025, "Faster video diffusion with trainable sparse attention"). The choice has
no gradient; `attend_to_means`, added through a gate, trains the means.
"""

import dataclasses
import functools
import itertools
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float
from mgjax.nn.kernels.kernel import NOTHING, AttentionKernel, Saved
from mgjax.nn.kernels.tpu_blocks import LANES

_log = logging.getLogger(__name__)

TileSizes = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Tiles:
  """The pattern of block-sparse attention: which tokens read which.

  Attributes:
    grid: tokens along t, h, w; tokens behind the grid, which pad it for a mesh, read nothing.
    tile: tokens of a tile along t, h, w.
    window: tiles that are read along t, h, w; odd, and cut to the number of tiles.
    chosen: further tiles that each head reads, chosen by content.
  """

  grid: TileSizes
  tile: TileSizes
  window: TileSizes
  chosen: int = 0

  def __post_init__(self):
    if any(count % 2 == 0 for count in self.window):
      raise ConfigError(
        f'a window of {self.window} tiles has no middle; expected odd numbers, as in (3, 3, 3)'
      )

  @property
  def counts(self) -> TileSizes:
    """Tiles along t, h, w; the last ones may reach beyond the grid."""
    t, h, w = (-(-size // tile) for size, tile in zip(self.grid, self.tile, strict=True))
    return t, h, w

  @property
  def read(self) -> TileSizes:
    """Tiles that are read along t, h, w."""
    t, h, w = map(min, self.window, self.counts)
    return t, h, w

  @property
  def keys(self) -> int:
    """The number of keys that a query reads, with those beyond the grid."""
    tiles = min(math.prod(self.read) + self.chosen, math.prod(self.counts))
    return tiles * math.prod(self.tile)

  @property
  def work(self) -> int:
    """The number of keys with the same cost in operations.

    Means of T tiles cost as much as 2 T keys: a token enters three of them and reads one.
    """
    return self.keys + (2 * math.prod(self.counts) if self.chosen else 0)

  def seen(self, shape: tuple[int, ...], keys: bool = False) -> tuple[int, ...]:
    """Returns the shape of queries or keys (b n g k) as a kernel sees it."""
    b, _, g, k = shape
    return b * g * math.prod(self.counts), self.keys if keys else math.prod(self.tile), 1, k


@functools.cache
def _tokens(tiles: Tiles) -> np.ndarray:
  """Returns the token indices of every tile (T s), -1 beyond the grid."""
  padded = [n * size for n, size in zip(tiles.counts, tiles.tile, strict=True)]
  index = np.full(padded, -1, np.int32)
  inside = tuple(slice(0, size) for size in tiles.grid)
  index[inside] = np.arange(math.prod(tiles.grid)).reshape(tiles.grid)
  sides = itertools.chain.from_iterable(zip(tiles.counts, tiles.tile, strict=True))
  return index.reshape(*sides).transpose(0, 2, 4, 1, 3, 5).reshape(math.prod(tiles.counts), -1)


@functools.cache
def _neighbours(tiles: Tiles) -> np.ndarray:
  """Returns the indices of the tiles that every tile reads (T W)."""
  neighbours = []
  for tile in itertools.product(*map(range, tiles.counts)):
    ranges = []
    for position, count, width in zip(tile, tiles.counts, tiles.read, strict=True):
      first = min(max(position - width // 2, 0), count - width)
      ranges.append(range(first, first + width))
    window = itertools.product(*ranges)
    neighbours.append([np.ravel_multi_index(near, tiles.counts) for near in window])
  return np.array(neighbours, np.int32)


class _Cut:
  """Reorders tokens (b n ..) by tiles (b (T s) ..), and back."""

  def __init__(self, tiles: Tiles, step: int = 1):  # a tile's size is padded to a multiple of it
    self._tokens = _tokens(tiles)
    padding = -self._tokens.shape[1] % step
    self._tokens = np.pad(self._tokens, ((0, 0), (0, padding)), constant_values=-1)
    self.count, self.size = self._tokens.shape
    self.inside = self._tokens >= 0
    self._back = np.zeros(math.prod(tiles.grid), np.int32)  # token -> its index in tile order
    self._back[self._tokens[self.inside]] = np.flatnonzero(self.inside)

  def line(self, x: Array) -> Array:
    """Reorders (b n ..) to (b (T s) ..), zero beyond the grid."""
    inside = self.inside.reshape(-1, *[1] * (x.ndim - 2))
    return jnp.where(inside, x[:, np.maximum(self._tokens, 0).ravel()], jnp.zeros((), x.dtype))

  def back(self, x: Array, like: Array, nothing: float = 0.0) -> Array:
    """Reorders (b (T s) ..) to (b n ..), `nothing` beyond the grid."""
    padding = [(0, 0), (0, like.shape[1] - len(self._back)), *[(0, 0)] * (x.ndim - 2)]
    return jnp.pad(x[:, self._back], padding, constant_values=nothing)


def tiled(kernel: AttentionKernel, tiles: Tiles) -> AttentionKernel:
  """Makes a kernel that reads only tiles, from one that reads all keys or takes an index."""
  near = _neighbours(tiles)
  width = tiles.keys // math.prod(tiles.tile)
  cut = _Cut(tiles, LANES)
  indexed = bool(kernel.takes_tiles) and kernel.takes_tiles(cut.count, cut.size, width)
  if not indexed:
    if kernel.takes_tiles:
      _log.warning('too many tiles for an index: %s copies of keys', width)
    kernel = _gathered(kernel, math.prod(tiles.counts))
    cut = _Cut(tiles)
  count = cut.count
  size = cut.size
  turn = functools.partial(jnp.swapaxes, axis1=1, axis2=2)

  def choose(q: Array, k: Array, mask: Array | None) -> Array:  # (b g T W), or (1 1 T W)
    if not tiles.chosen:
      batch, heads = (1, 1) if indexed else (len(q), q.shape[2])
      return jnp.broadcast_to(near, (batch, heads, *near.shape))
    mask = (jnp.ones(k.shape[:2], bool) if mask is None else mask).reshape(-1, count, size)
    shares = mask / jnp.maximum(mask.sum(-1, keepdims=True), 1)
    q, k = (x.astype(jnp.float32).reshape(len(x), count, size, *x.shape[2:]) for x in (q, k))
    q, k = (jnp.einsum('btsgk,bts->bgtk', x, shares) for x in (q, k))
    fits = jnp.where(mask.any(-1)[:, None, None], jnp.einsum('bgtk,bguk->bgtu', q, k), -jnp.inf)
    in_window = np.zeros((count, count), bool)
    in_window[np.arange(count)[:, None], near] = True
    return lax.top_k(jnp.where(in_window, jnp.inf, fits), width)[1]

  def inputs(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[list[Array | None], Array]:
    if mask is None and cut.inside.all():
      mask_in_tiles = None
    else:
      mask_in_tiles = cut.line(jnp.ones(k.shape[:2], bool) if mask is None else mask)
    q, k, v = map(cut.line, (q, k, v))
    return [q, k, v, mask_in_tiles], choose(q, k, mask_in_tiles)

  def forward(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
    arrays, index = inputs(q, k, v, mask)
    y, lse = kernel.forward(*arrays, index=index)
    return cut.back(y, q), turn(cut.back(turn(lse), q, 10 * NOTHING))

  def backward(saved: Saved, dy: Array) -> tuple[Array, Array, Array]:
    arrays, index = inputs(*saved[:4])
    sums = [cut.line(x) if x.ndim == 4 else turn(cut.line(turn(x))) for x in saved[4:]]
    gradients = kernel.backward((*arrays, *sums), cut.line(dy), index=index)
    dq, dk, dv = map(cut.back, gradients, saved[:3])
    return dq, dk, dv

  return AttentionKernel(forward, backward, kernel.takes_output)


def _gathered(kernel: AttentionKernel, count: int) -> AttentionKernel:
  """Makes a kernel that takes an index of one that does not, with W copies of keys and values."""
  pick = jax.vmap(lambda x, index: x[index])
  turn = functools.partial(jnp.swapaxes, axis1=1, axis2=2)

  def heads(x: Array) -> Array:  # (b (T s) g ..) -> (b g T s ..)
    return jnp.moveaxis(x.reshape(len(x), count, -1, *x.shape[2:]), 3, 1)

  def rows(x: Array) -> Array:  # -> (b g T) s 1 .., of queries; of sums (b g (T s)) as well
    x = heads(x if x.ndim == 4 else turn(x))
    x = x.reshape(-1, x.shape[3], 1, *x.shape[4:])
    return x if x.ndim == 4 else turn(x)

  def whole(x: Array, like: Array) -> Array:  # the inverse of `rows`
    x = x.reshape(len(like), like.shape[2], count, -1, *x.shape[3:])
    return jnp.moveaxis(x, 1, 3).reshape(*like.shape[:3], *x.shape[4:])

  def keys(index: Array, k: Array, v: Array, mask: Array | None) -> list[Array | None]:
    k, v = (jax.vmap(pick)(heads(x), index) for x in (k, v))
    k, v = (x.reshape(-1, x.shape[3] * x.shape[4], 1, x.shape[5]) for x in (k, v))
    mask_of_keys = None if mask is None else pick(mask.reshape(len(mask), count, -1), index)
    return [k, v, None if mask_of_keys is None else mask_of_keys.reshape(k.shape[:2])]

  def forward(q, k, v, mask, index):
    y, lse = kernel.forward(rows(q), *keys(index, k, v, mask))
    return whole(y, q), turn(whole(turn(lse), q))

  def backward(saved, dy, index):
    q, *key_inputs, output, lse = saved
    dq, *dkv = kernel.backward(
      (rows(q), *keys(index, *key_inputs), rows(output), rows(lse)), rows(dy)
    )
    wide = [jnp.zeros_like(x, jnp.float32) for x in key_inputs[:2]]
    add_up = jax.linear_transpose(lambda k, v: keys(index, k, v, None)[:2], *wide)
    sums = add_up([x.astype(jnp.float32) for x in dkv])
    return whole(dq, q), *(x.astype(q.dtype) for x in sums)

  return AttentionKernel(forward, backward, kernel.takes_output)


def attend_to_means(
  q: Float[Array, 'b n g k'], k: Float[Array, 'b n g k'], v: Float[Array, 'b n g k'], tiles: Tiles
) -> Float[Array, 'b n g k']:
  """Returns softmax(Q K^T / sqrt(k)) V of the means over tiles, repeated for every token."""
  count = math.prod(tiles.counts)
  tile_of = np.full(q.shape[1], -1, np.int32)  # -1 for tokens beyond the grid
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
