"""Reads tensors from PyTorch checkpoints without PyTorch and without running pickled code."""

import io
import math
import os
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.weights.tensors import Tensors

SUFFIXES = ('.pth', '.pt', '.ckpt', '.bin')
_TYPES = {
  'DoubleStorage': np.float64, 'FloatStorage': np.float32, 'HalfStorage': np.float16,
  'BFloat16Storage': jnp.bfloat16, 'LongStorage': np.int64, 'IntStorage': np.int32,
  'BoolStorage': np.bool_,
}  # fmt: skip


def read_pickle(path: str | os.PathLike[str]) -> Tensors:
  """Reads the tensors of a file that `torch.save` wrote of a model or of its state.

  A pickle may run any code; here it makes tensors, numbers, texts and their lists and dictionaries,
  and whatever else it names is refused. Files are zipped since PyTorch 1.6, and those before are
  not read. A dictionary's entry 'state_dict' is taken for the whole. Memory is bounded by the size
  of the file: what is in it is stored and not compressed, as PyTorch does it, no storage is read
  twice, and all tensors together are at most twice as large as the storages (weights may be tied).

  Raises:
    ConfigError: there is no such file, it is damaged or of another kind, or names anything else.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      _check_stored(archive, os.path.getsize(path))
      (name,) = [name for name in archive.namelist() if name.endswith('/data.pkl')]
      pickled = archive.read(name)
      _check_memo(pickled)
      found = _Unpickler(archive, name, pickled).load()
  except (OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, ArithmeticError,
          MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError
          ) as error:  # fmt: skip
    raise ConfigError(
      f'{os.fspath(path)!r} is not a readable file of tensors of PyTorch: {error}; save the state '
      'of the model with safetensors'
    ) from error
  if isinstance(found, dict) and isinstance(found.get('state_dict'), dict):
    found = found['state_dict']
  if not isinstance(found, dict) or not all(isinstance(x, np.ndarray) for x in found.values()):
    raise ConfigError(f'{os.fspath(path)!r} holds no dictionary of tensors; expected a state')
  return dict(found)


class _Storage:
  """Stands for a class of storages, which names a type alone."""

  def __init__(self, dtype: Any):
    self.dtype = np.dtype(dtype)


class _Bytes:
  """The numbers of one storage; a pickle can get none but by `persistent_load`."""

  def __init__(self, numbers: np.ndarray):
    self.numbers, self.left = numbers, 2 * numbers.nbytes


def _check_stored(archive: zipfile.ZipFile, size: int) -> None:
  """Raises if the members are compressed or together larger than the file: it might be a bomb."""
  members = archive.infolist()
  if any(each.compress_type != zipfile.ZIP_STORED for each in members):
    raise pickle.UnpicklingError('its members are compressed, which PyTorch does not do')
  if sum(each.file_size for each in members) > size:
    raise pickle.UnpicklingError('its members are larger than the file')


def _check_memo(pickled: bytes) -> None:
  """Raises if a place of the memo is beyond all that a pickle of this length can have put there.

  The unpickler makes room for every place up to the largest: 5 bytes could ask for gigabytes.
  """
  for code, argument, _ in pickletools.genops(pickled):
    if code.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and int(argument or 0) > len(pickled):
      raise pickle.UnpicklingError(f'it puts something at place {argument} of its memo')


class _Unpickler(pickle.Unpickler):
  def __init__(self, archive: zipfile.ZipFile, name: str, pickled: bytes):
    super().__init__(io.BytesIO(pickled))
    self._archive, self._folder = archive, name.removesuffix('data.pkl')
    self._storages: dict[str, _Bytes] = {}

  def find_class(self, module: str, name: str) -> Any:
    if module == 'torch' and name in _TYPES:
      return _Storage(_TYPES[name])
    allowed = {
      ('collections', 'OrderedDict'): OrderedDict,
      ('torch._utils', '_rebuild_tensor_v2'): _rebuild,
      ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
    }
    if (module, name) not in allowed:
      raise pickle.UnpicklingError(f'it asks for {module}.{name}')
    return allowed[module, name]

  def persistent_load(self, pid: Any) -> _Bytes:
    kind, storage, key, _, _ = pid
    if kind != 'storage' or not isinstance(storage, _Storage) or not isinstance(key, str):
      raise pickle.UnpicklingError(f'it asks for {pid!r:.200}')
    if key not in self._storages:
      data = self._archive.read(f'{self._folder}data/{key}')
      self._storages[key] = _Bytes(np.frombuffer(data, storage.dtype))
    if self._storages[key].numbers.dtype != storage.dtype:
      raise pickle.UnpicklingError(f'the storage {key!r:.200} has two types')
    return self._storages[key]


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
  """Makes a tensor, a copy of numbers of its storage; all that comes from the pickle is checked."""
  sizes = (offset, *shape, *strides)
  if not isinstance(storage, _Bytes) or not all(type(each) is int for each in sizes):
    raise pickle.UnpicklingError('a tensor is of no storage, or of no whole sizes')
  numbers = storage.numbers
  # Of an empty tensor too: its places are counted as if every axis had one.
  last = offset + sum(max(n - 1, 0) * step for n, step in zip(shape, strides, strict=True))
  inside = min(sizes) >= 0 and (last < len(numbers) or (last == 0 and 0 in shape))
  if not inside or math.prod(shape) > len(numbers):  # by strides of 0 a number may be many
    raise pickle.UnpicklingError(f'a tensor of shape {shape!r:.200} lies outside of its storage')
  if 0 in shape:
    return np.zeros(shape, numbers.dtype)
  storage.left -= math.prod(shape) * numbers.itemsize
  if storage.left < 0:
    raise pickle.UnpicklingError('its tensors are larger than twice its storages')
  steps = [step * numbers.itemsize for step in strides]
  return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()
