"""Sampling again on a grid of tokens that is shifted: where blocks of pixels meet, no seam stays.

A small model's tokens do not agree on outlines early enough, and its samples show where blocks of
pixels meet. A finished video is moved by half a block along t, h and w and encoded, so that a seam
runs through the middle of tokens, where no seam was in training. It is then noised to a time of the
path and sampled from there on, which removes the seam (SDEdit, Meng et al. 2022). The video gets
what was made of the part that both cover, and is sampled again where it lies. Not in the paper.
"""

import numpy as np

from mgjax.core.typing import Float, UInt8

_Video = UInt8[np.ndarray, 'b t h w 3']


def half_a_block(block: tuple[int, int, int], frames: int) -> tuple[int, int, int]:
  """Returns frames, rows and columns of half a token's block; of a single frame it has none."""
  time, height, width = block
  return min(time // 2, frames - 1), height // 2, width // 2


def moved(video: _Video, by: tuple[int, int, int]) -> _Video:
  """Returns a video from so many frames, rows and columns on; what it lacks is as its ends are."""
  for axis, start in enumerate(by, 1):
    indices = (np.arange(video.shape[axis]) + start).clip(0, video.shape[axis] - 1)
    video = video.take(indices, axis)
  return video


def put_back(video: _Video, shifted: _Video, by: tuple[int, int, int]) -> _Video:
  """Returns a video with the result for `moved(video, by)` at its original position."""
  time, row, column = by
  result = video.copy()
  result[:, time:, row:, column:] = shifted[
    :, : video.shape[1] - time, : video.shape[2] - row, : video.shape[3] - column
  ]
  return result


def since_on(times: Float[np.ndarray, '_'], since: float) -> Float[np.ndarray, '_']:
  """Returns the times from the first on that is not before `since`, and one step at least."""
  return times[min(int(np.searchsorted(times, since - 1e-6)), len(times) - 2) :]
