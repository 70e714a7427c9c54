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
def averaging(length: int, wanted: int) -> Float[np.ndarray, 'i h']:
  """Returns rows that average the `length` input pixels under each of `wanted` output pixels."""
  edges = np.linspace(0, length, wanted + 1, dtype=np.float32)[:, None]
  pixels = np.arange(length, dtype=np.float32)
  overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
  return np.maximum(overlap, 0) * np.float32(wanted / length)


@functools.cache
def resampling(length: int, wanted: int, kernel: str) -> Float[np.ndarray, 'i h']:
  """Returns rows that make each of `wanted` pixels of `length`: rows @ image @ columns.T.

  Pixels lie at the centres of their areas, j + 1/2. Output i is the sum over j of

    w_ij = k((j + 1/2 - (i + 1/2) s) / max(s, 1)) / sum of the same over j,   s = length / wanted

  so that a kernel k grows with the step s where the picture shrinks (antialiasing), and weights
  beyond an edge go to the pixels within: as Pillow does. Raises ConfigError if there is no such
  kernel.
  """
  if kernel == 'area':
    return averaging(length, wanted)
  check_one_of(f'kernel = {kernel!r}', kernel, KERNELS)
  step = length / wanted
  centres = (np.arange(wanted)[:, None] + 0.5) * step
  weights = _CURVES[kernel]((np.arange(length) + 0.5 - centres) / max(step, 1))
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resize(
  frames: Num[np.ndarray, 't h w c'], size: tuple[int, int], kernel: str
) -> Num[np.ndarray, 't i j c']:
  """Resizes frames to (height, width) by `resampling`; bytes are rounded, and clipped, to bytes.

  Frames of that size already are returned as they are. The same bits wherever it runs: sums have
  one order, whatever the number of threads. Raises ConfigError if there is no such kernel.
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
  return to_bytes(resized) if whole else resized


def to_bytes(frames: Num[np.ndarray, '*shape']) -> Num[np.ndarray, '*shape']:
  """Rounds levels of 0 to 255, and clips what lies beyond, to uint8."""
  rounded = np.rint(frames)
  return np.clip(rounded, 0, 255, out=rounded).astype(np.uint8)


@functools.cache
def _sparse(length: int, wanted: int, kernel: str):
  """`resampling` without its zeros: a third of the time for frames of 512 pixels."""
  from scipy import sparse  # 100 ms, which those who only average need not wait for

  return sparse.csr_array(resampling(length, wanted, kernel))
