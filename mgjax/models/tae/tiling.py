"""Tiling in time and space, for videos of any length and size.

In time, tiles of 32 frames are encoded without overlap and decoded with an overlap of half a tile,
blended by a linear ramp (Movie Gen §3.1.1, Fig. 6). Tiles of space are not in public sources; here
they overlap and are blended both ways. All the functions are of arrays (b t h w c).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Count, Positive, unpack
from mgjax.core.typing import Array, Float, Num
from mgjax.flow.windows import Cover
from mgjax.parallel.mesh import rows_mesh
from mgjax.parallel.rules import BATCH, ambient, place_rows, size
from mgjax.parallel.shard import batch_sharding

FrameArray = Array | np.ndarray  # (b t h w c), on the devices or on the host


@dataclasses.dataclass(frozen=True)
class Tiling(Checked):
  """Sizes of tiles, in frames and pixels.

  Attributes:
    frames: of a tile of time; 32 in the paper.
    overlap: frames that neighbours share when they are decoded; 16 in the paper.
    size: height and width of a tile of space; None is the whole frame, however large.
    feather: pixels that neighbours in space share. HunyuanVideo's code has 64 for tiles of 256.
  """

  frames: Positive = 32
  overlap: Count = 16
  size: Positive | None = None
  feather: Count = 64

  @classmethod
  def of(cls, fields: Fields) -> 'Tiling':
    """Makes it of a configuration's `tiling`."""
    return unpack(cls, fields, 'tiling')

  def check(self, compression: tuple[int, int, int]) -> None:
    """Checks that tiles are whole latents of an autoencoder that compresses t, h, w so much.
    Raises ConfigError if they are not, or more than half of a tile is shared.
    """
    time, height, width = compression
    pairs = [('frames', self.frames, 'overlap', self.overlap, time)]
    if self.size is not None:
      pairs.append(('size', self.size, 'feather', self.feather, math.lcm(height, width)))
    for name, tile, of_shared, shared, step in pairs:
      if tile < 1 or not 0 <= shared <= tile // 2 or tile % step or shared % step:
        raise ConfigError(
          f'tiling.{name}={tile} and tiling.{of_shared}={shared} do not fit the autoencoder; both '
          f'are multiples of {step}, what it compresses, and {of_shared} is at most half of {name}'
        )

  def covers(self, pixels: tuple[int, int], step: tuple[int, int]) -> tuple[Cover, Cover]:
    """Returns how tiles cover a frame of `pixels` (h, w), counted in places of `step` pixels."""
    largest = max(pixels) if self.size is None else self.size
    rows, columns = (
      Cover(length // unit, min(largest, length) // unit, self.feather // unit)
      for length, unit in zip(pixels, step, strict=True)
    )
    return rows, columns


def regroup(chunks: Iterable[FrameArray], length: int, overlap: int = 0) -> Iterator[FrameArray]:
  """Splits a video that comes in chunks of any lengths into tiles of `length` frames.

  Each tile begins with the last `overlap` frames of the previous one. The last tile may be shorter,
  but is longer than the overlap unless it is the only one. At most one tile is buffered.
  """
  buffer: list[FrameArray] = []
  count = num_overlapping = 0  # frames in the buffer, and those of them that were in the last tile
  for chunk in chunks:
    end = 0
    while end < chunk.shape[1]:
      begin = end
      end = min(end + length - count, chunk.shape[1])
      buffer.append(_cut(chunk, begin, end))
      count += end - begin
      if count == length:
        tile = _join(buffer)
        buffer = []
        count = overlap
        num_overlapping = overlap
        if overlap:
          buffer.append(_cut(tile, length - overlap, length))
        yield tile
        del tile
  if count > num_overlapping:
    yield _join(buffer)


def tiles_at_once(rows: int) -> int:
  """Returns how many tiles of so many rows give every device of the ambient mesh as many rows."""
  mesh = rows_mesh()
  return 1 if mesh is None else mesh.size // math.gcd(mesh.size, rows)


def spread_tiles(run: Callable[[Array], Array], tiles: Iterable[FrameArray]) -> Iterator[Array]:
  """Yields `run` of each tile of time; on a mesh several at a time, each on devices of its own.

  However a mesh shares the tokens of a model, tiles are spread over all of its devices: they know
  nothing of one another, so nothing is exchanged. A group is filled up with its last tile, so that
  one program serves all of one length. `run` is compiled, (b t h w c) -> (b u i j o), rows by
  themselves.
  """
  mesh = rows_mesh()
  if mesh is None:
    yield from map(run, tiles)
    return
  for shape, alike in itertools.groupby(tiles, lambda tile: tile.shape):
    rows = shape[0]
    together = tiles_at_once(shape[0])
    while group := list(itertools.islice(alike, together)):
      filled = jnp.concatenate([*group, *[group[-1]] * (together - len(group))])
      with jax.set_mesh(mesh):
        done = run(jax.device_put(filled, batch_sharding(mesh)))
      for begin in range(0, rows * len(group), rows):
        yield jax.lax.dynamic_slice_in_dim(done, begin, rows)


def stitch(tiles: Iterable[Array], overlap: int) -> Iterator[Array]:
  """Joins tiles that share `overlap` frames with the next, holding no more than those.

  Frame j of the n shared ones is (1 - w) x_i + w x_{i + 1} with w = (j + 1/2) / n (Movie Gen
  §3.1.1; a linear ramp. Which one is not in public sources: this one is the same backwards).
  """
  pending = None
  for tile in tiles:
    ready, pending = _sew(pending, tile, overlap)
    del tile
    if ready.shape[1]:
      yield ready
    del ready
  if pending is not None and pending.shape[1]:
    yield pending


@functools.partial(jax.jit, static_argnames='overlap')
def _sew(pending: Array | None, tile: Array, overlap: int) -> tuple[Array, Array]:
  """Returns the finished frames, and those that overlap with the next tile."""
  if pending is not None:
    n = pending.shape[1]
    weight = jnp.asarray((np.arange(n) + 0.5) / n, tile.dtype)[None, :, None, None, None]
    blend = (1 - weight) * pending + weight * tile[:, :n]
    tile = jnp.concatenate([blend, tile[:, n:]], axis=1)
  done = max(tile.shape[1] - overlap, 0)
  return tile[:, :done], tile[:, done:]


def over_tiles(
  run: Callable[[Array], Array],
  x: Num[Array, 'b t h w c'],
  read: tuple[Cover, Cover],
  write: tuple[Cover, Cover],
) -> Float[Array, 'b u i j o']:
  """Returns `run` of tiles of space, blended: sum_i w_i run(x_i).

  One tile is worked on at a time, or on a mesh as many as make the rows divide over the devices, so
  that no device holds more than it would alone. A frame of one tile is just `run(x)`. `read` says
  how tiles cover height and width of `x`, `write` how they cover those of the result; `run` is
  (b t h w c) -> (b u i j o), rows by themselves.
  """
  corners = list(itertools.product(*(cover.starts for cover in read)))
  if len(corners) == 1:
    return run(x)
  rows = x.shape[0]
  mesh = ambient()
  groups = 1 if mesh is None else size(mesh, BATCH)
  together = groups // math.gcd(groups, rows)
  padded = corners + corners[-1:] * (-len(corners) % together)
  height, width = (cover.size for cover in read)
  tiles = jnp.stack([x[:, :, i : i + height, j : j + width] for i, j in padded])
  tiles = tiles.reshape(-1, together * rows, *tiles.shape[2:])
  done = jax.lax.map(lambda tile: run(place_rows(tile)), tiles)
  return place_rows(_paste(done.reshape(len(padded), rows, *done.shape[2:]), write))


def _paste(tiles: Float[Array, 'n b t h w c'], covers: tuple[Cover, Cover]) -> Array:
  rows, columns = covers
  _, b, t, h, w, c = tiles.shape
  canvas = jnp.zeros((b, t, rows.length, columns.length, c), tiles.dtype)
  places = (
    zip(rows.starts, rows.windows, strict=True),
    zip(columns.starts, columns.windows, strict=True),
  )
  for tile, ((i, down), (j, across)) in zip(tiles, itertools.product(*places), strict=False):
    window = jnp.asarray(np.outer(down, across), tiles.dtype)[None, None, :, :, None]
    canvas = canvas.at[:, :, i : i + h, j : j + w].add(window * tile)
  return canvas


def _cut(frames: FrameArray, begin: int, end: int) -> FrameArray:
  if isinstance(frames, np.ndarray):
    return frames[:, begin:end]
  # The place is an operand, or a program would be compiled for each.
  return jax.lax.dynamic_slice_in_dim(frames, begin, end - begin, axis=1)


def _join(pieces: list[FrameArray]) -> FrameArray:
  if len(pieces) == 1:
    return pieces[0]
  on_host = all(isinstance(piece, np.ndarray) for piece in pieces)
  return (np if on_host else jnp).concatenate(pieces, axis=1)
