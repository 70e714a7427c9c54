"""Where the formats of pictures and sound keep numbers, so that damage can be done to those.

A parser of each format finds its parts and the numbers in them; one way of damage fits them all:
numbers are replaced by others of their length, parts are dropped, repeated or swapped.
"""

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.hostile.mutations import Rng, mutate_bytes, pick


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


_MASTERS = {0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1549A966, 0x1C53BB6B, 0xBB,
            0xB7, 0xA0, 0x1A45DFA3}  # fmt: skip
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


def blocks_of_gif(data: bytes) -> Iterator[Part]:
  """Parts of a GIF."""
  yield Part(6, 13, [(6, 2), (8, 2), (10, 1)])
  place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
  while place < len(data):
    start, numbers = place, []
    if data[place] == 0x21:
      numbers = [(place + 2, 1), (place + 3, 1), (place + 4, 2)]
      place += 2
    elif data[place] == 0x2C:
      numbers = [*_words(place + 1, place + 9, 2), (place + 9, 1)]
      place += 11 + (3 << (data[place + 9] & 7) + 1 if data[place + 9] & 128 else 0)
    else:
      return
    while place < len(data) and data[place]:
      numbers.append((place, 1))
      place += data[place] + 1
    place += 1
    yield Part(start, place, numbers)


def segments(data: bytes) -> Iterator[Part]:
  """Parts of a JPEG."""
  place = 2
  while place + 4 <= len(data) and data[place] == 255:
    stop = place + 2 + int.from_bytes(data[place + 2 : place + 4], 'big')
    yield Part(
      place, stop, [(place + 2, 2), *_words(place + 4, min(stop, place + 40), 2), (place + 1, 1)]
    )
    if data[place + 1] == 0xDA:
      yield Part(stop, len(data), [(stop, 1)])
      return
    place = stop


def chunks_of_png(data: bytes) -> Iterator[Part]:
  """Parts of a PNG."""
  place = 8
  while place + 12 <= len(data):
    stop = place + 12 + int.from_bytes(data[place : place + 4], 'big')
    few = min(stop - 4, place + 8 + 16)
    yield Part(place, stop, [(place, 4), *_words(place + 8, few), (few - 3, 1), (few - 5, 1)])
    place = stop


def checked_png(data: bytes) -> bytes:
  """The same with the check sums that it should have."""
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


def chunks_of_aiff(data: bytes) -> Iterator[Part]:
  """Parts of an AIFF."""
  yield Part(0, 12, [(4, 4)])
  place = 12
  while place + 8 <= len(data):
    stop = place + 8 + int.from_bytes(data[place + 4 : place + 8], 'big')
    yield Part(place, stop, [(place + 4, 4), *_words(place + 8, min(stop, place + 28), 2)])
    place = stop


def pages(data: bytes) -> Iterator[Part]:
  """Parts of an Ogg file."""
  place = 0
  while data[place : place + 4] == b'OggS' and place + 27 < len(data):
    count = data[place + 26]
    table = [(place + 27 + i, 1) for i in range(count)]
    stop = place + 27 + count + sum(data[at] for at, _ in table)
    body = _words(place + 27 + count, min(stop, place + 27 + count + 40))
    yield Part(
      place, stop, [(place + 5, 1), (place + 6, 8), (place + 14, 4), (place + 18, 4), *table, *body]
    )
    place = stop


def checked_ogg(data: bytes) -> bytes:
  """The same with the check sums that it should have."""
  whole = bytearray(data)
  for part in pages(data):
    whole[part.start + 22 : part.start + 26] = bytes(4)
    check = 0
    for byte in whole[part.start : part.end]:
      check ^= byte << 24
      for _ in range(8):
        check = (check << 1 ^ (0x04C11DB7 if check >> 31 else 0)) & 0xFFFFFFFF
    whole[part.start + 22 : part.start + 26] = struct.pack('<I', check)
  return bytes(whole)


def frames_of_mp3(data: bytes) -> Iterator[Part]:
  """Parts of an MP3, and the numbers of its first frame, which says how long it is."""
  begin = 10 + int.from_bytes(data[6:10], 'big') if data[:3] == b'ID3' else 0
  yield Part(0, begin, [(6, 4)])
  places = [at for at in range(begin, len(data) - 1) if data[at] == 255 and data[at + 1] >> 4 == 15]
  for start, end in zip(places, [*places[1:], len(data)], strict=True):
    first = _words(start + 4, min(start + 60, end)) if start == begin else []
    yield Part(start, end, [(start, 4), *first])


def blocks_of_flac(data: bytes) -> Iterator[Part]:
  """Parts of a FLAC file."""
  place, last = 4, False
  while not last and place + 4 < len(data):
    last = bool(data[place] & 128)
    stop = place + 4 + int.from_bytes(data[place + 1 : place + 4], 'big')
    fields = [(place + 4, 2), (place + 6, 2), (place + 14, 3), (place + 17, 1), (place + 18, 4)]
    yield Part(place, stop, [(place, 1), (place + 1, 3), *fields])
    place = stop
  yield Part(place, len(data), [(place, 4), (place + 4, 2)])


_LITTLE = (blocks_of_gif, chunks_of_riff, pages)


def damaged(data: bytes, rng: Rng, parse: Parser) -> bytes:
  """Changes some numbers of a file, drops, repeats or swaps its parts, or damages bytes."""
  order = 'little' if parse in _LITTLE else 'big'
  for _ in range(int(rng.geometric(0.5))):
    parts: list[Part] = []
    with contextlib.suppress(IndexError, ValueError, struct.error):
      parts.extend(each for each in parse(data))
    what = pick(rng, ('number',) * 12 + ('drop', 'repeat', 'swap', 'bytes'))
    if not parts or what == 'bytes':
      data = mutate_bytes(data, rng)
      continue
    part, changed = pick(rng, parts), bytearray(data)
    if what == 'number' and part.numbers:
      place, size = pick(rng, part.numbers)
      old, top = int.from_bytes(data[place : place + size], order), 1 << 8 * size
      new = pick(rng, (
        0, 1, top - 1, top // 2, top // 2 - 1, old + 1, old - 1, old << 1, old >> 1,
        old << int(rng.integers(1, 20)), old >> int(rng.integers(1, 20)),
        old ^ 1 << int(rng.integers(8 * size)), int(rng.integers(1 << min(8 * size, 62))),
      ))  # fmt: skip
      changed[place : place + size] = (new % top).to_bytes(size, order)
    elif what == 'drop':
      del changed[part.start : part.end]
    elif what == 'repeat':
      changed[part.end : part.end] = changed[part.start : part.end] * int(rng.integers(1, 30))
    elif what == 'swap':
      other = pick(rng, parts)
      changed[part.start : part.end], changed[other.start : other.end] = (
        changed[other.start : other.end],
        changed[part.start : part.end],
      )
    data = bytes(changed[: 1 << 20])
  return data
