"""PyTorch's files of tensors, damaged in their instructions and their lists of members.

What is read from them lies right before a page that nobody may read, and every number that comes
back must stand in the file.
"""

import contextlib
import ctypes
import io
import mmap
import pickletools
import resource
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import MgjaxError
from mgjax.core.weights.tensors import Tensors
from mgjax.core.weights.torch_pickle import read_pickle
from tests.hostile.family import Family, Silent
from tests.hostile.mutations import Rng, mutate_bytes, pick
from tests.torch_files import Named, Storage, dumps, tensor, write

BESIDE = 100 << 20  # bytes that a reader may need beside three times the file
_CANARY = b'\xa5'
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_INTEGERS = (
  0, 1, 2, 3, 4, 5, 7, 8, 12, 13, 255, 256, 2**16, 2**31 - 1, 2**32, 2**40, 2**61, 2**62, 2**63 - 1,
  -1, -2, -(2**31), -(2**63),
)  # fmt: skip
# Instructions whole with their arguments, and some that lie about the length of theirs.
_STEPS = (
  b'0', b'1', b'2', b'(', b')', b']', b'}', b'\x8f', b'a', b'e', b's', b'u', b'\x90', b'\x91', b't',
  b'\x85', b'\x86', b'\x87', b'l', b'd', b'R', b'b', b'o', b'\x81', b'\x92', b'Q', b'N', b'\x88',
  b'\x89', b'\x94', b'\x93', b'\x97', b'\x98', b'.', b'I01\n', b'L99L\n', b'F1e999\n', b'S"x"\n',
  b'Vx\n', b'P1\n', b'g0\n', b'p0\n', b'h\x00', b'h\x01', b'q\x00', b'q\x01', b'j\x05\x00\x00\x00',
  b'r\xff\xff\xff\x7f', b'K\x07', b'J\xff\xff\xff\xff', b'M\xff\xff', b'G\x7f\xf8\0\0\0\0\0\0',
  b'\x8a\x00', b'\x8a\xff' + b'\xff' * 255, b'\x8b\xff\xff\xff\x7f', b'\x8b\x04\0\0\0\1\1\1\1',
  b'X\xff\xff\xff\x7f', b'X\x03\0\0\0\xed\xa0\x80', b'\x8c\x01a', b'\x8d\xff\xff\xff\xff\0\0\0\0a',
  b'\x8e\xff\xff\xff\xff\xff\xff\xff\x7f', b'\x96\x00\0\0\0\1\0\0\0', b'B\xff\xff\xff\xff',
  b'\x95\xff\xff\xff\xff\xff\xff\xff\xff', b'\x82\x01', b'cos\nsystem\n', b'cbuiltins\neval\n',
  b'ccollections\nOrderedDict\n', b'ctorch._utils\n_rebuild_tensor_v2\n', b'ctorch\nLongStorage\n',
  b'ctorch._utils\n_rebuild_parameter\n', b'ios\nsystem\n', b'cnumpy\nndarray\n', b'\x80\xff',
)  # fmt: skip
_REPEATED = (
  b']', b'}', b'(', b')', b'N', b'\x85', b'\x86', b'2', b'h\x00', b'h\x01\x85', b'2\x86', b')\x94',
  b'}\x94', b'K\x01', b'h\x02)R', b'\x8c\x02ab', b']N', b'Q', b'R',
)  # fmt: skip
_ATTRIBUTES = (b'numbers', b'left', b'data', b'count', b'dtype', b'shape', b'strides', b'keys',
               b'__class__', b'__dict__', b'__code__', b'__defaults__', b'_metadata')  # fmt: skip
# A deep key and a wide one, whose hash or print overflows the stack or never ends; what holds
# itself; a tensor that says it is very long and has no bytes.
_DEEP, _WIDE = b')' + b'\x85' * 300_000, b')' + b'2\x86' * 64
_TWICE = b''.join(b'q\xf0h\xf0h\xf0\x86' for _ in range(64))
_LONG = (b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nLongStorage\n'
         b'X\x01\0\0\x002X\x03\0\0\0cpuK\x06tQK\x00K\x06K\x00\x86K\x01K\x01\x86'
         b'\x89)tR')  # fmt: skip
_VALUES = (
  _LONG, b'}' + _DEEP + b'Ns', b'}' + _WIDE + b'Ns', b'})' + _TWICE + b'Ns', _DEEP, _WIDE,
  b')' + _TWICE, b'}q\xf0h\xf0Ns', b']q\xf0h\xf0a',
  b'}q\xf0X\x01\0\0\0ah\xf0s', b']', b'}', b'N', b'\x88',
)  # fmt: skip


