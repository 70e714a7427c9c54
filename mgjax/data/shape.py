"""The shape of a bucket's samples; reads no clips, so that sampling need not either."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Positive, Range, check

_EVEN = 1e-6  # a frame rate that is above a whole one by less is that one

_SLOW = 0.05  # frames a second: a clip of 23.976 is one of 24

_Rate = Annotated[float, Range(above=0)]


@dataclasses.dataclass(frozen=True)
class Shape:
  """The shape of a bucket's samples; one frame makes an image."""

  frames: Positive
  height: Positive
  width: Positive
  fps: tuple[_Rate, _Rate]  # the lowest and the highest rate of videos
  source: str = ''  # of the samples, a name in `data.sources`; '' for the other data

  def __post_init__(self):
    check(self)
    if self.fps[0] > self.fps[1]:
      raise ConfigError(f'fps = {self.fps}; expected a rate, or (lowest, highest)')

  @property
  def size(self) -> tuple[int, int]:
    """(height, width)."""
    return self.height, self.width

  def rates(self, seconds: np.ndarray) -> np.ndarray:
    """The frame rate at which clips that last so long are taken."""
    low, high = self.fps
    if low == high:
      return np.full(len(seconds), float(low))
    return np.clip(np.ceil(self.frames / np.maximum(seconds, 1e-9) - _EVEN), low, high)

  def repeats(self, seconds: np.ndarray, fps: np.ndarray) -> np.ndarray:
    """The share of a sample's frames that repeat the one before, where clips have `fps`."""
    rates = self.rates(seconds)
    few = (fps > 0) & (fps + _SLOW < rates) & (self.frames > 1)
    return np.where(few, 1 - fps / rates, 0.0)

  def windows(self, seconds: np.ndarray) -> np.ndarray:
    """How long a sample of such clips lasts; images are taken one a second."""
    if self.frames == 1:
      return np.full(len(seconds), max(1.0, 1 / self.fps[1]))
    return self.frames / self.rates(seconds)


def longest_bucket(shapes: Mapping[str, Shape]) -> tuple[str, Shape]:
  """Returns name and shape of the bucket with the most frames, the first of several.
  Raises ConfigError if there are none.
  """
  if not shapes:
    raise ConfigError('buckets is empty; expected at least one, as {video: {frames: 16, ...}}')
  return max(shapes.items(), key=lambda item: item[1].frames)


def whole(number: float, what: str) -> int:
  """Returns a count that must be whole but for rounding; ConfigError names `what` if it is not."""
  if abs(number - round(number)) > 1e-6 or round(number) < 1:
    raise ConfigError(f'{what} make {number:g}, expected a whole number; choose other seconds')
  return round(number)
