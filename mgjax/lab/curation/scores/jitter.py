"""Jitter: how often PySceneDetect's content detector sees a shot end in a clip (Movie Gen §3.2.1).

Clips are cut from single shots by the adaptive detector, which asks how much more a frame changes
than its neighbours. The content detector asks only how much it changes: what it still sees in such
a clip is a camera that shakes, or light that flashes (Table 44, row 9: shots a second).
"""

import numpy as np

from mgjax.lab.curation.filters.scenes import scene_library
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.settings import MeasureSettings

_TICKS = 1000  # a second, of PySceneDetect's clock
_LEAST = 500  # ticks between two ends of shots: as many frames as its default has at 30 a second


class Jitter(Scorer):
  """`jitter_shots` of a clip, 1 if it has no end of a shot inside, and `jitter_rate` a second."""

  name = 'jitter'
  side = 144

  def __init__(self, settings: MeasureSettings):
    self._library = scene_library()
    from scenedetect.detector import FlashFilter

    self._detector = self._library.ContentDetector(
      threshold=settings.jitter, min_scene_len=_LEAST, filter_mode=FlashFilter.Mode.SUPPRESS
    )
    self._ends: list[float] = []

  def see(self, frame: Frame) -> None:
    time = self._library.FrameTimecode(round(frame.start * _TICKS), float(_TICKS))
    blue_first = np.ascontiguousarray(frame.pixels[..., ::-1])
    self._ends += [cut.frame_num / _TICKS for cut in self._detector.process_frame(time, blue_first)]

  def scores(self, start: float, end: float) -> dict[str, Score]:
    slack = 1 / _TICKS
    shots = 1 + sum(start + slack < cut < end - slack for cut in self._ends)
    return {'shots': shots, 'rate': shots / max(end - start, slack)}