def write_pickles(folder: Path) -> list[Path]:
  """Whole files of tied, turned, empty and scalar tensors, of all protocols."""
  numbers = np.arange(1, 25, dtype=np.float32)
  halves = np.arange(1, 9).astype(jnp.bfloat16)
  whole = np.arange(10**9, 10**9 + 6)
  found = OrderedDict({
    'plain.weight': tensor(Storage('FloatStorage', 0, 24), 0, (2, 3, 4), (12, 4, 1)),
    'turned.weight': tensor(Storage('FloatStorage', 0, 24), 1, (2, 3), (1, 4)),
    'tied': tensor(Storage('BFloat16Storage', 1, 8), 0, (8,), (1,)),
    'tied.again': tensor(Storage('BFloat16Storage', 1, 8), 4, (4,), (1,)),
    'steps': tensor(Storage('LongStorage', 2, 6), 5, (), ()),
    'empty': tensor(Storage('LongStorage', 2, 6), 0, (0, 3), (3, 1)),
    'same': tensor(Storage('LongStorage', 2, 6), 2, (2, 2), (0, 1)),
  })  # fmt: skip
  parameter = Named('torch._utils', '_rebuild_parameter', found['plain.weight'], True, None)
  paths = []
  for protocol in range(2, 6):
    about = {'kwargs': {'strides': [2, 8], 'name': 'x' * 300, 'rate': 0.5, 'big': 2**40}}
    state = {'state_dict': dict(found), 'metadata': about}
    for name, each in (('state', state), ('parameter', {'a': parameter, 'b': found['tied']})):
      path = folder / f'{name}{protocol}.pt'
      paths.append(write(path, dumps(each, protocol), (numbers, halves, whole)))
  return paths


def mutate_pickle(source: Path, rng: Rng, target: Path) -> None:
  """Damages instructions, storages, fields of the list of members, or any bytes."""
  data = source.read_bytes()
  for _ in range(int(rng.geometric(0.7))):
    match pick(rng, ('steps', 'steps', 'steps', 'steps', 'members', 'fields', 'fields', 'bytes')):
      case 'bytes':
        data = mutate_bytes(data, rng)
      case 'fields':
        data = _mutate_fields(data, rng)
      case kind:
        data = _mutate_members(data, kind, rng)
  target.write_bytes(data)


def _mutate_members(data: bytes, kind: str, rng: Rng) -> bytes:
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = [(each.filename, archive.read(each)) for each in archive.infolist()]
  except Exception:  # it is damaged enough
    return data
  compression = zipfile.ZIP_STORED
  if kind == 'steps':
    members = [
      (name, mutate_steps(held, rng) if name.endswith('.pkl') else held) for name, held in members
    ]
  elif members:
    at = int(rng.integers(len(members)))
    name, held = members[at]
    match pick(rng, ('drop', 'twice', 'rename', 'more', 'less', 'change', 'deflate', 'many')):
      case 'drop':
        del members[at]
      case 'twice':
        members.append((pick(rng, members)[0], held))
      case 'rename':
        members[at] = (
          pick(rng, ('x', 'archive/data/9', 'archive/data/../0', '\x1b[31m', '')),
          held,
        )
      case 'more':
        members[at] = (name, held + rng.bytes(int(rng.integers(1, 64))))
      case 'less':
        members[at] = (name, held[: int(rng.integers(len(held) + 1))])
      case 'change':
        members[at] = (name, mutate_bytes(held, rng))
      case 'deflate':
        compression = zipfile.ZIP_DEFLATED
        members[at] = (name, held + bytes(int(10 ** rng.uniform(3, 7))))
      case 'many':
        members += [(f'archive/data/{i}', held) for i in range(int(10 ** rng.uniform(1, 3.5)))]
  file = io.BytesIO()
  with warnings.catch_warnings(), zipfile.ZipFile(file, 'w', compression) as archive:
    warnings.simplefilter('ignore')  # of two members of one name
    for name, held in members:
      archive.writestr(zipfile.ZipInfo(name), held, compression)
  return file.getvalue()


def mutate_steps(pickled: bytes, rng: Rng) -> bytes:
  """Damages the instructions of a pickle and their arguments."""
  steps = _split(pickled)
  for _ in range(int(rng.geometric(0.5))):
    at = int(rng.integers(len(steps)))
    match pick(rng, ('number', 'number', 'number', 'other', 'other', 'step', 'step', 'insert',
                     'drop', 'swap', 'copy', 'many', 'bytes', 'attribute', 'value')):  # fmt: skip
      case 'number':  # of the sizes, offsets and strides of a tensor most of all
        numbers = [i for i, step in enumerate(steps) if step[:1] in (b'K', b'M', b'J', b'\x8a')]
        if numbers:
          steps[pick(rng, numbers)] = _number(int(pick(rng, _INTEGERS)))
      case 'other':
        steps[at] = pick(rng, steps)
      case 'step':
        steps[at] = pick(rng, _STEPS)
      case 'insert':
        steps[at:at] = [pick(rng, (*_STEPS, *steps)) for _ in range(int(rng.integers(1, 5)))]
      case 'drop':
        del steps[at : at + int(rng.geometric(0.5))]
      case 'swap':
        other = int(rng.integers(len(steps)))
        steps[at], steps[other] = steps[other], steps[at]
      case 'copy':
        end = at + int(rng.geometric(0.05))
        steps[at:at] = steps[at:end] * int(10 ** rng.uniform(0, 3))
      case 'many':
        steps[at:at] = [pick(rng, _REPEATED) * int(10 ** rng.uniform(1, 6))]
      case 'attribute':  # of a storage, a tensor, a class or whatever is on top
        name = pick(rng, _ATTRIBUTES)
        value = pick(rng, (*_VALUES, b'h' + rng.bytes(1), b'h\x0f'))
        state = b'}\x8c' + bytes([len(name)]) + name + value + b's'
        steps[at:at] = [pick(rng, (state, b'N' + state + b'\x86')) + b'b']
      case 'value':
        steps[at] = pick(rng, _VALUES)
      case 'bytes':
        steps[at] = mutate_bytes(steps[at], rng)
    steps = steps or [b'.']
  return b''.join(steps)


