"""Clips of shots: where a video is cut into what a model is trained on (Movie Gen §3.2.1).

The longest shots of a video are taken, one or two, and of each of them one clip.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mgjax.lab.curation.filters.scenes import Shot
from mgjax.lab.curation.settings import ClipSettings

_ROUNDING = 1e-3  # seconds, of the times in Matroska


@dataclasses.dataclass(frozen=True)
class Clip:
  """A stretch of a shot: its frames from number `first` on and before `last`."""

  shot: int  # its number in the video, from 0 on
  first: int
  last: int
  start: float  # seconds from the first frame of the video
  end: float


def choose_clips(
  shots: Sequence[Shot], times: Sequence[float], settings: ClipSettings
) -> list[Clip]:
  """Chooses clips and returns them in their order in the video; there is at least one.

  `times` are the start of each frame and the end of the last one: one more than frames.
  """
  instants = np.asarray(times, np.float64)
  longest_first = sorted(
    range(len(shots)), key=lambda number: shots[number].start - shots[number].end
  )
  clips = [_clip(number, shots[number], instants, settings) for number in longest_first]
  enough = [clip for clip in clips if clip.end - clip.start >= settings.shortest - _ROUNDING]
  return sorted(enough[: settings.most] or clips[:1], key=lambda clip: clip.shot)


def _clip(number: int, shot: Shot, times: np.ndarray, settings: ClipSettings) -> Clip:
  """The middle of a shot, as long as it may be."""
  first, last = shot.first, shot.last
  after = int(np.searchsorted(times[:-1], settings.first - _ROUNDING))
  if first < after and times[last] - times[min(after, last)] >= settings.shortest - _ROUNDING:
    first = after
  spare = times[last] - times[first] - settings.longest
  if spare > _ROUNDING:
    first = int(np.searchsorted(times, times[first] + spare / 2 - _ROUNDING))
    last = int(np.searchsorted(times, times[first] + settings.longest + _ROUNDING, 'right')) - 1
    last = max(last, first + 1)
  return Clip(number, first, last, float(times[first]), float(times[last]))
