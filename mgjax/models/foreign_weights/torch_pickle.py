"""Reads tensors from PyTorch checkpoints without PyTorch and without running pickled code."""

import io
import math
import os
import zipfile
import zlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError, first_line
from mgjax.core.safetensors_files import Tensors, is_boundless, not_weights
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

  A pickle may run any code; here it makes tensors, numbers, texts and their lists and dictionaries,
  and whatever else it calls is refused. Files are zipped since PyTorch 1.6, and those before are
  not read. A dictionary's entry 'state_dict' is taken for the whole. Memory is bounded by three
  times the size of the file and 100 MB. Members must be stored and not compressed, as PyTorch
  writes them, and no storage is read twice. All tensors of a storage are at most twice as large as
  it is (weights may be tied). Raises ConfigError if there is no such file, it is damaged or of
  another kind, or calls anything else.
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
  ) as error:
    reason = not_weights(path, pickled=True) or (
      f'is not a readable file of tensors of PyTorch: {first_line(error)}; save the state of the '
      'model with safetensors'
    )
    raise ConfigError(f'{os.fspath(path)!r} {reason}') from error
  if isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
    state = state['state_dict']
  if not isinstance(state, dict) or not all(
    isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in state.items()
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
    storages = _Storages(archive, pickled.filename.removesuffix('data.pkl'))
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
  """The bytes of one storage, and how many bytes of tensors may still be made of them."""

  def __init__(self, data: bytes, dtype: Any):
    self.data = data
    self.dtype = np.dtype(dtype)
    self.left = 2 * len(data)
    self.count = len(data) // self.dtype.itemsize


class _Storages:
  """The storages of an archive by their keys."""

  def __init__(self, archive: zipfile.ZipFile, folder: str):
    self._archive, self._folder = archive, folder
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
      data = self._archive.read(f'{self._folder}data/{key}')
      self._storages[key] = _Storage(data, _TYPES[storage.name])
    loaded = self._storages[key]
    if loaded.dtype != _TYPES[storage.name]:
      raise ValueError(f'the storage {key[:80]!r} has two types')
    if type(count) is not int or count * loaded.dtype.itemsize != len(loaded.data):
      raise ValueError(f'the storage {key[:80]!r} has another size than the pickle says')
    return loaded


def _call(name: PickledName, arguments: tuple[Any, ...]) -> Any:
  match name, arguments:
    case ('collections', 'OrderedDict'), ():
      return {}
    case ('torch._utils', '_rebuild_tensor_v2'), (storage, offset, shape, strides, *_):
      return _rebuild(storage, offset, shape, strides)
    case ('torch._utils', '_rebuild_parameter'), (tensor, *_) if type(tensor) is np.ndarray:
      return tensor
  raise ValueError(f'it asks for {name.module}.{name.name}')


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
  """Makes a tensor, a copy of numbers of its storage; all that comes from the pickle is checked."""
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
    return np.zeros(shape, storage.dtype)
  # Unlike as_strided, this looks itself whether all places lie inside.
  steps = [step * size for step in strides]
  return np.ndarray(shape, storage.dtype, storage.data, offset * size, steps).copy()
