"""Writes pictures for people: small ones enlarged, and several videos in one animation."""

import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mgjax.core.files import write_bytes
from mgjax.core.typing import UInt8
from mgjax.data.media.contact_sheet import contact_sheet, draw_frame
from mgjax.data.media.titles import draw_title, wrap_title
from mgjax.data.media.video import write_video

FILES = ('.mp4', '.gif', '.webp', '.png')  # of one video
_LEAST = 256  # pixels of the longer side, below which a player shows a stamp
_TILE = 192  # pixels of a video's longer side in an animation, at most
_PIXELS = 100_000_000  # of all frames of an animation, which are held at once
_GAP = 4
_COLUMNS = 4  # of an animation
_TITLE = 12  # pixels of the title's letters
_LINE = _TITLE + _GAP
_LINES = 5  # of a title, at most
_FASTEST = 90  # frames a second of a .webp: browsers show those of 10 ms and less for 100 ms
_ROUNDING = 1e-6  # of a frame
_EXACT = 400_000  # bytes of an animation that keeps every pixel's colour, at most

_Video = UInt8[np.ndarray, '_ _ _ 3']


def viewing_scale(height: int, width: int) -> int:
  """Returns the least whole number that makes the longer side 256 pixels or more."""
  return -(-_LEAST // max(height, width))


def enlarged(video: _Video, scale: int) -> _Video:
  """Returns a video with every row and column repeated `scale` times."""
  return video.repeat(scale, 1).repeat(scale, 2)


def write_clip(
  path: str | os.PathLike[str], video: _Video, fps: float, scale: int | None = None
) -> None:
  """Writes a video (t h w 3) as .mp4, or one of a single frame as .png, large enough to be seen.

  Each row and column is repeated `scale` times, by default `viewing_scale`.
  """
  scale = scale or viewing_scale(*video.shape[1:3])
  if len(video) > 1:
    write_video(path, video, fps, scale)
  else:
    buffer = io.BytesIO()
    Image.fromarray(enlarged(video, scale)[0]).save(buffer, 'PNG')
    write_bytes(path, buffer.getvalue())


def write_file(
  path: str | os.PathLike[str], video: _Video, fps: float, scale: int | None = None
) -> None:
  """Writes a video (t h w 3) as the file that its suffix names, one of `FILES`.

  An .mp4 or a .png of one frame is as of `write_clip`. A .png of several frames is a picture of
  some of them. A .gif and a .webp play for ever, at 50 and 90 frames a second at most.
  """
  path = pathlib.Path(path)
  kind = path.suffix.lower()
  if kind == '.png' and len(video) > 1:
    contact_sheet(path, [video], [path.stem])
  elif kind == '.png':
    write_clip(path, video, fps, scale)
  elif kind == '.mp4':
    write_video(path, video, fps, scale or viewing_scale(*video.shape[1:3]))
  else:
    # Milliseconds that the format counts in, and the rate above which browsers slow it down.
    unit, most = (10, 50) if kind == '.gif' else (1, _FASTEST)
    rate = min(fps, most)
    starts = np.arange(max(1, int(len(video) / fps * rate + _ROUNDING))) / rate
    selected = video[(starts * fps + _ROUNDING).astype(int)]
    large = enlarged(selected, scale or viewing_scale(*video.shape[1:3]))
    ends = np.round(np.append(starts, len(video) / fps) * 1000 / unit).astype(int) * unit
    pages = [Image.fromarray(frame) for frame in large]
    write_bytes(path, _animated(pages, np.diff(ends).tolist(), kind[1:].upper(), lossless=True))


def write_sheets(
  path: str | os.PathLike[str],
  videos: Sequence[_Video],
  titles: Sequence[str],
  fps: float | Sequence[float],
) -> list[pathlib.Path]:
  """Writes a contact sheet .png and, if any video has several frames, an animation .webp beside it.

  `fps` is that of all or of each video. Returns the paths of what was written.
  """
  contact_sheet(path, videos, titles)
  paths = [pathlib.Path(path)]
  if any(len(video) > 1 for video in videos):
    paths.append(paths[0].with_suffix('.webp'))
    write_animation(paths[-1], videos, titles, fps)
  return paths


def write_animation(
  path: str | os.PathLike[str],
  videos: Sequence[_Video],
  titles: Sequence[str],
  fps: float | Sequence[float],
) -> None:
  """Writes a WebP in which all videos, of any sizes, play at once, each below its title, for ever.

  Small videos grow by a whole number, up to 192 pixels, and keep every pixel's colour; where one
  has to shrink to that, or 400 kB do not hold them, all are compressed with loss. A shorter one
  waits at its end for the rest. Titles have up to five lines. `fps` is that of all or of each
  video; the animation has the highest, up to 90, or fewer frames where it would hold more than 100
  million pixels.
  """
  rates = [fps] * len(videos) if isinstance(fps, int | float) else list(fps)
  seconds = max(len(video) / rate for video, rate in zip(videos, rates, strict=True))
  tiles = [draw_frame(video[0], _TILE, _TILE) for video in videos]
  width, height = (max(frame.size[axis] for frame in tiles) + _GAP for axis in (0, 1))
  columns = min(_COLUMNS, len(videos))
  rows = -(-len(videos) // columns)
  lines = [wrap_title(title, size=_TITLE, width=width - _GAP, most=_LINES) for title in titles]
  head = _LINE * max(map(len, lines)) + 2 * _GAP
  page = Image.new('RGB', (columns * width + _GAP, rows * (height + head)), 'white')
  count = max(
    1, min(round(seconds * min(_FASTEST, max(rates))), _PIXELS // (page.width * page.height))
  )
  pen = ImageDraw.Draw(page)
  positions = []
  for index, title in enumerate(lines):
    column_left = _GAP + index % columns * width
    top = index // columns * (height + head)
    for number, line in enumerate(title):
      draw_title(
        pen, (column_left, top + _GAP + number * _LINE), line, size=_TITLE, width=width - _GAP
      )
    positions.append((column_left, top + head))
  pages = []
  for number in range(count):
    pages.append(page.copy())
    moment = (number + 0.5) * seconds / count
    for position, video, rate in zip(positions, videos, rates, strict=True):
      frame = video[min(int(moment * rate), len(video) - 1)]
      pages[-1].paste(draw_frame(frame, _TILE, _TILE), position)
  ends = np.round(np.arange(count + 1) * seconds / count * 1000).astype(int)
  exact = all(max(video.shape[1:3]) <= _TILE for video in videos)
  data = _animated(pages, np.diff(ends).tolist(), 'WEBP', lossless=True) if exact else b''
  if not 0 < len(data) <= _EXACT:
    data = _animated(pages, np.diff(ends).tolist(), 'WEBP', lossless=False)
  write_bytes(path, data)


def _animated(
  pages: Sequence[Image.Image], durations: Sequence[int], kind: str, lossless: bool
) -> bytes:
  buffer = io.BytesIO()
  pages[0].save(
    buffer,
    kind,
    save_all=True,
    append_images=pages[1:],
    duration=list(durations),
    loop=0,
    lossless=lossless,
    quality=80,
    method=2,
  )
  return buffer.getvalue()
