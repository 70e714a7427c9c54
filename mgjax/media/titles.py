"""Draws titles in the alphabets that prompts are written in, right to left where they are so."""

import bisect
import functools
import importlib.util
import itertools
import pathlib
import struct
import unicodedata

import numpy as np
from PIL import ImageDraw, ImageFont

# Of packages, the font whose glyph is taken first; the others follow by their names.
_PACKAGES = {
  'manimgx_fonts': 'NotoSans[wght].ttf',
  'pylopdf_fonts_jp': 'NotoSansJP-Regular.otf',
  'pylopdf_fonts_zh_cn': 'NotoSansSC-Regular.otf',
  'pylopdf_fonts_ko': 'NotoSansKR-Regular.otf',
}
_LONGEST = 1000  # characters of a title that are looked at

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def draw_title(
  pen: ImageDraw.ImageDraw,
  place: tuple[float, float],
  title: str,
  *,
  size: int,
  width: float,
  fill: str | tuple[int, int, int] = 'black',
) -> None:
  """Draws a title on one line, each of its letters in a font that has it.

  Letters that no installed font has are drawn as a box. Arabic letters are joined and Indic ones
  put in order where Pillow finds FriBiDi; else each letter stands alone.

  Args:
    pen: of the picture.
    place: (left, top) of the line.
    title: any text; control characters are left out, and what cannot be encoded becomes '?'.
    size: of the letters in pixels.
    width: pixels at which the title is cut.
    fill: its colour.
  """
  left, baseline = place[0], place[1] + size
  for text, font, backwards in _runs(_fit(_clean(title), size, width), size):
    options = _layout(font, backwards)
    text = text[::-1] if backwards and not options else text
    pen.text((left, baseline), text, fill=fill, font=font, anchor='ls', **options)
    left += font.getlength(text, **options)


def title_width(title: str, size: int) -> float:
  """Returns how many pixels wide a clean title is drawn."""
  return sum(font.getlength(text, **_layout(font, back)) for text, font, back in _runs(title, size))


def _clean(title: str) -> str:
  title = ' '.join(title[:_LONGEST].split()).encode('utf-8', 'replace').decode()
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


def _layout(font: Font, backwards: bool) -> dict:
  shapes = getattr(font, 'layout_engine', None) == ImageFont.Layout.RAQM
  return {'direction': 'rtl' if backwards else 'ltr'} if shapes else {}


def _runs(title: str, size: int) -> list[tuple[str, Font, bool]]:
  """Cuts a title where its font or direction changes; from left to right, as they are drawn."""
  backwards, base = _directions(title)
  runs, start = [], 0
  for turned, group in itertools.groupby(backwards):
    text = title[start : start + len(list(group))]
    start += len(text)
    parts = [(part, font, turned) for part, font in _by_font(text, size)]
    runs.append(parts[::-1] if turned else parts)
  return [part for run in (runs[::-1] if base else runs) for part in run]


def _directions(title: str) -> tuple[list[bool], bool]:
  """Whether each character, and the title as a whole, goes from right to left.

  The rules of Unicode's UAX 9 as far as titles need them: letters decide, numbers follow the letter
  before them, and what stands between two directions takes the title's, which its first letter has.
  """
  strong = {'L': False, 'R': True, 'AL': True}
  found: list[bool | None] = []
  last = None
  for letter in title:
    kind = unicodedata.bidirectional(letter)
    last = strong.get(kind, last)
    found.append(last if kind in strong or kind in ('EN', 'AN', 'NSM') else None)
  base = next((each for each in found if each is not None), False)
  before, after = _filled(found, base), _filled(found[::-1], base)[::-1]
  return [a if a == b else base for a, b in zip(before, after, strict=True)], base


def _filled(found: list[bool | None], first: bool) -> list[bool]:
  keep = lambda last, each: last if each is None else each  # noqa: E731
  return list(itertools.accumulate(found, keep, initial=first))[1:]


def _by_font(text: str, size: int) -> list[tuple[str, Font]]:
  """Cuts a text where no font has all; digits, points and accents stay with what they follow."""
  paths: list[pathlib.Path | None] = []
  for letter in text:
    last = paths[-1] if paths else None
    stays = last and unicodedata.category(letter)[0] not in 'LZ' and _has(last, letter)
    paths.append(last if stays else _find(letter))
  start, parts = 0, []
  for path, group in itertools.groupby(paths):
    end = start + len(list(group))
    parts.append((text[start:end], _open(path, size)))
    start = end
  return parts


@functools.cache
def _open(path: pathlib.Path | None, size: int) -> Font:
  return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@functools.cache
def _fonts() -> list[pathlib.Path]:
  """The fonts of the packages that are installed, in the order in which a letter is sought."""
  firsts, others = [], []
  for package, first in _PACKAGES.items():
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
      paths = sorted(pathlib.Path(folder).glob('NotoSans*.[to]tf'))
      firsts += [path for path in paths if path.name == first]
      others += [path for path in paths if path.name != first and 'Italic' not in path.name]
      others += sorted(pathlib.Path(folder).glob('NotoEmoji*.ttf'))
  return firsts + others


@functools.lru_cache(4096)
def _find(letter: str) -> pathlib.Path | None:
  """The first font that has a letter; if none has, the first, which draws its box."""
  fonts = _fonts()
  return next((path for path in fonts if _has(path, letter)), fonts[0] if fonts else None)


def _has(path: pathlib.Path, letter: str) -> bool:
  starts, ends = _characters(path)
  place = bisect.bisect(starts, ord(letter)) - 1
  return place >= 0 and ord(letter) <= ends[place]


@functools.cache
def _characters(path: pathlib.Path) -> tuple[list[int], list[int]]:
  """The first and the last of each range of characters in a font's table `cmap` (OpenType)."""
  data = path.read_bytes()
  (count,) = struct.unpack_from('>H', data, 4)
  tables = (struct.unpack_from('>4s4xI', data, 12 + 16 * i) for i in range(count))
  cmap = next(offset for name, offset in tables if name == b'cmap')
  (count,) = struct.unpack_from('>H', data, cmap + 2)
  places = (cmap + struct.unpack_from('>4xI', data, cmap + 4 + 8 * i)[0] for i in range(count))
  kinds = {struct.unpack_from('>H', data, place)[0]: place for place in places}
  if 12 in kinds:  # with the characters beyond the first 65,536
    (count,) = struct.unpack_from('>I', data, kinds[12] + 12)
    groups = np.frombuffer(data, '>u4', 3 * count, kinds[12] + 16).reshape(-1, 3)
    return groups[:, 0].tolist(), groups[:, 1].tolist()
  (count,) = struct.unpack_from('>H', data, kinds[4] + 6)
  ends = np.frombuffer(data, '>u2', count // 2, kinds[4] + 14)
  starts = np.frombuffer(data, '>u2', count // 2, kinds[4] + 16 + count)
  return starts.tolist()[:-1], ends.tolist()[:-1]  # the last one only ends the table
