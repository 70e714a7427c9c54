"""Resampling of pictures along one axis after the other, by matrices of weights."""

import functools

import numpy as np

from mgjax.core.errors import check_one_of
from mgjax.core.typing import Float, Num


def _bicubic(x: np.ndarray) -> np.ndarray:
  x = np.abs(x)  # Keys' cubic with a = -1/2
  inner = (1.5 * x - 2.5) * x * x + 1
  outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, inner, np.where(x < 2, outer, 0))


_CURVES = {
  'bilinear': lambda x: np.maximum(1 - np.abs(x), 0),
  'bicubic': _bicubic,
  'lanczos': lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0),
}
KERNELS = ('area', *_CURVES)


@functools.cache
def averaging(length: int, output_length: int) -> Float[np.ndarray, 'i h']:
  """Returns the weights of an area filter from `length` pixels to `output_length` pixels."""
  edges = np.linspace(0, length, output_length + 1, dtype=np.float32)[:, None]
  pixels = np.arange(length, dtype=np.float32)
  overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
  return np.maximum(overlap, 0) * np.float32(output_length / length)


@functools.cache
def resampling(length: int, output_length: int, kernel: str) -> Float[np.ndarray, 'i h']:
  """Returns resampling weights (output, input), for use as rows @ image @ columns.T.

  Pixel j has its centre at j + 1/2. Output i is the sum over j of w_ij x_j,

    w_ij = k((j + 1/2 - (i + 1/2) s) / max(s, 1)) / sum of the same over j
    s = length / output_length

  The kernel k widens with s when the picture shrinks (antialiasing). Weights beyond an edge are
  dropped and the others renormalised, as in Pillow. Raises ConfigError if there is no such kernel.
  """
  if kernel == 'area':
    return averaging(length, output_length)
  check_one_of(f'kernel = {kernel!r}', kernel, KERNELS)
  step = length / output_length
  centres = (np.arange(output_length)[:, None] + 0.5) * step
  weights = _CURVES[kernel]((np.arange(length) + 0.5 - centres) / max(step, 1))
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resize(
  frames: Num[np.ndarray, 't h w c'], size: tuple[int, int], kernel: str
) -> Num[np.ndarray, 't i j c']:
  """Resizes frames to (height, width) by `resampling`; uint8 frames are rounded and clipped.

  Frames of that size are returned unchanged. Sums have a fixed order, so results are bitwise equal
  for any number of threads. Raises ConfigError if there is no such kernel.
  """
  count, height, width, channels = frames.shape
  tall, wide = size
  rows, columns = _sparse(height, tall, kernel), _sparse(width, wide, kernel)
  if (height, width) == (tall, wide):
    return frames
  whole = frames.dtype == np.uint8
  resized = np.empty((count, tall, wide, channels), np.float32 if whole else frames.dtype)
  for out, frame in zip(resized, frames.astype(resized.dtype, copy=False), strict=True):
    strips = (rows @ frame.reshape(height, -1)).reshape(tall, width, channels)
    strips = columns @ np.ascontiguousarray(strips.transpose(1, 0, 2)).reshape(width, -1)
    out[...] = strips.reshape(wide, tall, channels).transpose(1, 0, 2)
  return round_to_bytes(resized) if whole else resized


def round_to_bytes(frames: Num[np.ndarray, '*shape']) -> Num[np.ndarray, '*shape']:
  """Rounds levels, clips them to 0..255 and converts them to uint8."""
  rounded = np.rint(frames)
  return np.clip(rounded, 0, 255, out=rounded).astype(np.uint8)


@functools.cache
def _sparse(length: int, output_length: int, kernel: str):
  """Returns `resampling` as a sparse matrix: a third of the time for frames of 512 pixels."""
  from scipy import sparse  # the import takes 100 ms, which area filters do not need

  return sparse.csr_array(resampling(length, output_length, kernel))
