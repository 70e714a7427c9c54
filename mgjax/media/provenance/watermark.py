"""An example of `MGJAX_POSTPROCESS`: 32 bits in every frame, which compression leaves readable.

Quantization index modulation with dither (Chen and Wornell, 2001): the DCT coefficient (1, 1) of
each block of 8 x 8 pixels of the luma is moved to the nearest point of one of two lattices,

  c -> STEP * (k + b / 2) + d,  k a whole number,

where b is the bit that the block carries and d a dither that is drawn once for each block. A reader
needs neither the original nor a key. It is an example: whoever reads this can remove it, and
neither another size nor a cut of the pictures leaves it readable. The sound stays as it is.
"""

import itertools
import os
from collections.abc import Iterable

import numpy as np

from mgjax.core.errors import ConfigError, printable
from mgjax.core.typing import Float, UInt8
from mgjax.media.video import stream_frames

PAYLOAD = 'MGJAX_WATERMARK'  # the environment variable of the bits, as 8 hexadecimal digits
USUAL = '6d676a78'  # 'mgjx'
BITS = 32
STEP = 24.0  # of the lattices, in the orthonormal DCT of values of 0 to 255. Not in public sources.
# Strength from which on a watermark is one. Without one it is the mean of 32 values of |x|, where x
# is normal with variance 1 / (2 LEAST) at most: 0.14 with a deviation of 0.02.
FOUND = 0.25
LEAST = 16  # blocks that carry a bit, in every frame
_SIDE = 8  # pixels of a block
_READ = 48  # frames of a file that are read; one is nearly enough
_ROOM = 6  # values kept free at both ends of 0 to 255, so that black and white can carry bits
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of BT.709
_WAVE = np.cos(np.pi * (2 * np.arange(_SIDE) + 1) / (2 * _SIDE)).astype(np.float32) / 2
_BASIS = np.outer(_WAVE, _WAVE)

Frames = UInt8[np.ndarray, 't h w 3']


def postprocess(
  video: Frames | None, audio: Float[np.ndarray, 's c'] | None
) -> tuple[Frames | None, Float[np.ndarray, 's c'] | None]:
  """Returns a video with the bits of `MGJAX_WATERMARK` in its frames, and its sound as it was.

  Raises:
    ConfigError: these are no bits, or the frames are too small for them.
  """
  return video if video is None else embed(video, os.environ.get(PAYLOAD, USUAL)), audio


def embed(video: Frames, payload: str) -> Frames:
  """Returns a video with 32 bits in its frames.

  Args:
    video: of 512 blocks or more, as 256 x 128 pixels are.
    payload: the bits, as 8 hexadecimal digits.

  Raises:
    ConfigError: the payload is none, or the frames are too small.
  """
  bits = _bits(payload)
  index, dither = _layout(*video.shape[1:3])
  goal = dither + bits[index] * (STEP / 2)
  rows, columns = (side * _SIDE for side in index.shape)
  marked = video.copy()
  for frame in marked:
    part = np.clip(frame[:rows, :columns], _ROOM, 255 - _ROOM).astype(np.float32)
    found = _coefficients(part)
    moved = goal + STEP * np.round((found - goal) / STEP) - found
    part += np.kron(moved, _BASIS)[..., None]
    frame[:rows, :columns] = np.clip(np.rint(part), 0, 255).astype(np.uint8)
  return marked


def read(frames: Iterable[UInt8[np.ndarray, 'h w 3']]) -> tuple[str, float]:
  """Reads the bits of a video of the size that they were written in.

  With z the mean of exp(2 pi i (c - d) / STEP) over blocks of a bit and frames, a bit is 0 where
  the real part of z is positive.

  Args:
    frames: one after another; at least one.

  Returns:
    The payload, and its strength: the mean of |Re z| over the bits, from 0 to 1. Below `FOUND` the
    payload means nothing.

  Raises:
    ConfigError: the frames are too small.
  """
  total, count = np.zeros(BITS), 0
  for frame in frames:
    count += 1
    index, dither = _layout(*frame.shape[:2])
    rows, columns = (side * _SIDE for side in index.shape)
    found = _coefficients(frame[:rows, :columns].astype(np.float32))
    real = np.cos(2 * np.pi * (found - dither) / STEP)
    total += np.bincount(index.ravel(), real.ravel(), BITS) / np.bincount(index.ravel())
  mean = total / max(1, count)
  payload = int(''.join('1' if value < 0 else '0' for value in mean), 2)
  return f'{payload:08x}', float(np.abs(mean).mean())


def find(path: str | os.PathLike[str]) -> str:
  """Says in words which watermark a video or a picture has; reads 2 s of it or so.

  Raises:
    ConfigError: its frames are too small for one.
    DataError: it cannot be read.
  """
  frames = itertools.islice(stream_frames(path), _READ)
  payload, strength = read(frame for *_, frame in frames)
  told = f'strength {strength:.2f}, at least {FOUND} if there is one'
  return f'watermark {payload} ({told})' if strength >= FOUND else f'no watermark found ({told})'


def _coefficients(part: np.ndarray) -> np.ndarray:
  """The coefficient (1, 1) of each block of a frame."""
  rows, columns = (side // _SIDE for side in part.shape[:2])
  blocks = (part @ _LUMA).reshape(rows, _SIDE, columns, _SIDE)
  return np.einsum('rycx,yx->rc', blocks, _BASIS, optimize=True)


def _layout(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Which bit each block of a frame carries, and its dither: the same for all frames of a size."""
  rows, columns = height // _SIDE, width // _SIDE
  if rows * columns < BITS * LEAST:
    raise ConfigError(
      f'frames of {width} x {height} pixels are too small for a watermark of {BITS} bits; write '
      'them larger, as without --scale=1'
    )
  random = np.random.default_rng([rows, columns])
  index = random.permutation(np.arange(rows * columns) % BITS).reshape(rows, columns)
  return index, random.uniform(0, STEP, (rows, columns))


def _bits(payload: str) -> np.ndarray:
  digits = set('0123456789abcdef')
  if len(payload) != BITS // 4 or not set(payload.lower()) <= digits:
    raise ConfigError(
      f'{PAYLOAD}={printable(payload)!r}: expected {BITS // 4} hexadecimal digits, as in {USUAL}'
    )
  return np.array([int(bit) for bit in f'{int(payload, 16):0{BITS}b}'])
