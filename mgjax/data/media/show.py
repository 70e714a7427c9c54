"""Shows videos, images and audio in a notebook, and elsewhere as a picture."""

import base64
import html
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Positive, checked
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.media.clips import Fps, SampleRate, fps_of
from mgjax.data.media.viewing import FILES, write_clip, write_file, write_sheets

_PICTURE = 'mgjax_show.png'
_PLAYERS = {'.mp4': 'video', '.wav': 'audio'}


def show(
  media: Any,
  titles: Sequence[str] = (),
  *,
  rate: int | None = None,
  fps: float | None = None,
  path: str | os.PathLike[str] = _PICTURE,
) -> pathlib.Path | None:
  """Shows a pipeline's output; returns the path of the picture or file, None in a notebook.

  In a notebook it displays a contact sheet, of videos an animation, and of audio a player each;
  elsewhere it writes sheet and animation to `path` and beside it, and prints their paths. A file
  plays in a notebook, an .mp4 with its sound, and elsewhere its path is printed.

  Args:
    media: videos uint8 (b t h w 3) or one (t h w 3), images being videos of one frame. Or audio,
      floats (b s c) or one (s c); samples of a source; an .mp4 or .wav file.
    titles: a line above each; by default its number, of a sample its caption.
    rate: samples a second of audio; by default their own, or 48,000.
    fps: frames a second of videos; by default their own, or 16.

  Raises:
    ConfigError: an array of another shape or type, a rate out of its range or another kind of file.
  """
  notebook = _in_notebook()
  if isinstance(media, str | os.PathLike):
    return _show_file(pathlib.Path(media), notebook)
  if isinstance(media, Sequence) and media and isinstance(media[0], Mapping):
    titles = titles or [str(sample['caption']) for sample in media]
    media = [sample['video'] for sample in media]
  items, moving = _split(media)
  rates, rate = _rates(media, len(items), fps, rate)
  titles = [titles] if isinstance(titles, str) else list(titles or map(str, range(len(items))))
  if len(titles) != len(items):
    raise ConfigError(f'{len(titles)} titles for {len(items)} items; give one for each')
  if pathlib.Path(path).suffix != '.png':
    raise ConfigError(f'path = {os.fspath(path)!r}; expected a name that ends with .png')
  sheet = pathlib.Path(tempfile.mkdtemp()) / 'sheet.png' if notebook else pathlib.Path(path)
  sheets = _write_sheets(sheet, items, titles, moving, rates, rate)
  if not notebook:
    print(*sheets, sep='\n')
    return sheet
  display = sys.modules['IPython.display']
  display.display(display.Image(sheet.read_bytes()))
  for animation in sheets[1:]:  # which older IPythons' Image does not take
    data = base64.b64encode(animation.read_bytes()).decode()
    alt = html.escape(f'Animated clips: {"; ".join(titles)}')
    display.display(display.HTML(f'<img src="data:image/webp;base64,{data}" alt="{alt}">'))
  for item in () if moving else items:
    display.display(display.Audio(item.T, rate=rate))
  shutil.rmtree(sheet.parent)
  return None


def _show_file(path: pathlib.Path, notebook: bool) -> pathlib.Path | None:
  if path.suffix not in _PLAYERS or not path.is_file():
    raise ConfigError(f'{path.name}: expected an .mp4 or a .wav file that is there, or arrays')
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
  media: Any,
  out: str | os.PathLike[str],
  *,
  fps: float | np.floating | None = None,
  rate: int | None = None,
  scale: int | None = None,
) -> list[pathlib.Path]:
  """Writes a pipeline's output: one file, or a folder with a file of each and a sheet of all.

  Args:
    media: as for `show`.
    out: a file for one video or sound, 'one.mp4', '.gif', '.webp', '.png' (a picture, or of a video
      some frames) or '.wav'; else a folder, in which each is an .mp4, .png or .wav.
    fps: frames a second of videos; by default their own, or 16.
    rate: samples a second of audio; by default their own, or 48,000.
    scale: how often each row and column of pixels is written; by default until the longer side has
      256 pixels or more, 1 for the model's own.

  Returns:
    The files, those of all the last ones.

  Raises:
    ConfigError: an array of another shape or type, a number out of its range, or a name for one
      file that does not suit.
  """
  items, moving = _split(media)
  rates, rate = _rates(media, len(items), fps, rate)
  scale = checked(Positive | None, scale, 'scale')
  out = pathlib.Path(out)
  kind = out.suffix[1:]
  if kind.isalnum() and not kind.isdigit() and not out.is_dir():
    return [_save_one(items, moving, out, rates[0], rate, scale)]
  paths = []
  for number, (item, fps) in enumerate(zip(items, rates, strict=True)):
    suffix = '.wav' if not moving else '.mp4' if len(item) > 1 else '.png'
    paths.append(out / f'{number:04d}{suffix}')
    if not moving:
      write_wav(paths[-1], item, rate)
    else:
      write_clip(paths[-1], item, fps, scale)
  titles = [path.name for path in paths]
  return [*paths, *_write_sheets(out / 'sheet.png', items, titles, moving, rates, rate)]


