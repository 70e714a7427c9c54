"""Draws videos as one picture, a row of frames each."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mgjax.core.typing import UInt8
from mgjax.data.media.titles import draw_title, write_sheet

_SMALL = 128  # pixels up to which a small frame's longer side grows: eight fit into 1,060
_LARGE = 320  # and to which a large one's shrinks
_GAP = 4
_TITLE = 16  # pixels of the title's letters
_LINE = _TITLE + 3 * _GAP  # letters of some alphabets hang low


def contact_sheet(
  path: str | os.PathLike[str],
  videos: Sequence[UInt8[np.ndarray, '_ _ _ 3']],
  titles: Sequence[str],
  *,
  columns: int = 8,
  scale: float | None = None,
) -> None:
  """Writes a PNG with a title and up to `columns` evenly spaced frames per video, atomically.

  The first and the last frame are always among them. Frames are drawn by `scale`; by default small
  ones grow by a whole number, without smoothing, up to 128 pixels, and large ones shrink to 320.
  """
  if not videos or len(videos) != len(titles):
    raise ValueError(f'expected a title for each video, got {len(videos)} and {len(titles)}')
  rows = [
    [draw_frame(video[i], scale=scale) for i in _spread(len(video), columns)] for video in videos
  ]
  width = max(_GAP + sum(frame.width + _GAP for frame in row) for row in rows)
  heights = [_LINE + row[0].height + _GAP for row in rows]
  sheet = Image.new('RGB', (width, sum(heights)), 'white')
  pen = ImageDraw.Draw(sheet)
  y = 0
  for row, title, height in zip(rows, titles, heights, strict=True):
    draw_title(pen, (_GAP, y + _GAP), title, size=_TITLE, width=width - 2 * _GAP)
    x = _GAP
    for frame in row:
      sheet.paste(frame, (x, y + _LINE))
      x += frame.width + _GAP
    y += height
  write_sheet(path, sheet, titles)


def _spread(length: int, columns: int) -> list[int]:
  """Evenly spaced frame numbers, the first and the last among them."""
  return np.linspace(0, length - 1, min(length, columns)).round().astype(int).tolist()


def draw_frame(
  frame: UInt8[np.ndarray, 'h w 3'],
  small: int = _SMALL,
  large: int = _LARGE,
  scale: float | None = None,
) -> Image.Image:
  """Draws a frame by `scale`, or grown by a whole number up to `small`, or shrunk to `large`.

  Both are pixels of the longer side; sizes between them stay.
  """
  image = Image.fromarray(np.ascontiguousarray(frame))
  longer = max(image.size)
  if scale is None:
    scale = max(1, small // longer) if longer <= large else large / longer
  size = tuple(max(1, round(side * scale)) for side in image.size)
  return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
