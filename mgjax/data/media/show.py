"""Shows videos, images and sounds in a notebook, and elsewhere as a picture."""

import base64
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.media.viewing import write_clip, write_sheets

_PICTURE = 'mgjax_show.png'
_PLAYERS = {'.mp4': 'video', '.wav': 'audio'}


def show(
  made: Any,
  titles: Sequence[str] = (),
  *,
  rate: int = 48_000,
  fps: float = 16,
  path: str | os.PathLike[str] = _PICTURE,
) -> pathlib.Path | None:
  """Shows what a pipeline made, and returns the path of the picture or file; None in a notebook.

  In a notebook it displays a contact sheet, of videos an animation, and of sounds a player each;
  elsewhere it writes sheet and animation to `path` and beside it, and prints their paths. A file
  plays in a notebook, an .mp4 with its sound, and elsewhere its path is printed.

  Args:
    made: videos uint8 (b t h w 3) or one (t h w 3), images being videos of one frame; sounds
      floats (b s c) or one (s c); samples of a source, such as a world's; or an .mp4 or .wav file.
    titles: a line above each; by default its number, of a sample its caption.
    rate: samples a second of sounds.
    fps: frames a second of videos.

  Raises:
    ValueError: an array of another shape or type.
  """
  notebook = _in_notebook()
  if isinstance(made, str | os.PathLike):
    return _show_file(pathlib.Path(made), notebook)
  if isinstance(made, Sequence) and made and isinstance(made[0], Mapping):
    titles = titles or [str(sample['caption']) for sample in made]
    made = [sample['video'] for sample in made]
  items, moving = _split(made)
  titles = list(titles) or [str(number) for number in range(len(items))]
  place = pathlib.Path(tempfile.mkdtemp()) / 'sheet.png' if notebook else pathlib.Path(path)
  sheets = _write_sheets(place, items, titles, moving, fps, rate)
  if not notebook:
    print(*sheets, sep='\n')
    return place
  display = sys.modules['IPython.display']
  display.display(display.Image(place.read_bytes()))
  for animation in sheets[1:]:  # which older IPythons' Image does not take
    data = base64.b64encode(animation.read_bytes()).decode()
    display.display(display.HTML(f'<img src="data:image/webp;base64,{data}">'))
  for item in () if moving else items:
    display.display(display.Audio(item.T, rate=rate))
  shutil.rmtree(place.parent)
  return None


def _show_file(path: pathlib.Path, notebook: bool) -> pathlib.Path | None:
  if path.suffix not in _PLAYERS:
    raise ValueError(f'{path.name}: expected an .mp4 or a .wav file, or arrays')
  if not notebook:
    print(path)
    return path
  display = sys.modules['IPython.display']
  data = base64.b64encode(path.read_bytes()).decode()
  kind = _PLAYERS[path.suffix]
  page = f'<{kind} controls src="data:{kind}/{path.suffix[1:]};base64,{data}"></{kind}>'
  display.display(display.HTML(page))
  return None


def save(
  made: Any,
  out: str | os.PathLike[str],
  *,
  fps: float = 16,
  rate: int = 48_000,
  scale: int | None = None,
) -> list[pathlib.Path]:
  """Writes what a pipeline made: an .mp4 or .png a video, a .wav a sound, and a sheet of all.

  Args:
    made: as `show`.
    out: a folder.
    fps: frames a second of videos, which have an animation of all too.
    rate: samples a second of sounds.
    scale: how often each row and column of pixels is written; by default until the longer side has
      256 pixels or more, 1 for the model's own.

  Returns:
    The files, the sheet and the animation last.
  """
  items, moving = _split(made)
  folder = pathlib.Path(out)
  paths = []
  for number, item in enumerate(items):
    kind = '.wav' if not moving else '.mp4' if len(item) > 1 else '.png'
    paths.append(folder / f'{number:04d}{kind}')
    if not moving:
      write_wav(paths[-1], item, rate)
    else:
      write_clip(paths[-1], item, fps, scale)
  titles = [path.name for path in paths]
  return [*paths, *_write_sheets(folder / 'sheet.png', items, titles, moving, fps, rate)]


def _write_sheets(
  path: pathlib.Path,
  items: list[np.ndarray],
  titles: list[str],
  moving: bool,
  fps: float,
  rate: int,
) -> list[pathlib.Path]:
  if moving:
    return write_sheets(path, items, titles, fps)
  audio_sheet(path, items, titles, rate)
  return [path]


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
