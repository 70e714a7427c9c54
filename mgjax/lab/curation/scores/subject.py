"""How large the subject of a clip is (Movie Gen §3.2.1: small ones are left out of fine-tuning).

The paper asks a detector of 20,000 classes. A plug-in does so here:

  function(frames: uint8 (t h w 3), weights: str) -> masks, bool (t h w), or boxes

where boxes are an array (n 4) a frame of left, top, right and bottom in pixels. Without one nobody
knows what the subject is, and the filter is off.
"""

from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.lab.curation.scores.plug_in import ByPlugIn
from mgjax.lab.curation.scores.scorer import Score


class Subject(ByPlugIn):
  """`subject_share`: the median of a clip's frames, 0 to 1."""

  name = 'subject'
  key = 'share'

  def scores(self, start: float, end: float) -> dict[str, Score]:
    frames = self._held.between(start, end, self._settings.frames)
    if self._function is None or frames is None:
      return {self.key: None}
    subjects = self._function(frames, self._settings.weights)
    return {self.key: float(np.median(_shares(subjects, frames.shape[:3], self._settings.python)))}


def _shares(subjects: Any, shape: tuple[int, ...], name: str) -> list[float]:
  """Returns the share of the largest subject in each frame, from masks or boxes."""
  count, height, width = shape
  try:
    if len(subjects) != count:
      raise ValueError(f'{len(subjects)} answers for {count} frames')
    shares = [_share(np.asarray(subject), height, width) for subject in subjects]
  except (TypeError, ValueError) as error:
    raise ConfigError(
      f'{name} returned no subjects ({error!s:.80}); expected masks (t h w), or boxes (n 4) a frame'
    ) from error
  return shares


def _share(subject: np.ndarray, height: int, width: int) -> float:
  if subject.shape == (height, width):
    return float(subject.astype(bool).mean())
  if not subject.size:
    return 0.0
  if subject.ndim != 2 or subject.shape[1] != 4 or not np.isfinite(subject).all():
    raise ValueError(f'an array of shape {subject.shape} in a frame of {height} x {width}')
  left, right = subject[:, 0].clip(0, width), subject[:, 2].clip(0, width)
  top, bottom = subject[:, 1].clip(0, height), subject[:, 3].clip(0, height)
  areas = (right - left).clip(0) * (bottom - top).clip(0)
  return float(areas.max() / (height * width))
