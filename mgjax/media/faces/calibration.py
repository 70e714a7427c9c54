"""Calibrates a face embedder: the threshold on its cosines and the error rates there.

Of n people, pairs of the same person are n independent trials at most, however many pictures there
are, and pairs of different people n // 2: the intervals count those.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mgjax.core.errors import DataError
from mgjax.core.typing import Float, UInt8
from mgjax.media.titles import draw_title, write_sheet

_SURE = 1.959964  # standard deviations of a 95% interval
_BINS, _WIDTH, _HEIGHT = 40, 1040, 220
_LEFT, _BELOW, _GAP, _LETTERS, _CROP, _DRAWN = 44, 24, 8, 15, 96, 9
_SAME, _OTHER, _LINE = (43, 138, 62), (196, 82, 28), (60, 60, 60)

Vectors = Float[np.ndarray, 'n d']
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Cosines of pairs of pictures, which two each is of, and how many are independent `trials`."""

  cosines: np.ndarray
  places: list[tuple[int, int]]
  trials: int


@dataclasses.dataclass(frozen=True)
class Calibration:
  """The threshold from which two pictures count as one person, and its two error rates.

  `missed` is the share of pairs of one person below it, `confused` that of pairs of two people at
  or above it, each with a 95% interval.
  """

  threshold: float
  missed: tuple[float, Interval]
  confused: tuple[float, Interval]

  def __str__(self) -> str:
    (missed, between), (confused, beside) = self.missed, self.confused
    return (
      f'threshold {self.threshold:.3f}: {missed:.1%} of pairs of one person below it '
      f'[{between[0]:.1%}, {between[1]:.1%}], {confused:.1%} of pairs of two people above it '
      f'[{beside[0]:.1%}, {beside[1]:.1%}]'
    )


