"""Small files of tensors that make as much of themselves as the limits let them."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.family import Family
from tests.hostile.mutations import Rng, pick
from tests.hostile.weight_files import BESIDE, read_guarded_pickle
from tests.hostile.weight_headers import many_entries, read_limited_safetensors
from tests.torch_files import Storage, dumps, tensor, write

_REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'
_WIDE = b'\xf0\x9f\x98\x80'  # one such character, and a text takes four bytes for each


def _text(data: bytes) -> bytes:
  return b'X' + struct.pack('<I', len(data)) + data


def _storage(key: bytes, count: int) -> bytes:
  where = b'ctorch\nFloatStorage\n' + _text(key) + _text(b'cpu')
  return b'(' + _text(b'storage') + where + b'J' + struct.pack('<i', count) + b'tQ'


def _tensors(count: int, numbers: int, last: bytes) -> bytes:
  """One tensor of eight axes again and again, by 5 bytes a time."""
  sizes = b'(' + b'K\x01' * 7 + last + b't'
  arguments = b'(' + _storage(b'0', numbers) + b'K\x00' + sizes * 2 + b'\x89)t'
  return _REBUILD + b'q\x00' + arguments + b'q\x01' + b'h\x00h\x01R' * (count // 3)


_PICKLES: dict[str, Callable[[int], bytes]] = {
  'lists': lambda n: b']' * n,
  'dictionaries': lambda n: b'}' * n,
  'full lists': lambda n: b']Na' * (n // 3),
  'full dictionaries': lambda n: b'}NNs' * (n // 4),
  'ordered dictionaries': lambda n: b'ccollections\nOrderedDict\nq\x00' + b'h\x00)R' * (n // 3),
  'tuples': lambda n: b')\x85' * (n // 2),
  'deep': lambda n: b')' + b'\x85' * n,
  'deep lists': lambda n: b']' * n + b'a' * (n - 1),
  'remembered': lambda n: b']\x94' * (n // 2),
  'marks': lambda n: b'(' * n,
  'numbers': lambda n: b'G\1\1\1\1\1\1\1\1' * n,
  'names': lambda n: b''.join(b'c%02x\n%05x\n' % (i % 256, i) for i in range(n)),
  'texts': lambda n: b''.join(_text(b'%05x' % i) for i in range(n)),
  'wide texts': lambda n: _text(_WIDE + b'a') * n,
  'long text': lambda n: _text(_WIDE + b'a' * (40 * n)),
  'tensors': lambda n: _tensors(n, 1 << 19, b'K\x01'),
  'empty tensors': lambda n: _tensors(n, 1 << 19, b'K\x00'),
}


def _seeds(folder: Path) -> list[Path]:
  safetensors = folder / 'bomb.safetensors'
  safetensors.write_bytes(b'\2' + bytes(7) + b'{}')
  return [write(folder / 'bomb.pt', dumps({})), safetensors]


def _mutate(source: Path, rng: Rng, target: Path) -> None:
  if source.suffix == '.safetensors':
    header = many_entries(int(rng.integers(20_000, 160_000)), rng)
    if rng.random() < 0.4:
      text = pick(rng, (_WIDE, b'\\ud83d\\ude00', b'')) + b'a' * int(rng.integers(26 << 20))
      header = pick(rng, (b'{"__metadata__":{"a":"%b"}}', b'{"__metadata__":{"%b":""}}')) % text
    target.write_bytes(len(header).to_bytes(8, 'little') + header)
    return
  kind = pick(rng, (*_PICKLES, 'tied', 'storages', 'members'))
  count = int(rng.integers(100_000, 440_000))
  match kind:
    case 'tied':
      numbers = np.arange(40 * count, dtype=np.float32)
      whole = tensor(Storage('FloatStorage', 0, numbers.size), 0, numbers.shape, (1,))
      write(target, dumps({str(i): whole for i in range(int(rng.integers(1, 4)))}), [numbers])
    case 'storages':
      keys = range(count // 14)
      stream = b''.join(_storage(b'%d' % key, 1) for key in keys)
      write(target, b'\x80\x02' + stream + b'.', [np.ones(1, np.float32)] * len(keys))
    case 'members':
      with zipfile.ZipFile(target, 'w') as archive:
        archive.writestr('/data.pkl', b'\x80\x02}.')
        for i in range(count // 10):
          archive.writestr(zipfile.ZipInfo(f'{i:x}'), b'')
    case _:
      write(target, b'\x80\x02' + _PICKLES[kind](count) + b'.', [np.ones(1 << 19, np.float32)])


def _read(path: Path) -> None:
  (read_limited_safetensors if path.suffix == '.safetensors' else read_guarded_pickle)(path)


FAMILIES = (Family('weight bombs', _seeds, _mutate, _read, memory=BESIDE),)