def _save_one(
  items: list[np.ndarray],
  moving: bool,
  path: pathlib.Path,
  fps: float,
  rate: int,
  scale: int | None,
) -> pathlib.Path:
  """Writes the one video or sound to a file of a kind that it can have."""
  kinds = FILES if moving else ('.wav',)
  if path.suffix.lower() not in kinds:
    what = 'a video is' if moving else 'a sound is'
    raise ConfigError(
      f'{os.fspath(path)!r}: {what} written as {", ".join(kinds)}; a name without a suffix is a '
      'folder'
    )
  if len(items) != 1:
    raise ConfigError(
      f'{os.fspath(path)!r} is one file for {len(items)} videos or tracks; save one, as in '
      'clips[0], or give a folder'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  if moving:
    write_file(path, items[0], fps, scale)
  else:
    write_wav(path, items[0], rate)
  return path


def _rates(
  output: object, count: int, fps: float | np.floating | None, rate: int | None
) -> tuple[list[float], int]:
  """Returns frames a second of each of `count` videos, and samples a second of audio."""
  fps = fps.item() if isinstance(fps, np.generic) else fps
  fps = checked(Fps | None, fps, 'fps')
  rate = checked(SampleRate | None, rate, 'rate')
  rates = fps_of(output, count, 16) if fps is None else [fps] * count
  rates = [checked(Fps, frame_rate, 'fps of the clips') for frame_rate in rates]
  return rates, rate or getattr(output, 'rate', None) or 48_000


def _write_sheets(
  path: pathlib.Path,
  items: list[np.ndarray],
  titles: list[str],
  moving: bool,
  fps: list[float],
  rate: int,
) -> list[pathlib.Path]:
  if moving:
    return write_sheets(path, items, titles, fps)
  audio_sheet(path, items, titles, rate)
  return [path]


def _split(output: object) -> tuple[list[np.ndarray], bool]:
  """Returns one array a video or sound, and whether they are videos."""
  if isinstance(output, list) and output and isinstance(output[0], list):  # images of PIL
    output = [np.stack([np.asarray(frame) for frame in frames]) for frames in output]
  if isinstance(output, list) and len({np.shape(item) for item in output}) > 1:
    parts = [_split(item) for item in output]
    return [item for items, _ in parts for item in items], parts[0][1]
  array = np.asarray(output)
  if not array.size:
    raise ConfigError(f'an array of {array.dtype}{list(array.shape)}: there is nothing in it')
  if array.dtype == np.uint8 and array.ndim in (4, 5) and array.shape[-1] == 3:
    return list(array if array.ndim == 5 else array[None]), True
  if array.dtype.kind == 'f' and array.ndim in (2, 3) and array.shape[-1] <= 2:
    return list(array if array.ndim == 3 else array[None]), False
  raise ConfigError(
    f'an array of {array.dtype}{list(array.shape)}; expected videos, uint8 (b t h w 3) or '
    '(t h w 3), or audio, floats (b s c) or (s c)'
  )


def _in_notebook() -> bool:
  shell = sys.modules.get('IPython')
  running = shell.get_ipython() if shell is not None else None
  return running is not None and hasattr(running, 'kernel')