def all_pairs(people: Mapping[str, Vectors]) -> tuple[Pairs, Pairs]:
  """Returns the pairs of the same person and those of different people, of name -> unit vectors.
  Raises DataError if there are no two people, or nobody with two pictures.
  """
  names = [name for name, vectors in people.items() if len(vectors)]
  owners = np.repeat(np.arange(len(names)), [len(people[name]) for name in names])
  twice = sum(len(people[name]) > 1 for name in names)
  if len(names) < 2 or not twice:
    raise DataError(
      f'{len(owners)} pictures of {len(names)} people, {twice} of them with two or more; expected '
      'two people at least, one of them twice'
    )
  vectors = np.concatenate([people[name] for name in names])
  first, second = np.triu_indices(len(owners), 1)
  cosines = (vectors[first] * vectors[second]).sum(-1)
  alike = owners[first] == owners[second]

  def chosen(which: np.ndarray, trials: int) -> Pairs:
    places = list(zip(first[which].tolist(), second[which].tolist(), strict=True))
    return Pairs(cosines[which], places, trials)

  return chosen(alike, twice), chosen(~alike, len(names) // 2)


def calibrate(same: Pairs, different: Pairs) -> Calibration:
  """Chooses the threshold at which the worse of both error rates is least.

  Where several cosines will do, it is the middle of them.
  """
  ours, others = np.sort(same.cosines), np.sort(different.cosines)
  levels = np.unique([*ours, *others])
  middles = np.concatenate([levels[:1] - 1e-3, (levels[1:] + levels[:-1]) / 2, levels[-1:] + 1e-3])
  missed = np.searchsorted(ours, middles) / len(ours)
  confused = 1 - np.searchsorted(others, middles) / len(others)
  worse = np.maximum(missed, confused)
  best = np.flatnonzero(worse == worse.min())
  place = best[len(best) // 2]
  return errors_at(float(middles[place]), same, different)


def errors_at(threshold: float, same: Pairs, different: Pairs) -> Calibration:
  """Returns the error rates of a given threshold."""
  missed = float((same.cosines < threshold).mean())
  confused = float((different.cosines >= threshold).mean())
  return Calibration(
    threshold,
    (missed, wilson_interval(missed, same.trials)),
    (confused, wilson_interval(confused, different.trials)),
  )


def wilson_interval(share: float, trials: int) -> Interval:
  """Returns Wilson's 95% interval of a share p seen in n independent trials.

  (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n),  z = 1.96
  """
  square = _SURE**2 / trials
  middle = share + square / 2
  spread = _SURE * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
  low, high = (middle - spread) / (1 + square), (middle + spread) / (1 + square)
  return max(0.0, low), min(1.0, high)


def draw_calibration(
  path: str | os.PathLike[str],
  title: str,
  same: Pairs,
  different: Pairs,
  chosen: Calibration,
  crops: Sequence[UInt8[np.ndarray, 's s 3']],
) -> None:
  """Writes a PNG: histograms of both kinds of pairs, the threshold, and the pairs nearest to error.

  `crops` are the pictures, by the numbers in `Pairs.places`.
  """
  hardest = []
  for text, pairs, easy in (
    ('One person, least alike', same, same.cosines),
    ('Two people, most alike', different, -different.cosines),
  ):
    worst = np.argsort(easy)[:_DRAWN]
    cosines = ', '.join(f'{pairs.cosines[place]:.3f}' for place in worst)
    hardest.append((f'{text}: {cosines}', [pairs.places[i] for i in worst]))
  line, row = _LETTERS + 2 * _GAP, 2 * _CROP + 2 * _GAP
  sheet = Image.new('RGB', (_WIDTH, 3 * line + _HEIGHT + _BELOW + 2 * (line + row)), 'white')
  pen = ImageDraw.Draw(sheet)
  titles = [
    title,
    str(chosen),
    f'Green: {len(same.cosines)} pairs of one person. Orange: {len(different.cosines)} of two.',
  ]
  for number, text in enumerate(titles):
    draw_title(pen, (_GAP, number * line + _GAP), text, size=_LETTERS, width=_WIDTH - 2 * _GAP)
  _draw_histograms(pen, 3 * line, same.cosines, different.cosines, chosen.threshold)
  top = 3 * line + _HEIGHT + _BELOW
  for text, places in hardest:
    draw_title(pen, (_GAP, top + _GAP), text, size=_LETTERS, width=_WIDTH - 2 * _GAP)
    for number, pair in enumerate(places):
      for below, place in enumerate(pair):
        small = Image.fromarray(crops[place]).resize((_CROP, _CROP), Image.Resampling.BICUBIC)
        sheet.paste(small, (_GAP + number * (_CROP + _GAP), top + line + below * _CROP))
    top += line + row
  write_sheet(path, sheet, [*titles, *(text for text, _ in hardest)])


def _draw_histograms(
  pen: ImageDraw.ImageDraw, top: int, same: np.ndarray, different: np.ndarray, threshold: float
) -> None:
  """Draws the share of each kind of pairs by cosine, one beside the other in each bin."""
  every = np.concatenate([same, different, [threshold]])
  low, high = float(every.min()), float(every.max())
  edges = np.linspace(low, max(high, low + 1e-3), _BINS + 1)
  shares = [np.histogram(each, edges)[0] / len(each) for each in (same, different)]
  bottom, width = top + _HEIGHT, (_WIDTH - _LEFT - _GAP) / _BINS
  most = max(share.max() for share in shares)
  for kind, (share, colour) in enumerate(zip(shares, (_SAME, _OTHER), strict=True)):
    for number, part in enumerate(share):
      left = _LEFT + (number + kind / 2) * width
      height = part / most * (_HEIGHT - _GAP)
      if part:
        pen.rectangle((left, bottom - max(1, height), left + width / 2 - 1, bottom), fill=colour)
  pen.line((_LEFT, bottom, _WIDTH - _GAP, bottom), fill=_LINE)
  place = _LEFT + (threshold - low) / (edges[-1] - low) * _BINS * width
  pen.line((place, top, place, bottom + _GAP), fill=_LINE, width=2)
  for value in (low, threshold, float(edges[-1])):
    left = _LEFT + (value - low) / (edges[-1] - low) * _BINS * width - 18
    draw_title(
      pen, (min(left, _WIDTH - 56), bottom + _GAP), f'{value:.3f}', size=_LETTERS - 3, width=60
    )
