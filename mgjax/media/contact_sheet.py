"""Draws videos as one picture, a row of frames each."""

import bisect
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgjax.core.typing import UInt8
from mgjax.media.sheet_titles import write_sheet

_LEAST = 96  # pixels of a frame's longer side, below which a person sees little
_MOST = 320  # and above which the sheet is only heavier
_GAP = 4
_TITLE = 14  # pixels of the title's letters
_LINE = _TITLE + 2 * _GAP


def contact_sheet(
  path: str | os.PathLike[str],
  videos: Sequence[UInt8[np.ndarray, '_ _ _ 3']],
  titles: Sequence[str],
  *,
  columns: int = 8,
  scale: float | None = None,
) -> None:
  """Writes a PNG with a title and up to `columns` evenly spaced frames per video, atomically.

  Args:
    path: the PNG.
    videos: uint8 (t h w 3) of any sizes, one row each; the first and the last frame are always
      among those drawn.
    titles: one per video, cut where they would leave the sheet.
    columns: frames per row; a video with fewer shows what it has.
    scale: size of a drawn frame over that of the video. By default small frames grow by a whole
      number, without smoothing, to 96 pixels or more, and large ones shrink to 320.
  """
  if not videos or len(videos) != len(titles):
    raise ValueError(f'expected a title for each video, got {len(videos)} and {len(titles)}')
  rows = [[_draw(video[i], scale) for i in _spread(len(video), columns)] for video in videos]
  width = max(_GAP + sum(frame.width + _GAP for frame in row) for row in rows)
  heights = [_LINE + row[0].height + _GAP for row in rows]
  sheet = Image.new('RGB', (width, sum(heights)), 'white')
  pen = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(_TITLE)
  top = 0
  for row, title, height in zip(rows, titles, heights, strict=True):
    pen.text((_GAP, top + _GAP), fit_title(title, font, width - 2 * _GAP), fill='black', font=font)
    left = _GAP
    for frame in row:
      sheet.paste(frame, (left, top + _LINE))
      left += frame.width + _GAP
    top += height
  write_sheet(path, sheet, titles)


def _spread(length: int, columns: int) -> list[int]:
  """Evenly spaced frame numbers, the first and the last among them."""
  return np.linspace(0, length - 1, min(length, columns)).round().astype(int).tolist()


def _draw(frame: UInt8[np.ndarray, 'h w 3'], scale: float | None) -> Image.Image:
  image = Image.fromarray(np.ascontiguousarray(frame))
  longer = max(image.size)
  if scale is None:
    scale = -(-_LEAST // longer) if longer < _LEAST else min(1.0, _MOST / longer)
  size = tuple(max(1, round(side * scale)) for side in image.size)
  return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def fit_title(title: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
  """The title on one line that ends where the sheet does; what cannot be encoded becomes '?'."""
  title = ' '.join(title[:1000].split()).replace('\0', '').encode('utf-8', 'replace').decode()
  if font.getlength(title) <= width:
    return title
  fits = bisect.bisect(range(len(title)), width, key=lambda n: font.getlength(title[:n] + '...'))
  return title[: max(0, fits - 1)] + '...'
