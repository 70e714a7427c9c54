"""Files of safetensors, damaged in their headers mostly."""

import contextlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.core.weights.tensors import read_tensors
from tests.hostile.family import Family
from tests.hostile.mutations import Rng, mutate_bytes, mutate_json, mutate_value, pick
from tests.hostile.weight_files import BESIDE, check_origin, limited


def _write_safetensors(folder: Path) -> list[Path]:
  tensors = {
    'encoder.block.0.weight': np.arange(1, 25, dtype=np.float32).reshape(4, 6),
    'halves': np.arange(1, 9).astype(jnp.bfloat16),
    'scalar': np.asarray(np.float16(3)),
    'empty': np.zeros((0, 3), np.float32),
    'whole': np.arange(10**9, 10**9 + 4),
  }
  save_file(tensors, folder / 'all.safetensors', {'mgjax': '{"component": "x"}', 'format': 'pt'})
  floats = {name: tensors[name] for name in ('encoder.block.0.weight', 'halves', 'empty')}
  save_file(floats, folder / 'floats.safetensors')
  return [folder / 'all.safetensors', folder / 'floats.safetensors']


def _mutate_safetensors(source: Path, rng: Rng, target: Path) -> None:
  data = source.read_bytes()
  size = int.from_bytes(data[:8], 'little')
  header, rest = data[8 : 8 + size], data[8 + size :]
  length = None
  for _ in range(int(rng.geometric(0.7))):
    match pick(rng, ('json', 'value', 'value', 'field', 'field', 'length', 'rest', 'many', 'bytes',
                     'flip', 'flip')):  # fmt: skip
      case 'json' | 'value' | 'field' as kind if (parsed := _parsed(header)) is not None:
        with contextlib.suppress(RecursionError):  # too deep to be written
          changed = (_mutate_entry if kind == 'field' else mutate_value)(parsed, rng)
          header = mutate_json(header, rng) if kind == 'json' else json.dumps(changed).encode()
      case 'length':
        length = int(
          pick(rng, (0, 1, 2, size - 1, size + 1, 10**8, 10**8 + 1, 2**31, 2**40, 2**63))
        )
      case 'rest':
        rest = mutate_bytes(rest, rng)
      case 'flip' if rest:
        at = int(rng.integers(len(rest)))
        rest = rest[:at] + rng.bytes(1) + rest[at + 1 :]
      case 'many':
        header = many_entries(int(10 ** rng.uniform(2, 5.7)), rng)
      case _:
        header = mutate_bytes(header, rng)
  length = len(header) if length is None else length
  target.write_bytes(length.to_bytes(8, 'little') + header + rest)


def _parsed(header: bytes) -> dict | None:
  """What a header says, if it was not damaged before."""
  with contextlib.suppress(ValueError, RecursionError):
    parsed = json.loads(header)
    if isinstance(parsed, dict) and len(header) < 10**4:
      json.dumps(parsed)
      return parsed
  return None


def _mutate_entry(header: dict, rng: Rng) -> dict:
  """Sets the type, the shape or the place of one tensor, or gives it another's."""
  entries = [name for name, each in header.items() if isinstance(each, dict) and 'dtype' in each]
  if not entries:
    return {}
  entry = header[pick(rng, entries)]
  match pick(rng, ('dtype', 'shape', 'shape', 'place', 'place', 'other', 'name')):
    case 'dtype':
      types = ('F64', 'F32', 'F16', 'BF16', 'I64', 'I8', 'U16', 'BOOL', 'F8_E4M3', 'F8_E5M2', 'F4',
               'C64', 'E8M0', 'F6_E2M3', 'F128', '')  # fmt: skip
      entry['dtype'] = pick(rng, types)
    case 'shape':
      shapes = ([], [0], [2**40, 0], [2**63, 2], [2**32, 2**32], [1] * 100, [24], [8, 3], [-1],
                [2**64], [0.5], [2**62, 4, 0], [4, 6])  # fmt: skip
      entry['shape'] = pick(rng, shapes)
    case 'place':
      entry['data_offsets'] = [pick(rng, (0, 1, 2, 16, 96, 2**31, 2**63)) for _ in range(2)]
    case 'other':
      header[pick(rng, entries)] = entry
    case 'name':
      header[pick(rng, ('', '__metadata__', '\ud800', '\x1b[2J', 'a' * 10**4, 'ü'))] = entry
  return header


def many_entries(count: int, rng: Rng) -> bytes:
  """A header of very many tensors, axes or words."""
  empty = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
  match pick(rng, ('tensors', 'metadata', 'axes', 'spaces', 'same')):
    case 'tensors':
      return ('{' + ','.join(f'"{i}":{empty}' for i in range(count)) + '}').encode()
    case 'metadata':
      return ('{"__metadata__":{' + ','.join(f'"{i}":""' for i in range(count)) + '}}').encode()
    case 'axes':
      return ('{"a":' + empty.replace('[0]', '[0' + ',1' * count + ']') + '}').encode()
    case 'same':
      return ('{' + ','.join(f'"a":{empty}' for _ in range(count)) + '}').encode()
  return b'{' + b' ' * count + b'}'


def read_limited_safetensors(path: Path) -> None:
  """Reads a file with the memory that it may have, and checks what came back."""
  with limited(path.stat().st_size):
    found = read_tensors(path, anything=True)[0]
  check_origin(found, path)
  del found
  with limited(path.stat().st_size), contextlib.suppress(ConfigError):  # of what are no floats
    read_tensors(path)


FAMILIES = (
  Family(
    'safetensors', _write_safetensors, _mutate_safetensors, read_limited_safetensors, memory=BESIDE
  ),
)
