"""Calibrates how faces are compared on pictures of people: one folder a person."""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from mgjax.core.errors import DataError
from mgjax.data.ingest.entries import VIDEO, Rejected
from mgjax.media.faces.calibration import all_pairs, calibrate, draw_calibration, errors_at
from mgjax.media.faces.pictures import read_picture, sample_frames
from mgjax.media.faces.recognition import Faces

_PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.avif')
_MOST = 20  # frames of a clip


def calibrate_folder(
  folder: str | os.PathLike[str],
  faces: Faces,
  page: str | os.PathLike[str],
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], list[Rejected]]:
  """Compares all faces in a folder, and writes a PNG of how well people are told apart.

  The folder has one folder of pictures or clips for each person; of a clip one frame a second is
  taken, 20 at most.

  Returns:
    Lines to print, and the pictures that were left out: those without exactly one face.

  Raises:
    DataError: there are no two people, or nobody with two pictures.
  """
  files = _files(pathlib.Path(folder))
  people: dict[str, list[np.ndarray]] = {}
  crops: dict[str, list[np.ndarray]] = {}
  rejected = []
  progress(0, len(files))
  for done, path in enumerate(files, 1):
    name = str(path.relative_to(folder))
    try:
      frames = _frames(path)
    except DataError as error:
      rejected.append(Rejected(name, str(error).removeprefix(f'{path}: ')))
      frames = []
    for number, frame in enumerate(frames):
      found = faces.find([frame])[0]
      if len(found) == 1:
        crop = faces.embedder.crop(frame, found[0])
        crops.setdefault(path.parent.name, []).append(crop)
        people.setdefault(path.parent.name, []).append(faces.embedder.embed([crop])[0])
      else:
        which = f'{name}, frame {number}' if len(frames) > 1 else name
        count = f'{len(found)} faces' if found else 'no face'
        rejected.append(Rejected(which, f'shows {count}, expected one'))
    progress(done, len(files))
  same, different = all_pairs({name: np.stack(vectors) for name, vectors in people.items()})
  chosen = calibrate(same, different)
  title = f'{faces.name}: {sum(map(len, people.values()))} pictures of {len(people)} people'
  draw_calibration(
    page, title, same, different, chosen, [crop for each in crops.values() for crop in each]
  )
  lines = [
    title,
    f'one person: cosine {same.cosines.min():.3f} to {same.cosines.max():.3f}, '
    f'{len(same.cosines)} pairs; two people: {different.cosines.min():.3f} to '
    f'{different.cosines.max():.3f}, {len(different.cosines)} pairs',
    f'chosen here: {chosen}',
    f'as it is:    {errors_at(faces.threshold, same, different)}',
    f'the intervals count {same.trials} people and {different.trials} couples, not the pairs',
  ]
  return lines, rejected


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
  frames = []
  for _, frame in sample_frames(path, 1.0):
    frames.append(frame)
    if len(frames) == _MOST:
      break
  return frames
