"""Encodes videos into latents in tiles, normalised channel by channel, and decodes them."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Array, Bool, Float, Num, Tree, UInt8
from mgjax.flow.windows import Cover
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.tiling import (
  FrameArray,
  Tiling,
  over_tiles,
  regroup,
  spread_tiles,
  stitch,
  tiles_at_once,
)
from mgjax.models.tae.wan import WanAutoencoder

_log = logging.getLogger(__name__)
_LARGEST = 1e30  # that float32 still multiplies
PIXELS = (jnp.uint8, jnp.float16)  # the second, of numbers from 0 to 255, can be grey: 127.5


def to_unit(video: Num[Array, 'b t h w 3']) -> Float[Array, 'b t h w 3']:
  """Maps bytes, of a type in `PIXELS`, to [-1, 1]: x / 127.5 - 1."""
  return video.astype(jnp.float32) / 127.5 - 1


def to_bytes(video: Float[Array, 'b t h w 3']) -> UInt8[Array, 'b t h w 3']:
  """Maps [-1, 1] to bytes, rounded; what lies outside is clipped."""
  return jnp.clip(jnp.round((video.astype(jnp.float32) + 1) * 127.5), 0, 255).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Mean and standard deviation of each latent channel over data."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def as_dict(self) -> dict[str, list[float]]:
    """Returns plain JSON values."""
    return {'mean': list(self.mean), 'std': list(self.std)}

  @classmethod
  def from_dict(cls, values: object, channels: int | None = None) -> 'Statistics':
    """Reads what `as_dict` gave, of `channels` if they are known.

    Raises ConfigError if these are not as many means as deviations, finite and the latter above
    zero.
    """
    mean, std = ((values.get(k) if isinstance(values, Mapping) else None) for k in ('mean', 'std'))
    numbers = [*mean, *std] if isinstance(mean, list) and isinstance(std, list) else []
    numbers_in_range = [
      number for number in numbers if type(number) in (int, float) and abs(number) < _LARGEST
    ]
    num_channels = len(numbers) // 2 if channels is None else channels
    if (
      not num_channels
      or len(numbers_in_range) != 2 * num_channels
      or len(mean) != len(std)
      or min(std) <= 0
    ):
      raise ConfigError(
        f'the statistics of the latents are {values!r:.200}; expected {channels or "as many"} '
        'means and deviations, finite, the latter above zero'
      )
    return cls(tuple(map(float, mean)), tuple(map(float, std)))

  def tempered(self) -> 'Statistics':
    """Returns the roots of the deviations, scaled: the mean square over channels stays 1."""
    std = np.sqrt(np.multiply(self.std, np.mean(self.std)))
    return Statistics(self.mean, tuple(std.tolist()))

  @classmethod
  def neutral(cls, channels: int) -> 'Statistics':
    """Returns mean 0 and deviation 1, which leave latents as they are."""
    return cls((0.0,) * channels, (1.0,) * channels)

  def normalised(self, latents: Float[Array, '*b c']) -> Float[Array, '*b c']:
    """Returns (z - mean) / std, in float32."""
    mean, std = self._along(latents)
    return (latents.astype(jnp.float32) - mean) / std

  def plain(self, latents: Float[Array, '*b c']) -> Float[Array, '*b c']:
    """Returns what `normalised` was given, in float32."""
    mean, std = self._along(latents)
    return latents.astype(jnp.float32) * std + mean

  def _along(self, latents: Array) -> Iterator[Array]:
    shape = (1,) * (latents.ndim - 1) + (-1,)
    return (jnp.array(values, jnp.float32).reshape(shape) for values in (self.mean, self.std))


@dataclasses.dataclass(frozen=True)
class Sums:
  """Sums over latents, channel by channel, in float64; statistics of parts add up."""

  count: int = 0
  total: tuple[float, ...] = ()
  squares: tuple[float, ...] = ()

  @classmethod
  def of(cls, latents: np.ndarray) -> 'Sums':
    """Returns the sums over an array (... c)."""
    rows = np.asarray(latents, np.float64).reshape(-1, latents.shape[-1])
    return cls(len(rows), tuple(rows.sum(0).tolist()), tuple((rows**2).sum(0).tolist()))

  def __add__(self, other: 'Sums') -> 'Sums':
    if not self.count or not other.count:
      return self if self.count else other
    total, squares = (
      tuple(x + y for x, y in zip(one, two, strict=True))
      for one, two in ((self.total, other.total), (self.squares, other.squares))
    )
    return Sums(self.count + other.count, total, squares)

  def statistics(self) -> Statistics:
    """Returns what they add up to; ValueError if they are of nothing."""
    if not self.count:
      raise ValueError('no latents were given to estimate statistics over')
    mean = np.asarray(self.total) / self.count
    std = np.sqrt(np.maximum(np.asarray(self.squares) / self.count - mean**2, 1e-12))
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))

  def as_dict(self) -> JSON:
    """Returns plain JSON values."""
    return {'count': self.count, 'total': list(self.total), 'squares': list(self.squares)}

  @classmethod
  def from_dict(cls, values: Fields) -> 'Sums':
    """Reads what `as_dict` gave."""
    return cls(values['count'], tuple(values['total']), tuple(values['squares']))


def estimate_statistics(latents: Iterable[np.ndarray]) -> Statistics:
  """Estimates the statistics over arrays (... c), summed in float64."""
  return sum(map(Sums.of, latents), Sums()).statistics()


class LatentCodec:
  """A trained autoencoder with its statistics: bytes to normalised latents and back, in tiles.

  z = (mean of q(z | x) - m_c) / s_c. Encoding takes the posterior's mean, not a sample of it.
  Whatever fits into one tile is as the model alone encodes or decodes it; what a longer or a larger
  video becomes depends on the tiling (Movie Gen §3.1.1). Height and width that do not divide by the
  compression are filled up by repeating the last row and column. `tiling` has the sizes of tiles;
  by default the paper's, of time alone. Those of an image autoencoder do not overlap in time,
  whatever was given.
  """

  def __init__(
    self,
    model: Autoencoder | WanAutoencoder,
    params: Tree,
    statistics: Statistics,
    tiling: Tiling | None = None,
    fingerprints: Sequence[str] = (),
  ):
    """Binds what makes up the codec; of `fingerprints` see `read_autoencoder`.

    Raises ConfigError if the tiles do not fit the model's compression.
    """
    self.model, self.params, self.statistics = model, params, statistics
    self.fingerprints = tuple(fingerprints)
    self.tiling = tiling or Tiling()
    if not model.temporal:  # frames know nothing of each other: no seam, and none is decoded twice
      self.tiling = dataclasses.replace(self.tiling, overlap=0)
    self.tiling.check(model.compression)
    self._encode = jax.jit(self.encode_tile)
    self._decode = jax.jit(self.decode_tile, static_argnames='size')
    self._decode_whole = jax.jit(self.decode_bytes, static_argnames=('frames', 'size'))

  def encode(self, video: FrameArray) -> Float[Array, 'b t h w c']:
    """Encodes bytes (b t h w 3), of a type in `PIXELS`, into normalised latents.
    Raises DataError if the video is empty, of another type, or has other axes or channels.
    """
    return jnp.concatenate(list(self._encoded([video])), axis=1)

  def decode(
    self, latents: FrameArray, frames: int | None = None, size: tuple[int, int] | None = None
  ) -> UInt8[Array, 'b t h w 3']:
    """Decodes normalised latents (b t h w c) into the first `frames` frames.

    Args:
      frames: at most as many as the latents stand for, which is the default.
      size: height and width to keep of what was filled up; by default all.

    Raises:
      DataError: latents are empty, not finite, no floats, or of other axes or channels, or they do
        not stand for so many frames or pixels.
    """
    step, *_ = self.model.compression
    frames = self.frames_of(latents.shape[1]) if frames is None else frames
    if latents.ndim == 5 and 0 < latents.shape[1] <= self.tiling.frames // step:
      return self._decoded_whole(latents, frames, size)
    return jnp.concatenate(list(self._decoded([latents], frames, size)), axis=1)

  def encode_stream(self, video: Iterable[FrameArray]) -> Iterator[Float[Array, 'b t h w c']]:
    """Encodes a video that comes in chunks of any lengths, tile by tile; see `encode`.

    Memory does not grow with the length: a tile is done before the next one is begun.
    """
    for latents in self._encoded(video):
      yield jax.block_until_ready(latents)

  def decode_stream(
    self,
    latents: Iterable[FrameArray],
    frames: int | None = None,
    size: tuple[int, int] | None = None,
  ) -> Iterator[UInt8[Array, 'b t h w 3']]:
    """Decodes latents that come in chunks of any lengths, tile by tile; see `decode`.

    Without `frames` they are all that the latents stand for. Memory does not grow with the length:
    a tile for every device is computed while the caller works on those before, as writing them.
    """
    videos = self._decoded(latents, frames, size)
    first_video = next(videos, None)
    while first_video is not None:
      pieces = [first_video, *itertools.islice(videos, tiles_at_once(first_video.shape[0]) - 1)]
      jax.block_until_ready(pieces)
      first_video = next(videos, None)
      yield from pieces

  def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Returns (t, h, w, c) of the latents of a video of `shape` (t, h, w)."""
    return self.model.latent_shape(shape)

  def frames_of(self, latents: int) -> int:
    """Returns how many frames so many latents stand for, at most."""
    return latents * self.model.compression[0]

  def _encode_clip(
    self, params: Tree, video: Float[Array, 'b t h w 3']
  ) -> Float[Array, 'b u i j c']:
    """Returns the mean of the posterior of pixels in [-1, 1]."""
    return self.model.apply({'params': params}, video, method='encode').mean

  def _decode_clip(
    self, params: Tree, latents: Float[Array, 'b t h w c']
  ) -> Float[Array, 'b u i j 3']:
    """Returns pixels in [-1, 1] of latents as the model has them."""
    return self.model.apply({'params': params}, latents, method='decode')

  def encode_tile(self, params: Tree, video: Num[Array, 'b t h w 3']) -> Array:
    """Encodes one tile of time; a function to compile, for which `encode` cuts and checks."""
    height, width = self._filled(video.shape[2], video.shape[3])
    edges = (height - video.shape[2], width - video.shape[3])
    video = jnp.pad(video, [(0, 0), (0, 0), *((0, edge) for edge in edges), (0, 0)], mode='edge')

    def run(tile: Array) -> Array:
      return self.statistics.normalised(self._encode_clip(params, to_unit(tile)))

    pixels, places = self._covers(height, width)
    return over_tiles(run, video, pixels, places)

  def decode_tile(
    self, params: Tree, latents: Float[Array, 'b t h w c'], *, size: tuple[int, int] | None = None
  ) -> Float[Array, 'b u i j 3']:
    """Decodes one tile of time into pixels in [-1, 1]; a function to compile, as `encode_tile`."""

    def run(tile: Array) -> Array:
      return self._decode_clip(params, self.statistics.plain(tile))

    _, *steps = self.model.compression
    height, width = (n * step for n, step in zip(latents.shape[2:4], steps, strict=True))
    size = size or (height, width)
    if self._filled(*size) != (height, width):
      raise DataError(
        f'latents that stand for {height} x {width} pixels cannot become {size[0]} x {size[1]}; '
        'expected the size of the video that was encoded'
      )
    pixels, places = self._covers(height, width)
    return over_tiles(run, latents, places, pixels)[:, :, : size[0], : size[1]]

  def features(self, params: Tree, latents: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w f']:
    """Returns the features of normalised latents in the decoder; see `Autoencoder.features`."""
    plain = self.statistics.plain(latents)
    return self.model.apply({'params': params}, plain, method='features')

  def decode_bytes(
    self,
    params: Tree,
    latents: Float[Array, 'b t h w c'],
    *,
    frames: int,
    size: tuple[int, int] | None = None,
  ) -> tuple[UInt8[Array, 'b u i j 3'], Bool[Array, '']]:
    """Decodes a video of one tile of time, and says whether its latents are finite."""
    video = self.decode_tile(params, latents, size=size)[:, :frames]
    return to_bytes(video), jnp.isfinite(latents).all()

  def _decoded_whole(
    self, latents: FrameArray, frames: int, size: tuple[int, int] | None
  ) -> UInt8[Array, 'b t h w 3']:
    _check_frames(frames)
    _check_chunk(latents, None, self.model.latent_channels, of_bytes=False)
    if frames > (most := self.frames_of(latents.shape[1])):
      raise _too_many(frames, most)
    video, finite = self._decode_whole(self.params, latents, frames=frames, size=size)
    if not finite:
      raise _not_finite()
    return video

  def _encoded(self, chunks: Iterable[FrameArray]) -> Iterator[Array]:
    for tile in regroup(_checked(chunks, 3, of_bytes=True), self.tiling.frames):
      size = (tile.shape[2], tile.shape[3])
      if (filled := self._filled(*size)) != size:
        _say_filled(size, filled)
      yield self._encode(self.params, tile)

  def _decoded(
    self, chunks: Iterable[FrameArray], frames: int | None, size: tuple[int, int] | None
  ) -> Iterator[Array]:
    if frames is not None:
      _check_frames(frames)
    step, *_ = self.model.compression
    chunks = _checked(chunks, self.model.latent_channels, of_bytes=False)
    tiles = regroup(chunks, self.tiling.frames // step, self.tiling.overlap // step)
    pixels = spread_tiles(lambda tile: self._decode(self.params, tile, size=size), tiles)
    num_frames = 0
    for video in stitch(pixels, self.tiling.overlap):
      video = video if frames is None else video[:, : frames - num_frames]
      num_frames += video.shape[1]
      yield _to_bytes(video)
      if num_frames == frames:
        return
    if frames is None:
      return
    raise _too_many(frames, num_frames)

  def _filled(self, height: int, width: int) -> tuple[int, int]:
    _, *steps = self.model.compression
    _, *places, _ = self.latent_shape((1, height, width))
    return places[0] * steps[0], places[1] * steps[1]

  def _covers(self, *pixels: int) -> list[tuple[Cover, Cover]]:
    """Returns how tiles cover a frame, in pixels and in places of the latents."""
    _, *steps = self.model.compression
    return [self.tiling.covers(pixels, tuple(units)) for units in ((1, 1), steps)]


_to_bytes = jax.jit(to_bytes)


@functools.cache  # once for each size
def _say_filled(size: tuple[int, int], filled: tuple[int, int]) -> None:
  _log.warning(
    'videos of %d x %d are filled up to %d x %d pixels, which the autoencoder compresses; decode '
    'with size=(%d, %d) to cut that off again',
    *size,
    *filled,
    *size,
  )


def _checked(
  chunks: Iterable[FrameArray], channels: int, *, of_bytes: bool
) -> Iterator[FrameArray]:
  """Yields the chunks of a video, or of latents, if they are what they should be."""
  first = None
  frames = 0
  for chunk in chunks:
    first = _check_chunk(chunk, first, channels, of_bytes=of_bytes)
    if not of_bytes and not jnp.isfinite(chunk).all():
      raise _not_finite()
    frames += chunk.shape[1]
    yield chunk
  if not frames:
    name = 'a video' if of_bytes else 'latents'
    raise DataError(f'{name} without a frame: expected at least one')


def _check_chunk(
  chunk: FrameArray, first: tuple[int, int, int] | None, channels: int, *, of_bytes: bool
) -> tuple[int, int, int]:
  """Returns rows, height and width of the first chunk, `first` if that was another one."""
  name = 'a video' if of_bytes else 'latents'
  expected = 'bytes; see to_bytes' if of_bytes else 'floats, as encode makes them'
  if chunk.ndim != 5 or chunk.shape[-1] != channels:
    raise DataError(
      f'{name} of shape {chunk.shape}: expected 5 axes, (b t h w c), with {channels} channels'
    )
  types = PIXELS if of_bytes else (jnp.floating,)
  if not any(jnp.issubdtype(chunk.dtype, kind) for kind in types):
    raise DataError(f'{name} of type {chunk.dtype}: expected {expected}')
  b, _, h, w, _ = chunk.shape
  first = first or (b, h, w)
  if (b, h, w) != first or 0 in first:
    raise DataError(
      f'{name} of shape {chunk.shape}: expected one row and one pixel at least, and as many of '
      'both as in the chunks before'
    )
  return first


def _check_frames(frames: int) -> None:
  if frames < 1:
    raise DataError(f'{frames} frames were asked for; expected at least one')


def _too_many(frames: int | None, available: int) -> DataError:
  return DataError(
    f'{frames} frames were asked for, the latents stand for {available}; ask for at most that many'
  )


def _not_finite() -> DataError:
  return DataError('latents that are not all finite: expected none that are; look at the model')
