"""Draws titles and keeps them as text inside the PNG of a sheet; chooses the numbers of an axis.

The font is DejaVu Sans: Latin with its accents, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian
and signs. A letter that it lacks is a box; the text inside the PNG has it.
"""

import bisect
import functools
import importlib.resources
import io
import math
import os
import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from mgjax.core.files import write_bytes

_DRAWN = 1000  # characters of a title that are looked at
_LONGEST, _MOST = 300, 64  # letters of a title in a PNG; titles


def draw_title(
  pen: ImageDraw.ImageDraw,
  position: tuple[float, float],
  title: str,
  *,
  size: int,
  width: float,
  fill: str | tuple[int, int, int] = 'black',
) -> None:
  """Draws a title on one line, from `position` = (left, top) on, cut to `width` pixels.

  Control characters are left out, and what cannot be encoded becomes '?'. Arabic is joined and
  drawn from the right where Pillow finds FriBiDi; else each letter stands alone, in the order of
  the text.
  """
  text = _fit(_clean(title), size, width)
  pen.text((position[0], position[1] + size), text, fill=fill, font=_font(size), anchor='ls')


def wrap_title(title: str, *, size: int, width: float, most: int) -> list[str]:
  """Returns a title in lines of whole words that fit, at most so many; the last keeps the rest."""
  words = _clean(title).split()
  lines = ['']
  for number, word in enumerate(words):
    longer = f'{lines[-1]} {word}'.strip()
    if title_width(longer, size) <= width or not lines[-1]:
      lines[-1] = longer
    elif len(lines) < most:
      lines.append(word)
    else:
      lines[-1] = ' '.join([lines[-1], *words[number:]])
      break
  return lines


def title_width(title: str, size: int) -> float:
  """Returns how many pixels wide a clean title is drawn."""
  return _font(size).getlength(title)


def _clean(title: str) -> str:
  title = ' '.join(title[:_DRAWN].split()).encode('utf-8', 'replace').decode()
  title = ''.join(letter for letter in title if unicodedata.category(letter) != 'Cc')
  return unicodedata.normalize('NFC', title)


def _fit(title: str, size: int, width: float) -> str:
  """The title, or as much of it as the width takes with an ellipsis."""
  if title_width(title, size) <= width:
    return title
  fits = bisect.bisect(range(len(title)), width, key=lambda n: title_width(title[:n] + '...', size))
  end = max(0, fits - 1)
  while end > 0 and unicodedata.category(title[end])[0] in 'MC':
    end -= 1  # accents and joiners stay with their letter
  return title[:end] + '...'


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  data = (
    importlib.resources.files('mgjax.data.media').joinpath('fonts', 'DejaVuSans.ttf').read_bytes()
  )
  return ImageFont.truetype(io.BytesIO(data), size)


def write_sheet(path: str | os.PathLike[str], sheet: Image.Image, titles: Sequence[str]) -> None:
  """Writes a PNG, atomically, that holds its titles as a text too."""
  info = PngImagePlugin.PngInfo()
  lines = [' '.join(title[:_LONGEST].split()).replace('\0', '') for title in titles[:_MOST]]
  info.add_itxt('Description', '\n'.join(lines).encode('utf-8', 'replace').decode())
  buffer = io.BytesIO()
  sheet.save(buffer, 'PNG', pnginfo=info)
  write_bytes(path, buffer.getvalue())


def ticks(low: float, high: float, most: int = 5) -> list[float]:
  """Returns round numbers in [low, high] of at most so many steps; one where both are the same."""
  if high == low:
    return [low]
  rough = (high - low) / most
  decade = 10.0 ** math.floor(math.log10(rough))
  step = next(decade * factor for factor in (1, 2, 5, 10) if decade * factor >= rough)
  first = math.ceil(low / step - 1e-9)
  last = math.floor(high / step + 1e-9)
  return [index * step for index in range(first, last + 1)]
