"""The camera of a clip as scores: which of the 16 classes, how surely (Movie Gen §3.2.1)."""

from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.camera_motion import PairMotion, camera_motion, pair_motion
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.settings import MeasureSettings

_SLACK = 1e-6  # seconds by which rounded times differ


class Camera(Scorer):
  """Measures how the picture moves between the frames that it sees; see `global_motion`.

  Its scores: `class`, a key of `global_motion.ANSWERS`, 'roll' or 'unknown'; `confidence`, 0 to 1;
  `speed` and `shake` in shorter sides a second.
  """

  name = 'camera'

  def __init__(self, settings: MeasureSettings):
    self._settings = settings.camera
    self.side, self.rate = self._settings.side, self._settings.rate
    self._before: Frame | None = None
    self._pairs: list[tuple[float, float, PairMotion | None]] = []

  def see(self, frame: Frame) -> None:
    before = self._before
    self._before = frame
    if before is not None and before.luma.shape == frame.luma.shape:
      motion = pair_motion(before.luma, frame.luma, frame.start - before.start)
      self._pairs.append((before.start, frame.start, motion))

  def scores(self, start: float, end: float) -> dict[str, Score]:
    pairs = [
      motion
      for first, last, motion in self._pairs
      if first >= start - _SLACK and last < end - _SLACK
    ]
    summary = camera_motion(pairs, self._settings)
    return {
      'class': summary.answer,
      'confidence': summary.confidence,
      'speed': summary.speed,
      'shake': summary.shake,
    }
