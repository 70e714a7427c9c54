"""How large the subject of a clip is (Movie Gen §3.2.1: small ones are left out of fine-tuning).

The paper asks a detector of 20,000 classes. A plug-in may do so here:

  function(frames: uint8 (t h w 3), weights: str) -> masks, bool (t h w), or boxes

where boxes are an array (n 4) a frame of left, top, right and bottom in pixels. Without one nobody
knows what the subject is. What stands in then is named for what it is, `subject_salient`: the share
of the largest region whose colour differs from the mean colour of the picture (frequency-tuned
saliency, Achanta et al. 2009). It sees a red ball on a lawn, and no person in a crowd.
"""

from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_function
from mgjax.core.typing import UInt8
from mgjax.curation.frames import Frame
from mgjax.curation.scores.plug_in import HELD, HeldFrames
from mgjax.curation.scores.scorer import Score, Scorer
from mgjax.curation.settings import MeasureSettings
from mgjax.media.optical_flow import opencv

_SIDE = 96  # pixels, of pictures that are looked at without a plug-in
_BLUR = 5  # of them, against noise and texture
_TWICE = 2.0  # the mean saliency, above which a pixel stands out, as published
_LEAST = 12.0  # of CIELAB, below which no colour differs; not in public sources


class Subject(Scorer):
  """`subject_share` of a plug-in, or `subject_salient`: the median of a clip's frames, 0 to 1."""

  name, rate = 'subject', HELD

  def __init__(self, settings: MeasureSettings):
    self._settings = settings.subject
    own = self._settings.python
    self._function = load_function(own) if own else None
    self.side = self._settings.side if own else _SIDE
    self._held = HeldFrames()
    opencv()

  def see(self, frame: Frame) -> None:
    self._held.add(frame)

  def scores(self, start: float, end: float) -> dict[str, Score]:
    key = 'salient' if self._function is None else 'share'
    frames = self._held.between(start, end, self._settings.frames)
    if frames is None:
      return {key: None}
    if self._function is None:
      return {key: float(np.median([salient_share(each) for each in frames]))}
    found = self._function(frames, self._settings.weights)
    return {key: float(np.median(_shares(found, frames.shape[:3], self._settings.python)))}


def salient_share(frame: UInt8[np.ndarray, 'h w 3']) -> float:
  """Share of a picture that its largest region of another colour than the mean one has.

  A pixel stands out where |mean - blurred| in CIELAB is above twice its mean over the picture.
  """
  cv2 = opencv()
  lab = cv2.cvtColor(np.float32(frame) / 255, cv2.COLOR_RGB2LAB)
  blurred = cv2.GaussianBlur(lab, (_BLUR, _BLUR), 0)
  far = np.linalg.norm(blurred - lab.mean((0, 1)), axis=-1)
  standing = np.uint8((far > _TWICE * far.mean()) & (far > _LEAST))
  _, _, regions, _ = cv2.connectedComponentsWithStats(standing, connectivity=8)
  sizes = regions[1:, cv2.CC_STAT_AREA]
  return float(sizes.max() / standing.size) if len(sizes) else 0.0


def _shares(found: Any, shape: tuple[int, ...], name: str) -> list[float]:
  """The share of the largest subject in each frame, of masks or boxes."""
  count, height, width = shape
  try:
    if len(found) != count:
      raise ValueError(f'{len(found)} answers for {count} frames')
    shares = [_share(np.asarray(each), height, width) for each in found]
  except (TypeError, ValueError) as error:
    raise ConfigError(
      f'{name} returned no subjects ({error!s:.80}); expected masks (t h w), or boxes (n 4) a frame'
    ) from error
  return shares


def _share(found: np.ndarray, height: int, width: int) -> float:
  if found.shape == (height, width):
    return float(found.astype(bool).mean())
  if not found.size:
    return 0.0
  if found.ndim != 2 or found.shape[1] != 4 or not np.isfinite(found).all():
    raise ValueError(f'an array of shape {found.shape} in a frame of {height} x {width}')
  left, right = found[:, 0].clip(0, width), found[:, 2].clip(0, width)
  top, bottom = found[:, 1].clip(0, height), found[:, 3].clip(0, height)
  areas = (right - left).clip(0) * (bottom - top).clip(0)
  return float(areas.max() / (height * width))
