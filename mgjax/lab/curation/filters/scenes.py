"""The shots of a video, found by PySceneDetect (Movie Gen §3.2.1).

Its detector looks at frames that are decoded here, within the limits of untrusted files; its own
readers would open addresses and lists of other files.
"""

import dataclasses
import functools
from collections.abc import Iterable
from types import ModuleType
from typing import Annotated, Any

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.plug_ins import load_package
from mgjax.core.settings import Checked, Positive, Range
from mgjax.core.typing import UInt8
from mgjax.data.media.containers import LIMITS, File, Limits
from mgjax.data.media.video import stream_frames

SIDE = 144  # pixels to which the shorter side is shrunk: cuts are seen there
_RATE = 25.0  # for PySceneDetect's clock, which is not read


@dataclasses.dataclass(frozen=True)
class SceneSettings(Checked):
  """What counts as a cut, for PySceneDetect's adaptive detector; its defaults."""

  # Of a frame's change to the mean of its neighbours'.
  ratio: Annotated[float, Range(above=0)] = 3.0
  # In hue, saturation, brightness, at least.
  change: Annotated[float, Range(least=0, most=255)] = 15.0
  frames: Positive = 15  # fewest of a shot: no cut comes sooner after another


@dataclasses.dataclass(frozen=True)
class Shot:
  """A stretch of a video without a cut: its frames from number `first` on and before `last`."""

  start: float  # seconds from the first frame of the video
  end: float  # seconds, where the next shot starts
  first: int
  last: int


def find_shots(
  frames: Iterable[tuple[float, float, UInt8[np.ndarray, 'h w 3']]],
  settings: SceneSettings = SceneSettings(),
) -> list[Shot]:
  """Cuts frames, as `stream_frames` yields them, into shots; together they are all of the frames.

  Raises:
    ConfigError: PySceneDetect is not installed.
    DataError: there is no frame.
  """
  finder = ShotFinder(settings)
  for start, end, frame in frames:
    finder.see(start, end, frame)
  return finder.shots()


class ShotFinder:
  """Sees the frames of a video in order, then says its shots; see `find_shots`."""

  side = SIDE

  def __init__(self, settings: SceneSettings = SceneSettings()):
    self._library = scene_library()
    self._detector = self._library.AdaptiveDetector(
      adaptive_threshold=settings.ratio,
      min_content_val=settings.change,
      min_scene_len=settings.frames,
    )
    self._starts: list[float] = []
    self._end = 0.0
    self._cuts: list[Any] = []

  def see(self, start: float, end: float, frame: UInt8[np.ndarray, 'h w 3']) -> None:
    """Takes the next frame, shown from `start` until `end`, shrunk to `SIDE`, and all alike."""
    number = len(self._starts)
    self._end = float(end)
    self._starts.append(float(start))
    blue_first = np.ascontiguousarray(frame[..., ::-1])
    self._cuts += self._detector.process_frame(
      self._library.FrameTimecode(number, _RATE), blue_first
    )

  @property
  def times(self) -> list[float]:
    """When each frame is first shown, and when the last one ends."""
    return [*self._starts, self._end]

  def shots(self) -> list[Shot]:
    """Returns the shots of all frames so far; raises DataError if there was none."""
    starts = self._starts
    if not starts:
      raise DataError('there is no frame to look for shots in')
    last = self._library.FrameTimecode(len(starts) - 1, _RATE)
    cuts = [*self._cuts, *self._detector.post_process(last)]
    numbers = [0, *sorted({cut.frame_num for cut in cuts} - {0}), len(starts)]
    times = [*(starts[number] for number in numbers[:-1]), self._end]
    bounds = zip(times[:-1], times[1:], numbers[:-1], numbers[1:], strict=True)
    return [Shot(*bound) for bound in bounds]


def shots_of_file(
  path: File, settings: SceneSettings = SceneSettings(), limits: Limits = LIMITS
) -> list[Shot]:
  """Cuts a video file into shots; see `find_shots`."""
  return find_shots(stream_frames(path, SIDE, limits), settings)


@functools.cache
def scene_library() -> ModuleType:
  """PySceneDetect; a ConfigError where it is not installed."""
  return load_package('scenedetect', 'shots need PySceneDetect', 'curation')
