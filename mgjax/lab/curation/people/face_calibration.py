"""Calibrates how faces are compared: the threshold on cosines of pictures of people, its errors.

Of n people, pairs of the same person are n independent trials at most, however many pictures there
are, and pairs of different people n // 2: the intervals count those.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from mgjax.core.errors import DataError, printable
from mgjax.core.typing import Float
from mgjax.data.ingest.entries import VIDEO, RejectedEntry
from mgjax.data.media.faces.pictures import read_picture, sample_frames
from mgjax.data.media.faces.recognition import Faces
from mgjax.lab.statistics.intervals import wilson_interval

_PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.avif')
_MOST = 20  # frames of a clip
_HARDEST = 5  # pairs of each kind that are listed

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


def all_pairs(people: Mapping[str, Float[np.ndarray, 'n d']]) -> tuple[Pairs, Pairs]:
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
  """Chooses the threshold that minimises the larger of both error rates.

  If several cosines do, it is the middle one.
  """
  same_cosines = np.sort(same.cosines)
  different_cosines = np.sort(different.cosines)
  levels = np.unique([*same_cosines, *different_cosines])
  middles = np.concatenate([levels[:1] - 1e-3, (levels[1:] + levels[:-1]) / 2, levels[-1:] + 1e-3])
  missed = np.searchsorted(same_cosines, middles) / len(same_cosines)
  confused = 1 - np.searchsorted(different_cosines, middles) / len(different_cosines)
  worse = np.maximum(missed, confused)
  best = np.flatnonzero(worse == worse.min())
  choice = best[len(best) // 2]
  return errors_at(float(middles[choice]), same, different)


def errors_at(threshold: float, same: Pairs, different: Pairs) -> Calibration:
  """Returns the error rates of a given threshold."""
  missed = float((same.cosines < threshold).mean())
  confused = float((different.cosines >= threshold).mean())
  return Calibration(
    threshold,
    (missed, wilson_interval(missed, same.trials)),
    (confused, wilson_interval(confused, different.trials)),
  )


def calibrate_folder(
  folder: str | os.PathLike[str],
  faces: Faces,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], list[RejectedEntry]]:
  """Compares all faces in a folder, and describes how well the model tells people apart.

  The folder has one folder of pictures or clips for each person; one frame a second is read from a
  clip, at most 20. Returns lines to print, the pairs nearest to an error last; and the rejected
  pictures: those without exactly one face. Raises DataError if there are fewer than two people, or
  nobody has two pictures.
  """
  files = _files(pathlib.Path(folder))
  people: dict[str, list[np.ndarray]] = {}
  picture_names: dict[str, list[str]] = {}
  rejected = []
  progress(0, len(files))
  for done, path in enumerate(files, 1):
    name = str(path.relative_to(folder))
    try:
      frames = _frames(path)
    except DataError as error:
      rejected.append(RejectedEntry(name, str(error).removeprefix(f'{path}: ')))
      frames = []
    for number, frame in enumerate(frames):
      which = f'{name}, frame {number}' if len(frames) > 1 else name
      detections = faces.find([frame])[0]
      if len(detections) == 1:
        picture_names.setdefault(path.parent.name, []).append(which)
        people.setdefault(path.parent.name, []).append(faces.embed([frame], detections)[0])
      else:
        count = f'{len(detections)} faces' if detections else 'no face'
        rejected.append(RejectedEntry(which, f'shows {count}, expected one'))
    progress(done, len(files))
  same, different = all_pairs({name: np.stack(vectors) for name, vectors in people.items()})
  names = [which for person in picture_names.values() for which in person]
  lines = [
    f'{faces.name}: {len(names)} pictures of {len(people)} people',
    f'one person: cosine {same.cosines.min():.3f} to {same.cosines.max():.3f}, '
    f'{len(same.cosines)} pairs; two people: {different.cosines.min():.3f} to '
    f'{different.cosines.max():.3f}, {len(different.cosines)} pairs',
    f'chosen here: {calibrate(same, different)}',
    f'as it is:    {errors_at(faces.threshold, same, different)}',
    f'the intervals count {same.trials} people and {different.trials} couples, not the pairs',
    *_hardest('one person, least alike', same, same.cosines, names),
    *_hardest('two people, most alike', different, -different.cosines, names),
  ]
  return lines, rejected


def _hardest(title: str, pairs: Pairs, ease: np.ndarray, names: list[str]) -> list[str]:
  lines = [f'{title}:']
  for number in np.argsort(ease)[:_HARDEST]:
    first, second = (printable(names[index]) for index in pairs.places[number])
    lines.append(f'  {pairs.cosines[number]:.3f}  {first}  {second}')
  return lines


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    raise DataError(f'{folder} is no folder; give one that has a folder of pictures a person')
  suffixes = {*_PICTURES, *VIDEO.suffixes}
  files = [path for path in sorted(folder.glob('*/*')) if path.suffix.lower() in suffixes]
  if not files:
    raise DataError(f'{folder} has no pictures in folders of their own, one folder a person')
  return files


def _frames(path: pathlib.Path) -> list[np.ndarray]:
  if path.suffix.lower() in _PICTURES:
    return [read_picture(path)]
  return [frame for _, frame in itertools.islice(sample_frames(path, 1.0), _MOST)]
