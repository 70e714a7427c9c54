"""Judges clips of signs: reads the number back from the pixels, digit by digit.

As for single digits (`judge.py`), what is brighter than its background is the sign,
and the mean of the frames with the motion taken out is looked at. The width of the ink gives the
number of digits, and it is cut between them where there is least of it. Every piece goes to a
support vector classifier that has seen the handwriting of the training split.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float, Sample
from mgjax.lab.worlds.digits.judges.digit import (
  CROP,
  SIDE,
  THRESHOLD,
  blurring,
  find_digit,
  unit,
  window,
  worn,
)
from mgjax.lab.worlds.digits.render import PITCH
from mgjax.lab.worlds.digits.signs import LONGEST, Signs

# Samples by which a number of n digits is wider than n - 1 pitches: 2 where thin ones stand at both
# ends, 8 where they fill their places. The cut lies where neither n nor n + 1 is favoured.
_OVER = 1.5
_WANDER = 0.35  # pitches that a cut may lie from where digits of equal width would have it
_EVEN = 0.3  # ink, relative to the most in a column, that a cut gives for lying one pitch nearer


class SignReading(NamedTuple):
  """What a sign shows; three times '' if nothing stands out, motion '' for a single frame."""

  number: str
  colour: str
  motion: str


def sign_labels(samples: Iterable[Sample]) -> list[SignReading]:
  """Takes the labels out of samples of `mgjax.lab.worlds.digits.signs.Signs`."""
  return [SignReading(*(sample[name] for name in SignReading._fields)) for sample in samples]


def edit_distance(reading: str, expected: str) -> int:
  """Returns the number of characters to insert, delete or replace between two texts."""
  row = list(range(len(expected) + 1))
  for i, mine in enumerate(reading, 1):
    above = row[0]
    row[0] = i
    for j, theirs in enumerate(expected, 1):
      best = min(row[j] + 1, row[j - 1] + 1, above + (mine != theirs))
      above = row[j]
      row[j] = best
  return row[-1]


def character_accuracy(reading: str, expected: str) -> float:
  """Returns 1 - edit distance / length of the expected text; below 0 if far too much is read."""
  return 1 - edit_distance(reading, expected) / len(expected)


def places(picture: Float[np.ndarray, 'h w'], sample: float) -> Float[np.ndarray, 'n d']:
  """Cuts the picture of a sign into one crop a digit, each of unit length; none if it is empty.

  The picture is that of `judge.look`; `sample` is the pixels that one of a digit's eight samples
  takes.
  """
  height, width = picture.shape
  soft = blurring(height) @ picture @ blurring(width).T
  soft = np.where(soft > THRESHOLD * soft.max(), soft, 0)
  ink = soft.sum(0)
  columns = np.flatnonzero(ink)
  if not columns.size:
    return np.zeros((0, CROP**2), np.float32)
  first = int(columns[0])
  end = int(columns[-1]) + 1
  count = max(1, int(np.ceil(((end - first) / sample - _OVER) / PITCH)))
  count = min(count, LONGEST + 1)  # of more it is enough to know that they are too many
  bounds = [first, *_cuts(ink, first, end, count, PITCH * sample), end]
  return np.stack([_crop(picture, soft, *pair) for pair in itertools.pairwise(bounds)])


def _cuts(ink: np.ndarray, first: int, end: int, count: int, pitch: float) -> list[int]:
  cuts = []
  for number in range(1, count):
    even = first + (end - first) * number / count
    nearby = np.arange(int(even - _WANDER * pitch), int(even + _WANDER * pitch) + 1)
    nearby = nearby[(nearby > (cuts or [first])[-1]) & (nearby < end)]
    cost = ink[nearby] / ink.max() + _EVEN * ((nearby - even) / pitch) ** 2
    cuts.append(int(nearby[cost.argmin()]))
  return cuts


def _crop(picture: np.ndarray, soft: np.ndarray, first: int, end: int) -> Float[np.ndarray, 'd']:
  piece, mass = picture[:, first:end], soft[:, first:end]
  total = max(float(mass.sum()), 1e-9)
  row = mass.sum(1) @ np.arange(mass.shape[0]) / total
  column = mass.sum(0) @ np.arange(mass.shape[1]) / total
  rows, columns = (
    window(np.array([row]), piece.shape[0]),
    window(np.array([column]), piece.shape[1]),
  )
  return unit(rows[0] @ piece @ columns[0].T)


@dataclasses.dataclass(frozen=True)
class SignJudge:
  """Reads signs of any size and frame count; made by `train_sign_judge`."""

  # Crops (b d) -> digits (b,), each a character.
  classify: Callable[[Float[np.ndarray, 'b d']], np.ndarray]
  digit_size: float  # pixels of a digit where the shorter side of the frame has 32

  def read(self, video: np.ndarray) -> SignReading:
    """Says what one sign shows. Raises DataError unless it is uint8 (t h w 3)."""
    sight = find_digit(np.asarray(video), _picture_size(self.digit_size))
    crops = places(sight.picture, self.digit_size / 8)
    number = ''.join(self.classify(crops)) if len(crops) else ''
    return SignReading(number, sight.colour, sight.motion)

  def score(self, videos: Iterable[np.ndarray], labels: Sequence[SignReading]) -> dict[str, float]:
    """Returns the accuracy of signs.

    'characters' is the mean `character_accuracy`; 'number' is the share of numbers without an
    error, '2 digits' the same for numbers of two digits, and so on; 'colour' and 'direction' are
    shares too. Raises DataError if there is not one label a video.
    """
    numbers = self.read_all(videos, labels)
    return {name: float(np.nanmean(values)) for name, values in numbers.items()}

  def read_all(
    self, videos: Iterable[np.ndarray], labels: Sequence[SignReading]
  ) -> dict[str, list[float]]:
    """Returns of each sign what `score` takes the means of; raises what it does."""
    readings = [self.read(video) for video in videos]
    if len(readings) != len(labels) or not readings:
      raise DataError(f'{len(readings)} videos and {len(labels)} labels: give one label a video')
    return numbers_of_readings(readings, labels)


def numbers_of_readings(
  readings: Sequence[SignReading], labels: Sequence[SignReading]
) -> dict[str, list[float]]:
  """Returns the numbers that `SignJudge.score` averages, one a sign.

  NaN where a sign does not count, as a sign of three digits does not for '2 digits'.
  """
  pairs = list(zip(readings, labels, strict=True))
  right = np.array([[mine == theirs for mine, theirs in zip(*pair, strict=True)] for pair in pairs])
  number, colour, direction = right.T.astype(float).tolist()
  lengths = np.array([len(label.number) for label in labels])
  return {
    'characters': [character_accuracy(reading.number, label.number) for reading, label in pairs],
    'number': number,
    **{
      f'{length} digits': np.where(lengths == length, number, np.nan).tolist()
      for length in sorted({*lengths})
    },
    'colour': colour,
    'direction': direction,
  }


def _picture_size(digit_size: float) -> tuple[int, int]:
  """Height and width that hold a sign wherever its centroid lies in it."""
  return CROP, CROP + round(LONGEST * digit_size)


def train_sign_judge(
  *,
  size: tuple[int, int] = (32, 48),
  frames: int = 1,
  clips: int = 1500,
  seed: int = 0,
  **world: Any,
) -> SignJudge:
  """Trains a judge, in seconds, on generated signs in the training handwriting.

  Half of them are blurred and noisy, so that a decoder's softness is no obstacle. `world` are
  further fields of `Signs`. Only the proportions of `size` matter.
  """
  from sklearn.svm import SVC

  small = tuple(round(SIDE * side / min(size)) for side in size)
  source = Signs(captions='all', frames=frames, size=small, length=clips, seed=seed, **world)
  generator = np.random.default_rng((seed, clips))
  crops = []
  digits = []
  for index in range(clips):
    sample = source[index]
    video = worn(sample['video'], generator) if index % 2 else sample['video']
    pictures = places(
      find_digit(video, _picture_size(source.digit_size)).picture, source.digit_size / 8
    )
    if len(pictures) == len(sample['number']):
      crops += [*pictures]
      digits += [*sample['number']]
  classify = SVC(C=10).fit(np.stack(crops), np.array(digits)).predict
  return SignJudge(classify, source.digit_size)
