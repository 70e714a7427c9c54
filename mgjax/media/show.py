"""Shows videos, images and sounds: inside a notebook where it runs in one, else as a picture."""

import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mgjax.media.audio import write_wav
from mgjax.media.audio_sheet import audio_sheet
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.video import write_video

_PICTURE = 'mgjax_show.png'


def show(
  made: Any,
  titles: Sequence[str] = (),
  *,
  rate: int = 48_000,
  path: str | os.PathLike[str] = _PICTURE,
) -> pathlib.Path | None:
  """Shows what a pipeline made.

  In a notebook it displays a contact sheet, and of sounds a player each; elsewhere it writes the
  sheet to `path` and says so.

  Args:
    made: videos uint8 (b t h w 3) or one (t h w 3), images being videos of one frame; sounds
      floats (b s c) or one (s c).
    titles: a line above each; by default its number.
    rate: of sounds, samples a second.
    path: of the picture.

  Returns:
    The path of the picture, None in a notebook.

  Raises:
    ValueError: an array of another shape or type.
  """
  items, moving = _split(made)
  titles = list(titles) or [str(number) for number in range(len(items))]
  notebook = _in_notebook()
  place = pathlib.Path(tempfile.mkdtemp()) / 'sheet.png' if notebook else pathlib.Path(path)
  if moving:
    contact_sheet(place, items, titles)
  else:
    audio_sheet(place, items, titles, rate)
  if not notebook:
    print(place)
    return place
  display = sys.modules['IPython.display']
  display.display(display.Image(place.read_bytes()))
  for item in () if moving else items:
    display.display(display.Audio(item.T, rate=rate))
  place.unlink()
  place.parent.rmdir()
  return None


def save(
  made: Any, out: str | os.PathLike[str], *, fps: float = 16, rate: int = 48_000
) -> list[pathlib.Path]:
  """Writes what a pipeline made: an .mp4 or .png a video, a .wav a sound, and a sheet of all.

  Args:
    made: as `show`.
    out: a folder.
    fps: of videos.
    rate: of sounds, samples a second.

  Returns:
    The files, the sheet last.
  """
  items, moving = _split(made)
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  for number, item in enumerate(items):
    kind = '.wav' if not moving else '.mp4' if len(item) > 1 else '.png'
    paths.append(folder / f'{number:04d}{kind}')
    if not moving:
      write_wav(paths[-1], item, rate)
    elif len(item) > 1:
      write_video(paths[-1], item, fps)
    else:
      Image.fromarray(item[0]).save(paths[-1])
  titles, sheet = [path.name for path in paths], folder / 'sheet.png'
  if moving:
    contact_sheet(sheet, items, titles)
  else:
    audio_sheet(sheet, items, titles, rate)
  return [*paths, sheet]


def _split(made: Any) -> tuple[list[np.ndarray], bool]:
  """Returns one array a video or sound, and whether they are videos."""
  array = np.asarray(made)
  if array.dtype == np.uint8 and array.ndim in (4, 5) and array.shape[-1] == 3:
    return list(array if array.ndim == 5 else array[None]), True
  if array.dtype.kind == 'f' and array.ndim in (2, 3):
    return list(array if array.ndim == 3 else array[None]), False
  raise ValueError(
    f'an array of {array.dtype}{list(array.shape)}; expected videos, uint8 (b t h w 3) or '
    '(t h w 3), or sounds, floats (b s c) or (s c)'
  )


def _in_notebook() -> bool:
  shell = sys.modules.get('IPython')
  running = shell.get_ipython() if shell is not None else None
  return running is not None and hasattr(running, 'kernel')