def _split(pickled: bytes) -> list[bytes]:
  """Cuts a pickle between its instructions, as far as they can be read."""
  places = []
  with contextlib.suppress(Exception):
    places.extend(place for *_, place in pickletools.genops(pickled))
  places = places or [0]
  ends = [*places[1:], len(pickled)]
  return [pickled[start:end] for start, end in zip(places, ends, strict=True)]


def _number(value: int) -> bytes:
  if 0 <= value < 256:
    return b'K' + bytes([value])
  if -(2**31) <= value < 2**31:
    return b'J' + struct.pack('<i', value)
  return b'\x8a\x09' + value.to_bytes(9, 'little', signed=True)


def _mutate_fields(data: bytes, rng: Rng) -> bytes:
  """Sets a field of a member's header, of its entry in the list, or of the end of the list."""
  kinds = {  # offset and width of each field
    b'PK\3\4': ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b'PK\1\2': ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2),
                (42, 4)),
    b'PK\5\6': ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
  }  # fmt: skip
  mark = pick(rng, [*kinds])
  places = [at for at in range(len(data)) if data.startswith(mark, at)]
  if not places:
    return data
  offset, width = pick(rng, kinds[mark])
  at = pick(rng, places) + offset
  highest = 256**width - 1
  now = int.from_bytes(data[at : at + width], 'little')
  there = pick(rng, places) + offset
  value = pick(
    rng,
    (0, 1, 8, highest, highest // 2, now + 1, now - 1, now * 2, len(data), highest - now,
     int.from_bytes(data[there : there + width], 'little')),
  )  # fmt: skip
  return data[:at] + (value & highest).to_bytes(width, 'little') + data[at + width :]


def read_guarded_pickle(path: Path) -> Tensors:
  """Reads a pickle with all guards up, and checks what came back."""
  with _guarded(), limited(path.stat().st_size):
    found = read_pickle(path)
  check_origin(found, path)
  return found


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
  """Puts what is read of storages between pages that end the process if they are touched."""
  original = zipfile.ZipFile.read

  def read(self, name, pwd=None):
    data = original(self, name, pwd)
    # The pickle is read as a file, byte by byte; everything else is reached by addresses.
    is_pickle = getattr(name, 'filename', name).endswith('.pkl')
    return data if is_pickle else before_guard(data)

  zipfile.ZipFile.read = read  # type: ignore[reportAttributeAccessIssue]
  try:
    yield
  finally:
    zipfile.ZipFile.read = original


def before_guard(data: bytes) -> memoryview:
  """A copy that ends where a page begins that nobody may read, as does one before it."""
  page = mmap.PAGESIZE
  inside = -(-len(data) // page) * page
  region = mmap.mmap(-1, inside + 2 * page)
  region[page : page + inside - len(data)] = _CANARY * (inside - len(data))
  region[page + inside - len(data) : page + inside] = data
  address = ctypes.addressof(ctypes.c_char.from_buffer(region))
  for place in (0, page + inside):
    if _LIBC.mprotect(address + place, page, 0):
      raise OSError(ctypes.get_errno(), 'mprotect')
  return memoryview(region)[page + inside - len(data) : page + inside]


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
  """Lets addresses run out where the bound on memory is passed; then nothing was read."""
  used = int(Path('/proc/self/statm').read_text().split()[0]) * mmap.PAGESIZE
  before, highest = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (used + 3 * size + BESIDE, highest))
  try:
    yield
  except MgjaxError as error:
    if isinstance(error.__cause__, MemoryError):
      raise Silent('the memory that it may have was not enough') from error
    raise
  finally:
    resource.setrlimit(resource.RLIMIT_AS, (before, highest))


def check_origin(found: Tensors, path: Path) -> None:
  """Raises unless all numbers stand in the file."""
  if sum(array.nbytes for array in found.values()) > 2 * path.stat().st_size:
    raise Silent('the tensors are larger than twice the file')
  data = path.read_bytes() if path.stat().st_size < 10**6 else None
  for name, array in found.items() if data is not None else ():
    size = array.itemsize
    held = array.tobytes()
    for number in {held[at : at + size] for at in range(0, len(held), size)}:
      if number not in data:
        raise Silent(f'{name[:80]!r} has a number {number.hex()} that is not in the file')


FAMILIES = (Family('pt', write_pickles, mutate_pickle, read_guarded_pickle, memory=BESIDE),)
