"""Borders around the picture, by first derivatives of rows and columns and by scan lines.

Movie Gen §3.2.1 names its detector so (Table 44, row 5); the rest is not in public sources. A
border consists of lines that are flat and alike, with a step where the picture begins. A pair of
straight edges at equal distances from both sides, over most of their lengths, counts too. Either
must be at the same place on the frames of a clip.
"""

import numpy as np

from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Score, Scorer, shown
from mgjax.lab.curation.settings import BorderSettings, MeasureSettings

_DEEPEST = 0.45  # of height or width
_STRAIGHT = 0.6  # of an edge's length that has a step
_NEAR, _SHARP = 4, 2  # lines before and behind an edge, and times that it is steeper
_ALIKE = 0.02  # of height or width by which opposite borders may differ
_AGREE = 0.8  # of frames that show the same border
_SIDES = ('top', 'bottom', 'left', 'right')


class Borders(Scorer):
  """`borders_share`: of height or width, the larger; `borders_top` and so on in pixels."""

  name = 'borders'

  def __init__(self, settings: MeasureSettings):
    self._settings = settings.borders
    self.rate = settings.borders.rate
    self._seen: list[tuple[float, float, tuple[int, int], np.ndarray]] = []

  def see(self, frame: Frame) -> None:
    widths = [*_borders(frame.luma, self._settings), *_borders(frame.luma.T, self._settings)]
    self._seen.append((frame.start, frame.end, frame.size, np.array(widths)))

  def scores(self, start: float, end: float) -> dict[str, Score]:
    if not (inside := shown(self._seen, start, end)):
      return dict.fromkeys(['share', *_SIDES])
    height, width = inside[0][2]
    borders = np.stack([row[3] for row in inside])
    typical = np.median(borders, axis=0)
    agrees = np.abs(borders - typical) <= np.array([height, height, width, width]) / 200 + 1
    typical = np.where(agrees.mean(0) >= _AGREE, typical, 0)
    share = max(typical[:2].sum() / height, typical[2:].sum() / width)
    return {'share': float(share), **dict(zip(_SIDES, typical.astype(int).tolist(), strict=True))}


def _borders(luma: np.ndarray, settings: BorderSettings) -> tuple[int, int]:
  """Lines of border at the beginning and at the end of the first axis."""
  luma = luma.astype(np.int16)
  count = len(luma)
  deepest = int(_DEEPEST * count)
  if deepest < 2:
    return 0, 0
  # Over two lines, since compression smears a step over two.
  steps = np.zeros_like(luma)
  steps[1:-1] = np.abs(luma[2:] - luma[:-2])
  mean_step = steps.mean(1)
  means = luma.mean(1)
  flat = luma.std(1) <= settings.flat
  first = _flat_lines(means, flat, mean_step, deepest, settings)
  last = _flat_lines(means[::-1], flat[::-1], mean_step[::-1], deepest, settings)
  if first or last:
    return first, last
  # An edge is a step where nothing changes a few lines before and behind.
  around = np.maximum(np.roll(steps, _NEAR, 0), np.roll(steps, -_NEAR, 0))
  straight = ((steps > settings.step) & (steps > _SHARP * around)).mean(1)
  starts = np.flatnonzero(straight[:deepest] >= _STRAIGHT)
  ends = np.flatnonzero(straight[::-1][:deepest] >= _STRAIGHT)
  pairs = [(a, b) for a in starts for b in ends if abs(a - b) <= _ALIKE * count + 1 and a and b]
  best = max(pairs, key=lambda pair: straight[pair[0]] + straight[-1 - pair[1]], default=(0, 0))
  return int(best[0]), int(best[1])


def _flat_lines(
  means: np.ndarray, flat: np.ndarray, steps: np.ndarray, deepest: int, settings: BorderSettings
) -> int:
  """How many lines from the first on are flat and alike, if a step ends them; else 0."""
  alike = flat & (np.abs(means - means[0]) <= settings.flat)
  depth = int(np.argmin(alike)) if not alike.all() else len(alike)
  if not 0 < depth <= deepest:
    return 0
  return depth if steps[depth - 1 : depth + 2].max() >= settings.step else 0
