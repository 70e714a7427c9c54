"""Reads tensors from PyTorch checkpoints without PyTorch and without running pickled code."""

import io
import math
import os
import struct
import zipfile
import zlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError, first_line
from mgjax.core.safetensors_files import StoredTensor, Tensors, is_boundless, not_weights
from mgjax.models.foreign_weights.pickles import LARGEST_PICKLE_BYTES, PickledName, run_pickle

TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt', '.bin')
_TYPES = {
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'BFloat16Storage': jnp.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'BoolStorage': np.bool_,
}
_MOST_AXES = 8
_LARGEST_LIST = 2 << 20  # of members; in memory it is 13 times as large


def read_pickle(path: str | os.PathLike[str]) -> Tensors:
  """Reads the tensors of a file that `torch.save` wrote of a model or of its state.

  Memory is bounded by three times the size of the file and 100 MB. Raises ConfigError as
  `open_pickle` does.
  """
  return {name: tensor.load() for name, tensor in open_pickle(path).items()}


def open_pickle(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
  """Returns the tensors of a file that `torch.save` wrote, without reading their numbers.

  A pickle may run any code; here it makes tensors, numbers, texts and their lists and dictionaries,
  and whatever else it calls is refused. Files are zipped since PyTorch 1.6, and those before are
  not read. A dictionary's entry 'state_dict' is taken for the whole. Members must be stored and not
  compressed, as PyTorch writes them. A storage is kept until each of its tensors was read once. All
  tensors of a storage are at most twice as large as it is (weights may be tied). Raises ConfigError
  if there is no such file, it is damaged or of another kind, or calls anything else.
  """
  try:
    state = _read(path)
  except (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
  ) as error:
    reason = not_weights(path, pickled=True) or (
      f'is not a readable file of tensors of PyTorch: {first_line(error)}; save the state of the '
      'model with safetensors'
    )
    raise ConfigError(f'{os.fspath(path)!r} {reason}') from error
  if isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
    state = state['state_dict']
  if not isinstance(state, dict) or not all(
    isinstance(name, str) and isinstance(tensor, StoredTensor) for name, tensor in state.items()
  ):
    raise ConfigError(f'{os.fspath(path)!r} holds no dictionary of tensors; expected a state')
  return state


def _read(path: str | os.PathLike[str]) -> Any:
  if not os.path.isfile(path):
    raise OSError('there is no such file')
  with _File(path) as file, zipfile.ZipFile(file) as archive:
    file.most = os.path.getsize(path)
    _check_stored(archive, file.most)
    pickles = [member for member in archive.infolist() if member.filename.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise ValueError(f'it holds {len(pickles)} pickles')
    (pickled,) = pickles
    if pickled.file_size > LARGEST_PICKLE_BYTES:
      raise ValueError(
        f'its pickle has {pickled.file_size} bytes, at most {LARGEST_PICKLE_BYTES} are read'
      )
    storages = _Storages(file, archive, pickled.filename.removesuffix('data.pkl'))
    return run_pickle(archive.read(pickled), _call, storages.load)


class _File(io.FileIO):
  """Reads at most so many bytes at once, as zipfile reads the whole list of members."""

  most = _LARGEST_LIST

  def read(self, size: int | None = -1, /) -> bytes | Any:
    if size is not None and size > self.most:
      raise ValueError(f'its list of members has {size} bytes, at most {self.most} are read')
    return super().read(-1 if size is None else size)


def _check_stored(archive: zipfile.ZipFile, size: int) -> None:
  """Raises if the members are compressed or together larger than the file: it might be a bomb."""
  members = archive.infolist()
  if any(member.compress_type != zipfile.ZIP_STORED for member in members):
    raise ValueError('its members are compressed, which PyTorch does not do')
  if len({member.filename for member in members}) < len(members):
    raise ValueError('two of its members have one name')
  if any(member.compress_size != member.file_size for member in members):
    raise ValueError('a member has two sizes')
  if sum(member.file_size for member in members) > size:
    raise ValueError('its members are larger than the file')


class _Storage:
  """A member of the file, and how many bytes of tensors may still be made of it.

  Attributes:
    dtype: of its numbers.
    size: how many bytes they have.
    count: how many numbers there are.
    left: bytes that further tensors may have together.
    waiting: tensors that were not read yet.
  """

  def __init__(self, file: _File, member: zipfile.ZipInfo, dtype: Any):
    self._path, self._member = file.name, member
    self._begin = _data_begins(file, member)
    self._data: bytes | None = None
    self.dtype = np.dtype(dtype)
    self.size = member.file_size
    self.left = 2 * self.size
    self.count = self.size // self.dtype.itemsize
    self.waiting = 0

  def read(self) -> bytes:
    """Returns its bytes. Raises ConfigError if they are not as they were written."""
    data = self._data
    if data is None:
      with open(self._path, 'rb') as file:
        file.seek(self._begin)
        data = file.read(self.size)
      if len(data) < self.size or zlib.crc32(data) != self._member.CRC:
        raise ConfigError(
          f'{os.fspath(self._path)!r} is damaged: {self._member.filename!r:.100} is not as it was '
          'written; download the file again'
        )
    self.waiting -= 1
    self._data = data if self.waiting > 0 else None
    return data


def _data_begins(file: _File, member: zipfile.ZipInfo) -> int:
  """Returns where the bytes of a member begin: behind its header of 30 bytes and two fields."""
  file.seek(member.header_offset)
  signature, name, extra = struct.unpack('<4s22xHH', file.read(30))
  if signature != b'PK\x03\x04':
    raise ValueError(f'{member.filename!r:.100} is not where its list of members says')
  return member.header_offset + 30 + name + extra


class _Storages:
  """The storages of an archive by their keys."""

  def __init__(self, file: _File, archive: zipfile.ZipFile, folder: str):
    self._file, self._archive, self._folder = file, archive, folder
    self._storages: dict[str, _Storage] = {}
    order = f'{folder}byteorder'
    if order in archive.namelist() and archive.read(order) != b'little':
      raise ValueError('its numbers begin with their highest bytes')

  def load(self, pid: object) -> _Storage:
    """Returns the storage that ('storage', type, key, device, count) stands for."""
    if type(pid) is not tuple or len(pid) != 5:
      raise ValueError('it asks for something that is no storage')
    kind, storage, key, _, count = pid
    if type(kind) is not str or type(storage) is not PickledName or type(key) is not str:
      raise ValueError('it asks for something that is no storage')
    if kind != 'storage' or storage.module != 'torch' or storage.name not in _TYPES:
      raise ValueError(f'it asks for {storage.module}.{storage.name}')
    if key not in self._storages:
      member = self._archive.getinfo(f'{self._folder}data/{key}')
      self._storages[key] = _Storage(self._file, member, _TYPES[storage.name])
    loaded = self._storages[key]
    if loaded.dtype != _TYPES[storage.name]:
      raise ValueError(f'the storage {key[:80]!r} has two types')
    if type(count) is not int or count * loaded.dtype.itemsize != loaded.size:
      raise ValueError(f'the storage {key[:80]!r} has another size than the pickle says')
    return loaded


def _call(name: PickledName, arguments: tuple[Any, ...]) -> Any:
  match name, arguments:
    case ('collections', 'OrderedDict'), ():
      return {}
    case ('torch._utils', '_rebuild_tensor_v2'), (storage, offset, shape, strides, *_):
      return _rebuild(storage, offset, shape, strides)
    case ('torch._utils', '_rebuild_parameter'), (tensor, *_) if type(tensor) is StoredTensor:
      return tensor
  raise ValueError(f'it asks for {name.module}.{name.name}')


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
  """Makes a tensor of numbers of a storage; all that comes from the pickle is checked."""
  if type(storage) is not _Storage or type(shape) is not tuple or type(strides) is not tuple:
    raise ValueError('a tensor is of no storage')
  if len(shape) != len(strides) or len(shape) > _MOST_AXES:
    raise ValueError(f'a tensor has {len(shape)} sizes and {len(strides)} strides')
  sizes = (offset, *shape, *strides)
  if not all(type(size) is int for size in sizes):
    raise ValueError('a tensor is of no whole sizes')
  # Of an empty tensor too: its places are counted as if every axis had one.
  last = offset + sum(max(n - 1, 0) * step for n, step in zip(shape, strides, strict=True))
  inside = min(sizes) >= 0 and (last < storage.count or (last == 0 and 0 in shape))
  # By strides of 0 one number may be many.
  if not inside or is_boundless(shape) or math.prod(shape) > storage.count:
    raise ValueError(f'a tensor of shape {shape} lies outside of its storage')
  size = storage.dtype.itemsize
  storage.left -= math.prod(shape) * size
  if storage.left < 0:
    raise ValueError('its tensors are larger than twice its storages')
  if 0 in shape:
    return StoredTensor(shape, storage.dtype, lambda: np.zeros(shape, storage.dtype))
  storage.waiting += 1

  def load() -> np.ndarray:
    # Unlike as_strided, this looks itself whether all places lie inside.
    steps = [step * size for step in strides]
    return np.ndarray(shape, storage.dtype, storage.read(), offset * size, steps).copy()

  return StoredTensor(shape, storage.dtype, load)
