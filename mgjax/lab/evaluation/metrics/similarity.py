"""Metrics of video reconstructions: PSNR, SSIM, flicker and LPIPS."""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import numpy as np
from scipy.ndimage import gaussian_filter

from mgjax.core.errors import DataError
from mgjax.core.typing import Array, Float, Tree, UInt8
from mgjax.models.tae.latents import to_unit
from mgjax.models.tae.perceptual import Perceptual, read_perceptual, widths_of

FEATURES = 'VGG16 relu5_3'  # of `make_perceive`

_RADIUS = 5  # of the window of 11 x 11 pixels
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def squared_errors(
  x: UInt8[np.ndarray, 't h w c'], y: UInt8[np.ndarray, 't h w c']
) -> Float[np.ndarray, 't']:
  """Returns the mean squared error of each frame, pixels in [0, 1]."""
  frames = zip(x, y, strict=True)
  return np.array([np.mean((a / 255 - b / 255) ** 2) for a, b in frames])


def decibels(errors: Float[np.ndarray, 'n']) -> Float[np.ndarray, 'n']:
  """Returns PSNR = 10 log10(1 / error) in dB, at most 100, the value of equal frames."""
  return -10 * np.log10(np.maximum(errors, 1e-10))


def structural_similarity(
  x: UInt8[np.ndarray, 't h w c'], y: UInt8[np.ndarray, 't h w c']
) -> Float[np.ndarray, 't']:
  """Returns the SSIM of each frame, the mean over channels and pixels (Wang et al., 2004).

    SSIM = (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))

  Means m and covariances s use a Gaussian window of 11 x 11 pixels, sigma 1.5, that lies within the
  frame; pixels are in [0, 1], C1 = 0.01^2, C2 = 0.03^2. This is scikit-image's SSIM with
  gaussian_weights=True, use_sample_covariance=False and channel_axis=-1. Raises DataError if the
  frames are smaller than the window.
  """
  window = 2 * _RADIUS + 1
  if min(x.shape[1:3]) < window:
    raise DataError(
      f'SSIM looks at {window} x {window} pixels, and these frames are '
      f'{x.shape[1]} x {x.shape[2]}; take larger ones'
    )
  return np.array([_similarity(a / 255, b / 255) for a, b in zip(x, y, strict=True)])


def _similarity(x: Float[np.ndarray, 'h w c'], y: Float[np.ndarray, 'h w c']) -> np.floating:
  blur = functools.partial(gaussian_filter, sigma=_SIGMA, radius=_RADIUS, axes=(0, 1))
  mean_x, mean_y = blur(x), blur(y)
  variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
  covariance = blur(x * y) - mean_x * mean_y
  above = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
  below = (mean_x**2 + mean_y**2 + _C1) * (variances + _C2)
  within = slice(_RADIUS, -_RADIUS)
  return np.mean((above / below)[within, within])


def flicker(x: UInt8[np.ndarray, 't h w c'], y: UInt8[np.ndarray, 't h w c']) -> float:
  """Returns mean |(y_{t+1} - y_t) - (x_{t+1} - x_t)| in grey levels, of 255.

  An error that stands still costs nothing; one that appears and disappears does, which a mean over
  frames does not tell apart. Raises DataError if there is one frame only.
  """
  if len(x) < 2:
    raise DataError(f'flicker is between frames, and there is {len(x)}; give a video')
  steps = []
  before = x[0].astype(np.int16) - y[0]
  for a, b in zip(x[1:], y[1:], strict=True):
    after = a.astype(np.int16) - b
    steps.append(np.mean(np.abs(after - before)))
    before = after
  return float(np.mean(steps))


@dataclasses.dataclass(frozen=True)
class Perception:
  """LPIPS distances and features of the frames of two clips."""

  distances: Float[np.ndarray, 't']  # LPIPS
  originals: Float[np.ndarray, 't d']  # features
  reconstructions: Float[np.ndarray, 't d']


Perceive = Callable[[UInt8[np.ndarray, 't h w 3'], UInt8[np.ndarray, 't h w 3']], Perception]


def make_perceive(path: str | os.PathLike[str]) -> Perceive:
  """Makes the function that compares clips with LPIPS; ConfigError for other weights."""
  params = jax.device_put(read_perceptual(path))
  model = Perceptual(widths_of(params))

  @jax.jit
  def look(params: Tree, originals: Array, reconstructions: Array) -> tuple[Array, Array, Array]:
    def compare(frames: tuple[Array, Array]) -> tuple[Array, Array, Array]:
      x, y = (to_unit(frame[None, None]) for frame in frames)
      seen = [model.apply({'params': params}, image, method='features') for image in (x, y)]
      distance = model.apply({'params': params}, x, y)
      return distance[0, 0], seen[0][0, 0], seen[1][0, 0]

    return jax.lax.map(compare, (originals, reconstructions), batch_size=4)

  def perceive(
    originals: UInt8[np.ndarray, 't h w 3'], reconstructions: UInt8[np.ndarray, 't h w 3']
  ) -> Perception:
    return Perception(*map(np.asarray, look(params, originals, reconstructions)))

  return perceive
