"""A watermark for MGJAX_POSTPROCESS: 32 bits in every frame, and a function that reads them.

Quantization index modulation with dither (Chen and Wornell, 2001) on blocks of 8 x 8 pixels of the
luma. The DCT coefficient (1, 1) of a block moves to the nearest point of one of two lattices,

    STEP * (k + b / 2) + d

with k a whole number, b the bit of the block and d its dither. The mark survives compression by
x264, but not another size or a cut, and who reads this file can remove it. Audio carries nothing.
Frames need 512 blocks, as 256 x 128 have.

export PYTHONPATH=examples MGJAX_POSTPROCESS=watermark:postprocess
"""

import numpy as np

STEP = 24.0
SIDE = 8  # pixels of a block
BITS = 0x24101372  # what is written
WAVE = np.cos(np.pi * (2 * np.arange(SIDE) + 1) / (2 * SIDE)) / 2
BASIS = np.outer(WAVE, WAVE)
LUMA = np.array([0.2126, 0.7152, 0.0722])


def layout(height, width):
  """Returns the bit that each block carries, and its dither."""
  rows, columns = height // SIDE, width // SIDE
  random = np.random.default_rng([rows, columns])
  index = random.permutation(np.arange(rows * columns) % 32).reshape(rows, columns)
  return index, random.uniform(0, STEP, index.shape)


def coefficients(frame, rows, columns):
  """Returns the coefficient (1, 1) of each block."""
  blocks = (frame[: rows * SIDE, : columns * SIDE] @ LUMA).reshape(rows, SIDE, columns, SIDE)
  return np.einsum('rycx,yx->rc', blocks, BASIS)


def postprocess(video, audio):
  """Marks uint8 (t h w 3), or None; returns audio as it is."""
  if video is None:
    return video, audio
  index, dither = layout(*video.shape[1:3])
  goal = dither + (BITS >> index & 1) * STEP / 2
  rows, columns = (side * SIDE for side in index.shape)
  marked = video.copy()
  for frame in marked:
    part = frame[:rows, :columns].clip(6, 249).astype(float)
    found = coefficients(part, *index.shape)
    moved = goal + STEP * np.round((found - goal) / STEP) - found
    part += np.kron(moved, BASIS)[..., None]
    frame[:rows, :columns] = part.round().clip(0, 255)
  return marked, audio


def read(frames):
  """Returns the bits of frames (h w 3), and their strength: below 0.25 there are none."""
  total = np.zeros(32)
  count = 0
  for frame in frames:
    count += 1
    index, dither = layout(*frame.shape[:2])
    real = np.cos(2 * np.pi * (coefficients(frame, *index.shape) - dither) / STEP)
    total += np.bincount(index.ravel(), real.ravel(), 32) / np.bincount(index.ravel())
  return sum(1 << bit for bit in range(32) if total[bit] < 0), np.abs(total / count).mean()
