"""Reads tensors from PyTorch checkpoints without PyTorch and without running pickled code."""

import math
import os
import pickle
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
  not read. A dictionary's entry 'state_dict' is taken for the whole.

  Raises:
    ConfigError: there is no such file, it is damaged or of another kind, or names anything else.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      (name,) = [name for name in archive.namelist() if name.endswith('/data.pkl')]
      found = _Unpickler(archive, name).load()
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


class _Unpickler(pickle.Unpickler):
  def __init__(self, archive: zipfile.ZipFile, name: str):
    super().__init__(archive.open(name))
    self._archive, self._folder = archive, name.removesuffix('data.pkl')

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

  def persistent_load(self, pid: Any) -> np.ndarray:
    kind, storage, key, _, _ = pid
    if kind != 'storage' or not isinstance(storage, _Storage):
      raise pickle.UnpicklingError(f'it asks for {pid!r}')
    return np.frombuffer(self._archive.read(f'{self._folder}data/{key}'), storage.dtype)


def _rebuild(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  outside = min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= len(storage))
  if outside or math.prod(shape) > len(storage):  # by strides of 0 a number may be many
    raise pickle.UnpicklingError(f'a tensor of shape {shape} lies outside of its storage')
  steps = [stride * storage.itemsize for stride in strides]
  return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
