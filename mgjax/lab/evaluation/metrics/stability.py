"""Measures of flicker and of seams of a video, on arrays.

A video is an iterable of frames, uint8 (h w 3), read once: it may be larger than memory.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float, UInt8
from mgjax.data.media.optical_flow import Flow, flows, occluded, warp
from mgjax.lab.statistics.intervals import ENDS

# Frames that a value of the measure depends on.
IN_SECOND_DIFFERENCE = 3
IN_WARPING_ERROR = 2
REACH = 16  # frames, rows or columns around a seam to compare it with
_RESAMPLES = 2000

Video = Iterable[UInt8[np.ndarray, 'h w 3']]


def second_difference(video: Video) -> Float[np.ndarray, 't']:
  """Returns mean |x_{t-1} - 2 x_t + x_{t+1}| of each frame but the first and last, of 255 levels.

  Motion that goes on as it was costs little, what appears and disappears much. Raises DataError if
  there are fewer than three frames.
  """
  values = []
  last = None
  step = None
  for frame in video:
    frame = np.asarray(frame).astype(np.int16)
    if last is not None:
      after = frame - last
      if step is not None:
        values.append(np.mean(np.abs(after - step)))
      step = after
    last = frame
  if not values:
    raise DataError('a second difference needs 3 frames or more; give a longer video')
  return np.array(values)


def warping_error(
  video: Video, motion: Iterable[tuple[Flow, Flow]] | None = None
) -> Float[np.ndarray, 't']:
  """Returns E_warp of each frame but the first; NaN if it is completely occluded.

    E_warp(t) = sum_i M_i |x_t(i) - x_{t-1}(i + u(i))|^2 / sum_i M_i

  with u the optical flow from frame t to frame t - 1, M = 1 for pixels that are not occluded,
  pixels in [0, 1], and the square averaged over channels. It is equation 9 of Lai et al., 2018,
  Learning Blind Video Temporal Consistency, without their mask of motion boundaries.

  `motion` has for each frame but the first the flow to the previous frame and the flow back, as
  `mgjax.data.media.optical_flow.flows` yields them; by default the video's own. To compare videos
  of one scene pass the flow of the true video for each. Raises DataError if there is only one
  frame, or not one flow for each pair of frames, ConfigError if OpenCV is needed and not installed.
  """
  frames, again = (
    (video, video) if isinstance(video, Sequence | np.ndarray) else itertools.tee(video)
  )
  motion = flows(again) if motion is None else motion
  values = []
  pairs = itertools.pairwise(np.asarray(frame, np.float32) / 255 for frame in frames)
  try:
    for (before, frame), (back, forth) in zip(pairs, motion, strict=True):
      seen = ~occluded(back, forth)
      errors = np.square(frame - warp(before, back))[seen]
      values.append(np.mean(errors) if errors.size else np.nan)
  except ValueError as wrong:  # of zip and of numpy
    raise DataError(f'the flows are not those of these frames: {wrong}') from None
  if not values:
    raise DataError('a warping error is between frames; give two or more')
  return np.array(values)


@dataclasses.dataclass(frozen=True)
class SeamRatio:
  """Ratio of a measure at seams to that near them, 1 for invisible seams, with its 95% interval."""

  ratio: float
  low: float
  high: float
  at: float
  near: float
  seams: int


def at_seams(
  clips: Iterable[tuple[object, Iterable[int]]],
  frames: int = IN_SECOND_DIFFERENCE,
  reach: int = REACH,
) -> SeamRatio:
  """Compares a measure of frames at the seams of windows with its values near them.

  Value i depends on the frames i to i + frames - 1, and is at the seam s if these include both
  frame s - 1 and frame s. Each seam is compared with the values up to `reach` away that are nearer
  to it than to another seam. This cancels slow changes along a clip. With sums A_j of the n_j
  values at seam j, and means m_j near it,

    ratio = sum_j A_j / sum_j n_j m_j

  The interval is a bootstrap of pairs (A_j, n_j m_j) over clips, because seams of one clip are
  dependent; for a single clip it is over seams. For one seam in one clip it has no width.

  Args:
    clips: values of each clip, and the first frames of its windows except the first window; if
      windows overlap, also the frames after their last ones.
    frames: number of frames that a value depends on: 3 for `second_difference`, 2 for
      `warping_error`.

  Raises:
    DataError: there is no seam, or no value near one.
  """
  clip_pairs = [
    _pairs(np.asarray(values, np.float64), seams, frames, reach) for values, seams in clips
  ]
  units = [pairs.sum(0, keepdims=True) for pairs in clip_pairs if len(pairs)]
  if not units:
    raise DataError('there is no seam with values at it and near it; name first frames of windows')
  parts = (
    np.concatenate(units) if len(units) > 1 else next(pairs for pairs in clip_pairs if len(pairs))
  )
  at, near, count = parts.sum(0)
  weights = np.random.default_rng(0).multinomial(
    len(parts), np.full(len(parts), 1 / len(parts)), size=_RESAMPLES
  )
  drawn = _ratio(*(weights @ parts[:, :2]).T)
  low, high = np.quantile(drawn, ENDS, method='nearest')
  ratio = float(_ratio(at, near))
  return SeamRatio(
    ratio, float(low), float(high), at / count, near / count, sum(map(len, clip_pairs))
  )


def spatial_seams(video: Video, rows: Iterable[int], columns: Iterable[int]) -> SeamRatio:
  """Compares mean |second difference| of pixels across the borders of tiles with that near them.

  It works as `at_seams` with rows and columns in place of frames: the first ones of tiles except
  the first tile, and if tiles overlap those after their last ones. An image edge that happens to
  lie on a border looks like a seam, so compare the ratio with that of the true video. Raises
  DataError as `at_seams`, or if there is no frame.
  """
  sums: list[Any] = [0.0, 0.0]
  for frame in video:
    frame = np.asarray(frame).astype(np.int16)
    for axis in (0, 1):
      across = np.abs(np.diff(frame, n=2, axis=axis))
      sums[axis] = sums[axis] + across.mean((1 - axis, 2))
  if not np.ndim(sums[0]):
    raise DataError('there is no frame to look for seams in')
  return at_seams(zip(sums, (rows, columns), strict=True))


def _pairs(
  values: Float[np.ndarray, 't'], seams: Iterable[int], frames: int, reach: int
) -> Float[np.ndarray, 'n 3']:
  """Returns for each seam the sum of its n values, n times the mean near it, and n."""
  places = np.unique(np.asarray(list(seams), np.int64))
  if not len(places):
    return np.zeros((0, 3))
  first = np.arange(len(values))[:, None]
  across = (first < places) & (places < first + frames)  # value, seam
  distance = np.abs(first + frames / 2 - places)
  nearest = (distance == distance.min(1, keepdims=True)) & (distance <= reach)
  usable = np.isfinite(values)[:, None]
  at = across & usable
  near = nearest & usable & ~across.any(1, keepdims=True)
  valid = at.any(0) & near.any(0)
  filled = np.nan_to_num(values)
  counts = at.sum(0)[valid]
  means = (filled @ near)[valid] / near.sum(0)[valid]
  return np.stack([(filled @ at)[valid], counts * means, counts], 1)


def _ratio(at: Any, near: Any) -> Any:
  """Returns at / near; 1 if both are 0."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.where((at == 0) & (near == 0), 1.0, np.divide(at, near))
