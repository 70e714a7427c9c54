"""Scores by networks of the user's own, whose weights cannot be shipped (Movie Gen §3.2.1).

A plug-in is a Python function, named as 'package.module:function',

  function(frames: uint8 (t h w 3), weights: str) -> number or vector

which sees frames of a clip, evenly spaced. Without one the score is not there and the filters that
read it are off, which the page says.
"""

import io

import numpy as np
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_function
from mgjax.core.typing import UInt8
from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.settings import MeasureSettings, PlugIn

HELD = 2.0  # frames a second that are held
_QUALITY = 95  # of the JPEG pictures that are held until the clips are known


class HeldFrames:
  """Small frames of a video, held until it is known where its clips are."""

  def __init__(self):
    self._seen: list[tuple[float, bytes]] = []

  def add(self, frame: Frame) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frame.pixels).save(buffer, 'JPEG', quality=_QUALITY)
    self._seen.append(((frame.start + frame.end) / 2, buffer.getvalue()))

  def between(self, start: float, end: float, count: int) -> UInt8[np.ndarray, 't h w 3'] | None:
    """Returns `count` frames of a clip, evenly spaced; None if there are no frames."""
    if not self._seen:
      return None
    moments = start + (np.arange(count) + 0.5) * (end - start) / count
    times = np.array([time for time, _ in self._seen])
    nearest = [self._seen[int(np.argmin(np.abs(times - moment)))][1] for moment in moments]
    return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in nearest])


class ByPlugIn(Scorer):
  """Holds two frames a second, and shows the function those of a clip."""

  rate = HELD
  key = 'score'

  def __init__(self, settings: MeasureSettings):
    self._settings: PlugIn = getattr(settings, self.name)
    self.side = self._settings.side
    self.missing = None if self._settings.python else f'{self.name}: no plug-in is given'
    self._held = HeldFrames()
    self._function = load_function(self._settings.python) if self._settings.python else None

  def see(self, frame: Frame) -> None:
    self._held.add(frame)

  def scores(self, start: float, end: float) -> dict[str, Score]:
    frames = self._held.between(start, end, self._settings.frames)
    if self._function is None or frames is None:
      return {self.key: None}
    value = np.asarray(self._function(frames, self._settings.weights), np.float64)
    if value.ndim > 1 or not np.isfinite(value).all():
      raise ConfigError(
        f'{self._settings.python} returned {value!r:.60}; expected a finite number or a vector'
      )
    return {self.key: value.tolist()}


class Aesthetics(ByPlugIn):
  """`aesthetics_score` of the middle frame, as LAION's predictor gives it."""

  name = 'aesthetics'


class People(ByPlugIn):
  """`people_score`: the chance that a clip shows people."""

  name = 'people'


class Concepts(ByPlugIn):
  """`concepts_vector`, in which clips of one concept are close."""

  name = 'concepts'
  key = 'vector'


class Copies(ByPlugIn):
  """`copies_vector`, in which copies are close, as SSCD's; see `fingerprint.py` without it."""

  name = 'copies'
  key = 'vector'
