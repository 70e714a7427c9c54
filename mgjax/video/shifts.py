"""Sampling again on a grid of tokens that is shifted: where patches meet, no seam stays.

A small model's tokens do not agree on an outline early enough, and samples show it where blocks of
pixels meet. A finished video is moved by half a block and encoded, so that a seam runs through the
middle of tokens, which have never seen one there; noised to X_t = t X_1 + (1 - (1 - s) t) X_0 and
sampled from t on, it goes (SDEdit, Meng et al. 2022, on itself). Then back by as much. Not in the
report.
"""

import numpy as np

from mgjax.core.typing import UInt8


def half_a_block(compression: tuple[int, int, int]) -> tuple[int, int]:
  """Returns rows and columns of half a token's block of pixels (t h w)."""
  _, height, width = compression
  return height // 2, width // 2


def moved(
  video: UInt8[np.ndarray, 'b t h w 3'], by: tuple[int, int]
) -> UInt8[np.ndarray, 'b t h w 3']:
  """Returns a video whose pixels are so many rows and columns further up and left.

  What comes in at an edge is as the edge is; negative numbers move it down and right.
  """
  height, width = video.shape[2:4]
  rows, columns = np.arange(height) + by[0], np.arange(width) + by[1]
  inside = video[:, :, rows.clip(0, height - 1)]
  return inside[:, :, :, columns.clip(0, width - 1)]
