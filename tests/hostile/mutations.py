"""Ways to damage bytes, JSON and lines that any family can use; all follow from one generator."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator

# Values that no field expects, and some that a field may well expect but of another.
STRANGE: tuple[Any, ...] = (
  None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, float('nan'), float('inf'), -float('inf'), '',
  'x', '../../etc/passwd', '\x1b[31m', '\ud800', 'a' * 5000, [], [None], [[[[]]]], {}, {'': {}},
  '9' * 5000,
)  # fmt: skip


def pick(rng: Rng, options: Sequence[Any]) -> Any:
  """Returns one of the options, as it is."""
  return options[int(rng.integers(len(options)))]


def mutate_bytes(data: bytes, rng: Rng) -> bytes:
  """Flips bits, zeroes, repeats, drops or swaps a range, cuts the end, or adds to it."""
  if not data:
    return rng.bytes(16)
  changed = bytearray(data)
  for _ in range(1 + int(rng.geometric(0.5))):
    at = int(rng.integers(len(changed))) if changed else 0
    size = int(min(rng.geometric(0.02), max(len(changed) - at, 1)))
    match pick(
      rng, ('flip', 'flip', 'set', 'zero', 'ones', 'drop', 'repeat', 'cut', 'add', 'swap')
    ):
      case 'flip' if changed:
        changed[at] ^= 1 << int(rng.integers(8))
      case 'set':
        changed[at : at + 4] = pick(rng, (b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'\0\0\0\0'))
      case 'zero':
        changed[at : at + size] = bytes(size)
      case 'ones':
        changed[at : at + size] = b'\xff' * size
      case 'drop':
        del changed[at : at + size]
      case 'repeat':
        changed[at:at] = changed[at : at + size] * int(rng.integers(1, 4))
      case 'cut':
        del changed[at:]
      case 'add':
        changed += rng.bytes(size)
      case 'swap':
        other = int(rng.integers(len(changed) + 1))
        changed[at : at + size], changed[other : other + size] = (
          changed[other : other + size],
          changed[at : at + size],
        )
  return bytes(changed)


def mutate_value(value: Any, rng: Rng) -> Any:
  """Changes one place of a JSON value: removes, renames, repeats, replaces, or nests it deep."""
  places = list(_places(value))
  path = pick(rng, places)
  if not path:
    return pick(rng, (*STRANGE, _deep(int(rng.integers(2, 3000)))))
  changed = json.loads(json.dumps(value))
  parent = changed
  for key in path[:-1]:
    parent = parent[key]
  key = path[-1]
  match pick(rng, ('strange', 'strange', 'strange', 'drop', 'rename', 'other', 'scale', 'deep')):
    case 'drop':
      del parent[key]
    case 'rename' if isinstance(parent, dict):
      parent[pick(rng, ('', 'x', '__class__', f'{key} ', 'ü'))] = parent.pop(key)
    case 'other':
      parent[key] = _at(value, pick(rng, places))
    case 'scale' if isinstance(parent[key], int | float):
      parent[key] = parent[key] * pick(rng, (-1, 0, 0.5, 2, 1000, 10**9))
    case 'deep':
      parent[key] = _deep(int(rng.integers(2, 3000)))
    case _:
      parent[key] = pick(rng, STRANGE)
  return changed


def mutate_json(data: bytes, rng: Rng) -> bytes:
  """Damages a JSON file in its structure mostly, sometimes in its bytes."""
  if rng.random() < 0.3:
    return mutate_bytes(data, rng)
  if rng.random() < 0.1:
    return pick(rng, (b'', b'{', b'null', b'[]', b'\xff\xfe\0', b'{}', b'[' * 100_000, b'1e999'))
  try:
    value = json.loads(data)
  except ValueError:  # damaged before
    return mutate_bytes(data, rng)
  return _dumped(mutate_value(value, rng))


def mutate_lines(
  data: bytes, rng: Rng, mutate: Callable[[bytes, Rng], bytes] = mutate_bytes
) -> bytes:
  """Damages some lines of a file, drops, repeats or swaps them."""
  lines = data.split(b'\n')
  for _ in range(1 + int(rng.geometric(0.5))):
    at = int(rng.integers(len(lines)))
    match pick(rng, ('line', 'line', 'line', 'drop', 'repeat', 'swap', 'cut')):
      case 'drop' if len(lines) > 1:
        del lines[at]
      case 'repeat':
        lines.insert(at, lines[at])
      case 'swap':
        other = int(rng.integers(len(lines)))
        lines[at], lines[other] = lines[other], lines[at]
      case 'cut':
        lines[at] = lines[at][: int(rng.integers(len(lines[at]) + 1))]
      case _:
        if lines[at].strip():
          lines[at] = mutate(lines[at], rng)
  return b'\n'.join(lines)


def copy(source: Path, target: Path) -> Path:
  """Copies a file or a folder; returns the copy."""
  return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))


def _places(value: Any, path: tuple = ()) -> Any:
  yield path
  if isinstance(value, dict | list):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in items:
      yield from _places(each, (*path, key))


def _at(value: Any, path: Sequence) -> Any:
  for key in path:
    value = value[key]
  return value


def _deep(depth: int) -> Any:
  value: Any = 0
  for _ in range(min(depth, 900)):
    value = [value]
  return value


def _dumped(value: Any) -> bytes:
  return json.dumps(value).encode()
