"""The shots of a video, found by PySceneDetect (Movie Gen §3.2.1).

Its detector looks at frames that are decoded here, within the limits of untrusted files; its own
readers would open addresses and lists of other files.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Positive, Range, check
from mgjax.core.typing import UInt8
from mgjax.media.containers import LIMITS, File, Limits
from mgjax.media.video import stream_frames

SIDE = 144  # pixels to which the shorter side is shrunk: cuts are seen there
_RATE = 25.0  # for PySceneDetect's clock, which is not read


@dataclasses.dataclass(frozen=True)
class SceneSettings:
  """What counts as a cut, for PySceneDetect's adaptive detector; its defaults.

  Attributes:
    ratio: of a frame's change to the mean of its neighbours'.
    change: in hue, saturation and brightness, of 255, that a cut has at least.
    frames: fewest of a shot: no cut comes sooner after another.
  """

  ratio: Annotated[float, Range(above=0)] = 3.0
  change: Annotated[float, Range(least=0, most=255)] = 15.0
  frames: Positive = 15

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class Shot:
  """A stretch of a video without a cut.

  Attributes:
    start: seconds from the first frame of the video.
    end: seconds, where the next shot starts.
    first: number of its first frame.
    last: number of the first frame that is not in it.
  """

  start: float
  end: float
  first: int
  last: int


class ShotFinder:
  """Finds shots in frames that come one by one."""

  def __init__(self, settings: SceneSettings = SceneSettings()):
    """Takes what counts as a cut; ConfigError if PySceneDetect is not installed."""
    self._library = load_library()
    self._detector = self._library.AdaptiveDetector(
      adaptive_threshold=settings.ratio,
      min_content_val=settings.change,
      min_scene_len=settings.frames,
    )
    self._times, self._end, self._cuts = [], 0.0, []

  def see(self, start: float, end: float, frame: UInt8[np.ndarray, 'h w 3']) -> None:
    """Takes the next frame, and from when until when it is shown."""
    at = self._library.FrameTimecode(len(self._times), _RATE)
    self._cuts += self._detector.process_frame(at, np.ascontiguousarray(frame[..., ::-1]))
    self._times.append(float(start))
    self._end = float(end)

  @property
  def times(self) -> list[float]:
    """When each frame is first shown, and when the last one ends: one more than frames."""
    return [*self._times, self._end]

  def shots(self) -> list[Shot]:
    """Returns all shots, to be asked once: together they are all of the frames.

    Raises:
      DataError: there is no frame.
    """
    count, times = len(self._times), self.times
    if not count:
      raise DataError('there is no frame to look for shots in')
    self._cuts += self._detector.post_process(self._library.FrameTimecode(count - 1, _RATE))
    numbers = [0, *sorted({cut.frame_num for cut in self._cuts} - {0}), count]
    return [
      Shot(times[first], times[last], first, last) for first, last in itertools.pairwise(numbers)
    ]


def find_shots(
  frames: Iterable[tuple[float, float, UInt8[np.ndarray, 'h w 3']]],
  settings: SceneSettings = SceneSettings(),
) -> list[Shot]:
  """Cuts frames into shots; together they are all of the frames, one shot where there is no cut.

  Args:
    frames: as `stream_frames` yields them: from when until when each is shown, and the frame.
    settings: what counts as a cut.

  Raises:
    ConfigError: PySceneDetect is not installed.
    DataError: there is no frame.
  """
  finder = ShotFinder(settings)
  for start, end, frame in frames:
    finder.see(start, end, frame)
  return finder.shots()


def shots_of_file(
  path: File, settings: SceneSettings = SceneSettings(), limits: Limits = LIMITS
) -> list[Shot]:
  """Cuts a video file into shots; see `find_shots`.

  Raises:
    ConfigError: PySceneDetect is not installed.
    DataError: the file cannot be used.
  """
  return find_shots(stream_frames(path, SIDE, limits), settings)


@functools.cache
def load_library() -> Any:
  """Imports PySceneDetect; ConfigError if it is not installed."""
  try:
    import scenedetect
  except ImportError:
    raise ConfigError(
      "shots need PySceneDetect, which is not installed: pip install 'mgjax[curation]'"
    ) from None
  return scenedetect
