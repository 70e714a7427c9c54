"""Where files keep numbers, so that damage can be done to those.

A parser finds the parts of a file and the numbers in them; `tests.hostile.damage` replaces numbers
by others of their length and drops, repeats and swaps parts, in every format alike.
"""

import pickletools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Part(NamedTuple):
  """A box, chunk, element or segment: where it lies, and the (place, length) of numbers in it."""

  start: int
  end: int
  numbers: list[tuple[int, int]]


Parser = Callable[[bytes], Iterator[Part]]


def _words(start: int, end: int, size: int = 4) -> list[tuple[int, int]]:
  return [(place, size) for place in range(start, end - size + 1, size)]


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
  """Parts of mp4, mov and m4a."""
  end = len(data) if end is None else end
  while start + 8 <= end:
    size, name = struct.unpack('>I4s', data[start : start + 8])
    stop = min(start + max(size, 8), end)
    if name in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'edts', b'moof', b'traf', b'mvex'):
      yield Part(start, stop, [(start, 4)])
      yield from boxes(data, start + 8, stop)
    elif name == b'mdat':
      yield Part(start, stop, [(start, 4)])
    else:
      yield Part(start, stop, [(start, 4), *_words(start + 8, min(stop, start + 200))])
    start = stop


_MASTERS = {
  0x18538067,
  0x1F43B675,
  0x1654AE6B,
  0xAE,
  0xE0,
  0xE1,
  0x1549A966,
  0x1C53BB6B,
  0xBB,
  0xB7,
  0xA0,
  0x1A45DFA3,
}
_BLOCKS = {0xA3, 0xA1}


def elements(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
  """Parts of mkv and webm."""
  end = len(data) if end is None else end
  while start < end:
    width = 9 - data[start].bit_length()
    name = int.from_bytes(data[start : start + width], 'big')
    place = start + width
    if width > 4 or place >= end or not data[place]:
      return
    long = 9 - data[place].bit_length()
    size = int.from_bytes(data[place : place + long], 'big') & ((1 << 7 * long) - 1)
    body = place + long
    if body > end:
      return
    stop = min(end, end if size == (1 << 7 * long) - 1 else body + size)
    if name in _MASTERS:
      yield Part(start, stop, [(place, long)])
      yield from elements(data, body, stop)
    elif name in _BLOCKS:
      yield Part(start, stop, [(place, long), (body, 1), (body + 1, 2), (body + 3, 1)])
    else:
      value = [(body, stop - body)] if 0 < stop - body <= 8 else []
      yield Part(start, stop, [(place, long), *value])
    start = stop


def chunks_of_png(data: bytes) -> Iterator[Part]:
  """Parts of a PNG."""
  place = 8
  while place + 12 <= len(data):
    stop = place + 12 + int.from_bytes(data[place : place + 4], 'big')
    few = min(stop - 4, place + 8 + 16)
    yield Part(place, stop, [(place, 4), *_words(place + 8, few), (few - 3, 1), (few - 5, 1)])
    place = stop


def checked_png(data: bytes) -> bytes:
  """The same with the check sums that it should have, so that damage is not found by them."""
  whole = bytearray(data)
  for part in chunks_of_png(data):
    if part.end <= len(data):
      whole[part.end - 4 : part.end] = struct.pack(
        '>I', zlib.crc32(data[part.start + 4 : part.end - 4])
      )
  return bytes(whole)


def chunks_of_riff(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
  """Parts of wav, avi and webp."""
  end = len(data) if end is None else end
  while start + 8 <= end:
    size = int.from_bytes(data[start + 4 : start + 8], 'little')
    stop = min(start + 8 + size + size % 2, end)
    nested = data[start : start + 4] in (b'RIFF', b'LIST')
    numbers = [] if nested else _words(start + 8, min(stop, start + 80), 2 + 2 * (start // 2 % 2))
    yield Part(start, stop, [(start + 4, 4), *numbers])
    if nested:
      yield from chunks_of_riff(data, start + 12, stop)
    start = stop


def head(data: bytes) -> Iterator[Part]:
  """The beginning and the end of any file, where most formats keep their numbers."""
  for start in (*range(0, min(len(data), 400), 20), max(0, len(data) - 20)):
    end = min(start + 20, len(data))
    yield Part(start, end, [*_words(start, end), *_words(start, end, 2), *_words(start, end, 1)])


def entries_of_zip(data: bytes) -> Iterator[Part]:
  """Headers of members, their entries in the list of members, and the end of the list."""
  sizes = {b'PK\3\4': 30, b'PK\1\2': 46, b'PK\5\6': 22}
  for mark, size in sizes.items():
    place = data.find(mark)
    while place >= 0:
      end = min(place + size, len(data))
      yield Part(place, end, [*_words(place + 4, end, 2), *_words(place + 14, end)])
      place = data.find(mark, place + 4)


def steps_of_pickle(data: bytes) -> Iterator[Part]:
  """Instructions of a pickle, each with its argument."""
  places = [place for *_, place in pickletools.genops(data)]
  for start, end in zip(places, [*places[1:], len(data)], strict=True):
    yield Part(start, end, [(start + 1, end - start - 1)] if 1 < end - start < 10 else [])
