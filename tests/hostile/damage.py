"""Damages files by their structure: parts and numbers of formats, values of JSON, lines, bytes.

All choices are hypothesis', which repeats and shrinks what fails.
"""

import contextlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.hostile.media_formats import Parser, chunks_of_riff, steps_of_pickle

# Values that no field expects, and some that a field may well expect but of another.
STRANGE: tuple[Any, ...] = (
  None,
  True,
  -1,
  0,
  1,
  2**31,
  2**63,
  10**9,
  10**30,
  0.5,
  float('nan'),
  float('inf'),
  '',
  'x',
  '../../etc/passwd',
  '\x1b[31m',
  '\ud800',
  'a' * 5000,
  [],
  [None],
  [[[[]]]],
  {},
  {'': {}},
  '9' * 5000,
  [1, 2],
  [-1.0] * 4,
  1e300,
  'ü' * 200,
  'file:///etc/passwd',
  '\0',
  '1e999',
)
_LITTLE = (chunks_of_riff, steps_of_pickle)  # formats whose numbers begin with their lowest byte


class Draw:
  """Choices of hypothesis."""

  def __init__(self, data: st.DataObject):
    self._data = data

  def pick(self, options: Sequence[Any]) -> Any:
    return options[self._data.draw(st.integers(0, len(options) - 1))]

  def number(self, below: int) -> int:
    return self._data.draw(st.integers(0, max(below - 1, 0)))

  def bytes(self, most: int) -> bytes:
    return self._data.draw(st.binary(max_size=most))


Damage = Callable[[bytes, Draw], bytes]


def damage_bytes(data: bytes, draw: Draw) -> bytes:
  """Flips a bit, overwrites, drops or repeats a range, cuts the end, or adds to it."""
  changed, at = bytearray(data), draw.number(len(data))
  size = 1 + draw.number(min(200, len(data)))
  match draw.pick(('flip', 'set', 'zero', 'drop', 'repeat', 'cut', 'add')):
    case 'flip' if changed:
      changed[at] ^= 1 << draw.number(8)
    case 'set':
      changed[at : at + 4] = draw.pick((b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'\0\0\0\0'))
    case 'zero':
      changed[at : at + size] = bytes(size)
    case 'drop':
      del changed[at : at + size]
    case 'repeat':
      changed[at:at] = changed[at : at + size] * (1 + draw.number(4))
    case 'cut':
      del changed[at:]
    case _:
      changed[at:at] = draw.bytes(50)
  return bytes(changed)


def parts(parse: Parser, checked: Callable[[bytes], bytes] = bytes) -> Damage:
  """Damages numbers and parts as a parser finds them; `checked` mends check sums afterwards."""
  order = 'little' if parse in _LITTLE else 'big'

  def damage(data: bytes, draw: Draw) -> bytes:
    for _ in range(1 + draw.number(3)):
      found = []
      with contextlib.suppress(IndexError, ValueError, struct.error):
        found.extend(parse(data))
      what = draw.pick(('number',) * 6 + ('drop', 'repeat', 'swap', 'bytes'))
      if not found or what == 'bytes':
        data = damage_bytes(data, draw)
        continue
      part, other, changed = draw.pick(found), draw.pick(found), bytearray(data)
      if what == 'number' and part.numbers:
        place, size = draw.pick(part.numbers)
        old, top = int.from_bytes(data[place : place + size], order), 1 << 8 * size
        new = draw.pick(
          (
            0,
            1,
            top - 1,
            top // 2,
            top // 2 - 1,
            old + 1,
            old - 1,
            old << 1,
            old >> 1,
            old << 8,
            old >> 8,
            old ^ 1 << draw.number(8 * size),
            draw.number(top),
          )
        )
        changed[place : place + size] = (new % top).to_bytes(size, order)
      elif what == 'repeat':
        changed[part.end : part.end] = changed[part.start : part.end] * draw.pick((1, 2, 30, 3000))
      elif what == 'swap':
        changed[part.start : part.end] = data[other.start : other.end]
      else:
        del changed[part.start : part.end]
      data = bytes(changed[: 1 << 20])
    return checked(data) if draw.number(5) else data

  return damage


def damage_json(data: bytes, draw: Draw) -> bytes:
  """Damages JSON in its structure mostly, sometimes in its bytes."""
  try:
    value = json.loads(data)
  except (ValueError, RecursionError):  # damaged before
    value = None
  match draw.pick(('value',) * 6 + ('bytes', 'whole')) if isinstance(value, dict | list) else '':
    case 'value':
      return json.dumps(change(value, draw)).encode()
    case 'whole':
      return draw.pick((b'', b'{', b'null', b'[]', b'\xff\xfe\0', b'{}', b'[' * 100_000, b'1e999'))
  return damage_bytes(data, draw)


def change(value: Any, draw: Draw) -> Any:
  """Changes one place of a JSON value: removes, renames, replaces, scales, or nests it deep."""
  places = [path for path in _places(value) if path]
  if not places:
    return draw.pick(STRANGE)
  value = json.loads(json.dumps(value))
  parent, path = value, draw.pick(places)
  for key in path[:-1]:
    parent = parent[key]
  key = path[-1]
  match draw.pick(('strange', 'strange', 'strange', 'drop', 'rename', 'scale', 'many', 'deep')):
    case 'drop':
      del parent[key]
    case 'rename' if isinstance(parent, dict):
      parent[draw.pick(('', 'x', '__class__', f'{key} ', 'ü'))] = parent.pop(key)
    case 'scale' if isinstance(parent[key], int | float):
      parent[key] = parent[key] * draw.pick((-1, 0, 0.5, 2, 1000, 10**9))
    case 'many' if isinstance(parent[key], list) and len(parent[key]) < 100:
      parent[key] = parent[key] * draw.pick((2, 40, 2000))
    case 'deep':
      for _ in range(draw.pick((2, 100, 800))):
        parent[key] = [parent[key]]
    case _:
      parent[key] = draw.pick(STRANGE)
  return value


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
  yield path
  if isinstance(value, dict | list):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(items)[:200]:  # of a vocabulary the first words
      yield from _places(each, (*path, key))


def lines(damage: Damage = damage_bytes) -> Damage:
  """Damages a line of a file by `damage`; drops, repeats or cuts lines."""

  def damage_lines(data: bytes, draw: Draw) -> bytes:
    found = data.split(b'\n')
    for _ in range(1 + draw.number(3)):
      at = draw.number(len(found))
      match draw.pick(('line', 'line', 'line', 'drop', 'repeat', 'cut')):
        case 'drop' if len(found) > 1:
          del found[at]
        case 'repeat':
          found.insert(at, found[at])
        case 'cut':
          found[at] = found[at][: draw.number(len(found[at]) + 1)]
        case _:
          found[at] = damage(found[at], draw)
    return b'\n'.join(found)

  return damage_lines


def inside(
  take: Callable[[bytes], bytes],
  put: Callable[[bytes, bytes], bytes],
  damage: Damage,
  outside: Damage = damage_bytes,
) -> Damage:
  """Damages what `take` finds in a file and `put` puts back; in one of four the file around it."""

  def damage_inside(data: bytes, draw: Draw) -> bytes:
    return outside(data, draw) if not draw.number(4) else put(data, damage(take(data), draw))

  return damage_inside
