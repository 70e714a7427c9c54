"""Static videos and slide shows: how long nothing moves (Movie Gen §3.2.1 names them).

A step, between two frames that are compared, is still if no block of an 8 x 8 grid changes: a face
that talks before a wall changes few blocks, and a photograph none. How the paper finds either is
not in public sources.
"""

import numpy as np

from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer
from mgjax.lab.curation.settings import MeasureSettings

_GRID = 8


class Stillness(Scorer):
  """`stillness_share` of the steps of a clip that are still."""

  name = 'stillness'
  side = 144

  def __init__(self, settings: MeasureSettings):
    self.rate = settings.stillness.rate
    self._least = settings.stillness.change
    self._before: np.ndarray | None = None
    self._seen: list[tuple[float, float]] = []

  def see(self, frame: Frame) -> None:
    luma = frame.luma.astype(np.float32)
    if self._before is not None and self._before.shape == luma.shape:
      self._seen.append((frame.start, _largest_change(luma, self._before)))
    self._before = luma

  def scores(self, start: float, end: float) -> dict[str, Score]:
    slack = 0 if self.rate is None else 1 / self.rate - 1e-6
    changes = [change for time, change in self._seen if start + slack <= time < end]
    return {'share': float(np.mean(np.array(changes) < self._least)) if changes else None}


def _largest_change(a: np.ndarray, b: np.ndarray) -> float:
  """Mean absolute difference of the block that changes most."""
  change = np.abs(a - b)
  bands = np.array_split(change, _GRID, axis=0)
  return max(float(block.mean()) for band in bands for block in np.array_split(band, _GRID, axis=1))
