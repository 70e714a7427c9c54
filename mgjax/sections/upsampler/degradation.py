"""Real-ESRGAN's second-order degradation, which makes the upsampler's low-resolution input.

Movie Gen §3.1.5: HD clips are blurred, resized, made noisy and compressed, twice, then enlarged
bilinearly to the size they had. A clip is filmed by one camera: chance decides once for all of its
frames (`recipe.py`), but for the noise, which is new in each.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from mgjax.core.configuration.keys import Fields, Sample
from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize, round_to_bytes
from mgjax.core.typing import Float, UInt8, Wrapped
from mgjax.models.conditioning.clips.low_resolution import LOW_RESOLUTION_KEY
from mgjax.sections.upsampler.blur import Blur, filtered
from mgjax.sections.upsampler.recipe import Degradation, Noise, Recipe, Round, draw_recipe

Bytes = UInt8[np.ndarray, 't h w 3']
Jpeg = Callable[[Bytes, int], Bytes]  # frames, quality
VideoCodec = Callable[[Bytes, str, float, float], Bytes]  # frames, codec, crf, frames a second

SMALL = 'small'  # field of samples
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FPS = 24.0  # of clips that do not say


class Compressors(NamedTuple):
  """`jpeg` and `video_codec` of `data.media.compression`, or what stands for them."""

  jpeg: Jpeg | None = None
  video_codec: VideoCodec | None = None


_NO_COMPRESSION = Compressors()


def degrade(
  video: Bytes,
  size: tuple[int, int],
  recipe: Recipe,
  compressors: Compressors = _NO_COMPRESSION,
  *,
  fps: float = _FPS,
) -> UInt8[np.ndarray, 't i j 3']:
  """Degrades a clip: twice blur, resize, noise and compression; at the end the size, and ringing.

  Args:
    size: (height, width) of the result.
    compressors: those that a recipe may have.
    fps: frames a second of the clip.

  Raises:
    ConfigError: the recipe has a compression that was not given.
  """
  jpeg, video_codec = compressors

  def compress(frames: np.ndarray, drawn: Round) -> np.ndarray:
    if drawn.quality is not None:
      if jpeg is None:
        raise ConfigError('the degradation compresses by JPEG; expected `jpeg`, a function')
      frames = jpeg(round_to_bytes(frames), drawn.quality)
    if drawn.codec is not None:
      if video_codec is None:
        raise ConfigError('the degradation compresses videos; expected `video_codec`, a function')
      frames = video_codec(round_to_bytes(frames), *drawn.codec, fps)
    return frames.astype(np.float32, copy=False)

  def finish(frames: np.ndarray) -> np.ndarray:
    return _blurred(resize(frames, size, recipe.kernel), recipe.sinc)

  frames = _spoilt(video.astype(np.float32), recipe.first, video.shape[1:3], (recipe.seed, 0))
  frames = compress(frames, recipe.first)
  frames = _spoilt(frames, recipe.second, size, (recipe.seed, 1))
  if recipe.compressed_last:
    return round_to_bytes(compress(finish(frames), recipe.second))
  return round_to_bytes(finish(compress(frames, recipe.second)))


class Degraded(Wrapped):
  """Samples of a source with 'low_resolution' beside 'video': degraded, and enlarged bilinearly.

  There are `variants` of each clip, each degraded differently. Sample i is of clip
  i mod len(source), and its degradation is a function of (seed, i) alone, so that it is one of step
  and row as well.
  """

  def __init__(
    self,
    source: Any,
    settings: Degradation,
    *,
    scale: float = 2.0,
    variants: int = 1,
    seed: int = 0,
    reconstructed: float = 0.0,
    compressors: Compressors = _NO_COMPRESSION,
  ):
    """Wraps a source.

    Args:
      source: of samples with 'video', uint8 (t h w 3).
      settings: what may happen.
      scale: by how much videos shrink, and will be upsampled.
      variants: of each sample of the source.
      reconstructed: the fraction of samples with 'small' instead, the clip shrunk and nothing else,
        for an autoencoder to encode and decode.
      compressors: see `degrade`; must be picklable where worker processes read.

    Raises:
      ConfigError: `scale` or `variants` is below 1.
    """
    if not scale >= 1 or variants < 1:
      raise ConfigError(f'scale = {scale}, variants = {variants}; expected numbers from 1')
    super().__init__(source)
    self.said = f'degraded by {scale:g} x {variants}, seed {seed}, {settings}'
    self._settings, self._seed = settings, seed
    self._scale, self._variants, self._reconstructed = scale, variants, reconstructed
    self._compressors = compressors

  def recipe(self, index: int) -> Recipe:
    """Returns what happens to a sample."""
    return draw_recipe(self._settings, np.random.default_rng((self._seed, index)))

  def __len__(self) -> int:
    return len(self.source) * self._variants

  def __getitem__(self, index: SupportsIndex) -> Sample:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f'sample {index} of a source of {len(self)}')
    sample = self.source[index % len(self.source)]
    if np.random.default_rng((self._seed, index, 1)).random() < self._reconstructed:
      video = sample['video']
      return {**sample, SMALL: resize(video, self._size(video), 'area')}
    small = self._degraded(sample, index)
    return {**sample, LOW_RESOLUTION_KEY: resize(small, sample['video'].shape[1:3], 'bilinear')}

  def small(self, index: int) -> Bytes:
    """Returns the low-resolution clip of a sample before it is enlarged."""
    return self._degraded(self.source[index % len(self.source)], index)

  def _degraded(self, sample: Fields, index: int) -> Bytes:
    video = sample['video']
    fps = float(sample.get('fps', _FPS))
    return degrade(video, self._size(video), self.recipe(index), self._compressors, fps=fps)

  def _size(self, video: Bytes) -> tuple[int, int]:
    height, width = (max(1, round(side / self._scale)) for side in video.shape[1:3])
    return height, width


def _spoilt(
  frames: np.ndarray, drawn: Round, base: tuple[int, ...], seed: tuple[int, int]
) -> np.ndarray:
  """Blurs, resizes to `base` times the scale and adds noise."""
  tall, wide = (max(1, round(side * drawn.scale)) for side in base)
  frames = resize(_blurred(frames, drawn.blur), (tall, wide), drawn.kernel)
  return frames if drawn.noise is None else _noisy(frames, drawn.noise, seed)


def _blurred(frames: np.ndarray, blur: Blur | None) -> np.ndarray:
  return frames if blur is None else filtered(frames, blur.kernel())


def _gaussian(frames: np.ndarray, noise: Noise, generator: np.random.Generator) -> np.ndarray:
  return generator.standard_normal((*frames.shape[:3], 1 if noise.grey else 3), np.float32)


def _poisson(frames: np.ndarray, noise: Noise, generator: np.random.Generator) -> np.ndarray:
  light = np.einsum('thwc,c->thw', frames, _LUMA)[..., None] if noise.grey else frames
  light = np.clip(light, 0, 255)
  return (generator.poisson(light) - light).astype(np.float32)


_ERRORS = {'gaussian': _gaussian, 'poisson': _poisson}


def _noisy(
  frames: Float[np.ndarray, 't h w 3'], noise: Noise, seed: tuple[int, int]
) -> Float[np.ndarray, 't h w 3']:
  """Adds Gaussian noise, or `level` times the error of counting one photon a level; clipped."""
  error = _ERRORS[noise.kind](frames, noise, np.random.default_rng(seed))
  error *= np.float32(noise.level)
  noisy = frames + error
  return np.clip(noisy, 0, 255, out=noisy)
