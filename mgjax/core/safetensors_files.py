"""Reads and writes named tensors in safetensors files, checked against damage and against a model.

Files that `write_tensors` writes have checksums in their metadata. The value of 'checksums' is
'crc32:', 8 digits of the header, then 8 of each tensor, in the order of their names. Every reader
here compares them, so any changed byte is detected. They do not authenticate the author; the
SHA-256 in the name of a published run does.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import BEGIN, impostor, is_text, replaced

Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
  """A tensor that `np.asarray` reads from a file or computes, each time anew.

  Attributes:
    shape: of the tensor.
    dtype: of the tensor.
    load: returns the tensor. It raises ConfigError if its file is damaged.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  load: Callable[[], np.ndarray]

  @property
  def ndim(self) -> int:
    """The number of axes."""
    return len(self.shape)

  @property
  def size(self) -> int:
    """The number of numbers."""
    return math.prod(self.shape)

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Reads the tensor."""
    del copy  # what is read is always a copy
    return np.asarray(self.load(), dtype)

  def tobytes(self) -> bytes:
    """Reads the tensor, as bytes in C order."""
    return self.load().tobytes()


AnyTensor = np.ndarray | StoredTensor

_SHOWN = 3  # names quoted in a message
SCALE_SUFFIX = ':scale'  # suffix for the name of an int8 tensor's scales
_FEWEST = 2048  # numbers of an int8 tensor, more than stacked norms of small models have
_PICKLE = re.compile(rb'PK|\x80[\x02-\x05]')  # as PyTorch writes it
# A header may hold a tokenizer of 20 MB in its metadata, and has some commas a tensor.
_LARGEST_HEADER = 20 << 20
_MOST_COMMAS = 1 << 17
_LARGEST_EMPTY = 1 << 20
_CHECKSUMS, _CRC32 = 'checksums', 'crc32:'
_DIGITS = 8
_FLOAT8 = {  # of the file -> of ml_dtypes
  'F8_E4M3': 'float8_e4m3fn',
  'F8_E5M2': 'float8_e5m2',
  'F8_E4M3FNUZ': 'float8_e4m3fnuz',
  'F8_E5M2FNUZ': 'float8_e5m2fnuz',
  'F8_E8M0': 'float8_e8m0fnu',
}
_DTYPES = _FLOAT8 | {
  'F64': 'float64',
  'F32': 'float32',
  'F16': 'float16',
  'BF16': 'bfloat16',
  'I64': 'int64',
  'I32': 'int32',
  'I16': 'int16',
  'I8': 'int8',
  'U64': 'uint64',
  'U32': 'uint32',
  'U16': 'uint16',
  'U8': 'uint8',
  'BOOL': 'bool',
}
_KINDS = {name: kind for kind, name in _DTYPES.items()}


class TensorFile:
  """An open .safetensors file, which checks every tensor as it is read.

  Attributes:
    names: of the tensors.
    metadata: texts of the header, by name, without checksums.
  """

  def __init__(self, path: str | os.PathLike[str], file: Any, header: bytes):
    """Wraps a file that safetensors opened, its path for messages, and the bytes of its header.

    Raises ConfigError if the header does not match its checksum.
    """
    self._path = os.fspath(path)
    self._file = file
    self._header = header
    self.names: list[str] = list(file.keys())
    self.metadata: dict[str, str] = file.metadata() or {}
    self._checksums: dict[str, str] = {}
    # Match the key or the value, since either may be damaged.
    keys = [k for k, v in self.metadata.items() if k == _CHECKSUMS or v.startswith(_CRC32)]
    if keys:
      digits = self.metadata.pop(keys[0]).removeprefix(_CRC32)
      checksums = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
      if len(checksums) != 1 + len(self.names) or _with_checksum(header) != header:
        raise self._damaged('its header')
      self._checksums = dict(zip(sorted(self.names), checksums[1:], strict=True))

  def describe(self, name: str) -> tuple[str, tuple[int, ...]]:
    """Returns the type of a tensor as in the header, such as 'BF16', and its shape."""
    tensor_slice = self._file.get_slice(name)
    return tensor_slice.get_dtype(), tuple(tensor_slice.get_shape())

  def read(self, name: str, *, anything: bool = False) -> np.ndarray:
    """Reads a tensor; with `anything`, its floats may be NaN or infinite.

    Raises ConfigError if they are without it, if the checksum does not match, if the tensor does
    not fit in memory, or if it is empty and has too long axes.
    """
    kind, shape = self.describe(name)
    self._check_room(name, kind, shape)
    if kind in _FLOAT8:  # safetensors would ask numpy for these types, which has none
      begin, end = json.loads(self._header[8:])[name]['data_offsets']
      data = np.fromfile(self._path, np.uint8, end - begin, offset=len(self._header) + begin)
      tensor = data.view(jnp.dtype(_FLOAT8[kind])).reshape(shape)
    else:
      tensor = self._file.get_tensor(name)
    if self._checksums and _checksum(_bytes_of(tensor)) != self._checksums[name]:
      raise self._damaged(shown(name))
    if is_boundless(tensor.shape):
      raise ConfigError(
        f'{shown(name)} in {self._path!r} is empty and of shape {tensor.shape}; expected '
        f'axes of at most {_LARGEST_EMPTY} places together'
      )
    if not anything and not is_finite(tensor):
      raise ConfigError(
        f'{shown(name)} in {self._path!r} has NaN or infinite numbers; expected finite ones, '
        'export or download the file again'
      )
    return tensor

  def _check_room(self, name: str, kind: str, shape: tuple[int, ...]) -> None:
    bits = re.search(r'\d+', kind)  # as in F8_E4M3; BOOL takes a byte
    size = math.prod(shape) * int(bits[0] if bits else 8) // 8
    # A sparse file of a few blocks may claim any size, and safetensors panics if memory runs out.
    if size > (memory := os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')):
      raise ConfigError(
        f'{shown(name)} in {self._path!r} has {size:,} bytes, and this machine {memory:,} of '
        'memory; take a larger machine, or export or download the file again'
      )

  def _damaged(self, what: str) -> ConfigError:
    return ConfigError(
      f'{self._path!r} is damaged: {what} is not as it was written; export or download the file '
      'again'
    )


def write_tensors(
  path: str | os.PathLike[str],
  tensors: Mapping[str, AnyTensor],
  metadata: Mapping[str, str] = {},
) -> None:
  """Writes a .safetensors file with checksums, atomically; equal input gives equal bytes.

  Tensors are read one by one, so it needs the memory of the largest one.
  """
  places, end = {}, 0
  # Tensors stay aligned if those of larger numbers come first.
  for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
    tensor = tensors[name]
    begin, end = end, end + tensor.size * tensor.dtype.itemsize
    kind = _KINDS[tensor.dtype.name]
    places[name] = {'dtype': kind, 'shape': tensor.shape, 'data_offsets': [begin, end]}
  checksums = dict.fromkeys(sorted(tensors), '0' * _DIGITS)
  with replaced(path) as temporary, temporary.open('wb') as file:
    file.seek(len(_header(places, checksums, metadata)))
    for name in places:
      file.write(data := _bytes_of(tensors[name]))
      checksums[name] = _checksum(data)
      del data  # before the next tensor is read
    file.seek(0)
    file.write(_header(places, checksums, metadata))


def _header(places: Fields, checksums: Mapping[str, str], metadata: Mapping[str, str]) -> bytes:
  """Returns the first bytes of a file, whose number does not depend on the checksums."""
  fields = {**metadata, _CHECKSUMS: _CRC32 + ''.join(['0' * _DIGITS, *checksums.values()])}
  header = {'__metadata__': dict(sorted(fields.items())), **places}
  text = json.dumps(header, ensure_ascii=False, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # so that the tensors stay aligned
  return _with_checksum(len(text).to_bytes(8, 'little') + text)


def _bytes_of(tensor: AnyTensor) -> memoryview:
  return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data


def _checksum(data: bytes | memoryview) -> str:
  # CRC-32 finds every change of up to 32 neighbouring bits, at several times the speed of SHA-256.
  return f'{zlib.crc32(data):0{_DIGITS}x}'


def _with_checksum(header: bytes) -> bytes:
  """Writes into a header the checksum of itself, computed with zeros in its position."""
  before, key, after = header.partition(f'"{_CHECKSUMS}":"{_CRC32}'.encode())
  before += key
  after = after[_DIGITS:]
  return before + _checksum(before + b'0' * _DIGITS + after).encode() + after


def read_tensors(
  path: str | os.PathLike[str], *, anything: bool = False
) -> tuple[Tensors, dict[str, str]]:
  """Reads the tensors and the metadata of a .safetensors file.

  Memory is bounded by three times the size of the file and 100 MB. With `anything`, tensors may
  have any type and any numbers. Raises ConfigError if there is no such file, or it is of another
  kind or holds other tensors than finite floats.
  """
  with open_tensors(path) as file:
    tensors = {name: file.read(name, anything=anything) for name in file.names}
  for name, tensor in tensors.items():
    if not anything and not jnp.issubdtype(tensor.dtype, jnp.floating):
      raise ConfigError(
        f'{shown(name)} in {os.fspath(path)!r} is of {tensor.dtype}; expected finite floats'
      )
  return tensors, file.metadata


def stored_tensors(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
  """Returns the tensors of a .safetensors file without reading them.

  They may have any type and any numbers. Raises ConfigError if there is no such file, or it is of
  another kind.
  """

  def load(name: str) -> np.ndarray:
    # Opened again for each tensor: a file that stays open keeps all pages that were read in memory.
    with open_tensors(path) as file:
      return file.read(name, anything=True)

  tensors = {}
  with open_tensors(path) as file:
    for name in file.names:
      kind, shape = file.describe(name)
      if kind not in _DTYPES:
        raise ValueError(f'{shown(name)} is of {kind}, which is not read')
      dtype = jnp.dtype(_DTYPES[kind])
      tensors[name] = StoredTensor(shape, dtype, functools.partial(load, name))
  return tensors


def is_boundless(shape: tuple[int, ...]) -> bool:
  """Returns whether an empty tensor has axes so long that sums over the others do not fit."""
  return 0 in shape and math.prod(max(size, 1) for size in shape) > _LARGEST_EMPTY


def are_finite_floats(tensor: np.ndarray) -> bool:
  """Returns whether a tensor can be a parameter: its floats are finite in float32."""
  return bool(jnp.issubdtype(tensor.dtype, jnp.floating)) and is_finite(tensor)


def is_finite(tensor: np.ndarray) -> bool:
  """Returns whether no number is NaN or infinite in float32; integers never are."""
  if tensor.dtype == np.float64:
    with np.errstate(over='ignore', invalid='ignore'):
      tensor = tensor.astype(np.float32)
  if tensor.dtype.name in _FLOAT8.values():  # in some of them NaN is not last in bit order
    return bool(np.isfinite(tensor).all())
  if not tensor.size or (bits := _bits(tensor.dtype)) is None:
    return True
  # Within each sign, floats are ordered by their bits, with infinity and NaN last. The maximum of
  # integers is 10 times faster than `np.isfinite`, which matters for gigabytes.
  signed, unsigned, infinity, negative = bits
  return bool(tensor.view(signed).max() < infinity and tensor.view(unsigned).max() < negative)


@functools.cache
def _bits(dtype: np.dtype) -> tuple[np.dtype, np.dtype, int, int] | None:
  """Returns integer types of a float's size, and its infinities as such; None if it is no float.

  In a type without infinity, NaN has that bit pattern.
  """
  if not jnp.issubdtype(dtype, jnp.floating):
    return None
  signed, unsigned = (np.dtype(f'{kind}{dtype.itemsize}') for kind in 'iu')
  infinity = int(np.array(np.inf, dtype).view(unsigned))
  return signed, unsigned, infinity, infinity + (1 << (8 * dtype.itemsize - 1))


def in_int8(name: str, tensor: np.ndarray, others: Any) -> Tensors:
  """Quantises a tensor W to int8: q under its name and s under 'W:scale', with W ~ q s.

    s_o = max_i |W_io| / 127 in bfloat16      q_io = round(W_io / s_o) in int8

  |W - q s| is at most s / 2, and quantising q s gives q and s again. Vectors and tensors with few
  numbers are cast to the type `others` instead.
  """
  if tensor.ndim < 2 or tensor.size < _FEWEST:
    return {name: tensor.astype(others)}
  tensor = tensor.astype(np.float32)
  # To the nearest bfloat16: the largest number is 127 s then, so that its s is found again.
  scale = (np.abs(tensor).max(tuple(range(tensor.ndim - 1))) / 127).astype(jnp.bfloat16)
  divisor = np.where(scale > 0, scale.astype(np.float32), 1)
  return {
    name: np.clip(np.rint(tensor / divisor), -127, 127).astype(np.int8),
    name + SCALE_SUFFIX: scale,
  }


def unpacked(tensors: Tensors) -> Tensors:
  """Dequantises a file's int8 tensors to float32 q s. Raises ConfigError if q and s do not fit."""
  dequantised = {name: q for name, q in tensors.items() if not name.endswith(SCALE_SUFFIX)}
  for name, q in dequantised.items():
    if (scale := tensors.get(name + SCALE_SUFFIX)) is not None:
      if scale.shape != q.shape[-1:]:  # a broadcast result may exceed any memory
        raise ConfigError(
          f'{shown(name)} of shape {q.shape} has scales of shape {scale.shape}; expected '
          f'{q.shape[-1:]}, export the weights again'
        )
      if q.dtype != np.int8 or not jnp.issubdtype(scale.dtype, jnp.floating):
        raise ConfigError(
          f'{shown(name)} is of {q.dtype} and has scales of {scale.dtype}; expected int8 and '
          'floats, export the weights again'
        )
      check_scales(name + SCALE_SUFFIX, scale)
      dequantised[name] = q.astype(np.float32) * scale.astype(np.float32)
  return dequantised


def check_scales(name: str, scale: np.ndarray) -> None:
  """Raises ConfigError if a scale is negative, or its products with 1-byte numbers overflow.

  Such numbers go up to 448. A scale is a maximum of magnitudes, so a negative one is damaged.
  """
  scale = scale.astype(np.float32)
  least, most = float(scale.min(initial=0)), float(scale.max(initial=0))
  if least < 0:
    raise ConfigError(
      f'{shown(name)} has the scale {least:g}; expected scales of at least 0, export or download '
      'the file again'
    )
  if not most * 448 < float(np.finfo(np.float32).max):
    raise ConfigError(
      f'{shown(name)} has the scale {most:g}, which makes numbers that are not finite; export or '
      'download the file again'
    )


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Reads only the metadata of a .safetensors file. Raises ConfigError if it is not one."""
  with open_tensors(path) as file:
    return file.metadata


@contextlib.contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
  """Opens a .safetensors file, after checking that its header is of reasonable size.

  Raises ConfigError if there is no such file, it is of another kind, or a tensor that is read from
  it is damaged.
  """
  try:
    header = _read_header(path)
    with safe_open(path, 'numpy') as file:
      yield TensorFile(path, file, header)
  except (OSError, MemoryError, SafetensorError, TypeError, ValueError, AttributeError) as error:
    reason = not_weights(path) or f'is not a readable .safetensors file: {first_line(error)}'
    raise ConfigError(f'{os.fspath(path)!r} {reason}') from error


def check_tensors(path: str | os.PathLike[str]) -> None:
  """Reads every tensor of a file. Raises ConfigError if one is damaged, as in `open_tensors`."""
  with open_tensors(path) as file:
    for name in file.names:
      file.read(name)


def _read_header(path: str | os.PathLike[str]) -> bytes:
  """Returns the header, preceded by its length.

  Raises ValueError if parsing it would take too much memory: 10 bytes can become 300.
  """
  if not os.path.isfile(path):
    raise OSError('it is no regular file' if os.path.lexists(path) else 'there is no such file')
  with open(path, 'rb') as file:
    length = file.read(8)
    size = int.from_bytes(length, 'little')
    if size > (most := max(_LARGEST_HEADER, os.path.getsize(path) // 8)):
      raise ValueError(f'its header has {size} bytes, at most {most} are read')
    header = file.read(size)
  if (commas := header.count(b',')) > _MOST_COMMAS:
    raise ValueError(f'its header has {commas} commas, at most {_MOST_COMMAS} are read')
  return length + header


def not_weights(path: str | os.PathLike[str], pickled: bool = False) -> str:
  """Describes what a file holds instead of weights, as 'is a web page ...'; '' if unknown.

  With `pickled`, files that PyTorch writes count as weights.
  """
  if not os.path.isfile(path):
    return ''
  with open(path, 'rb') as file:
    begin = file.read(BEGIN)
  if _PICKLE.match(begin):
    return (
      ''
      if pickled
      else (
        'is a pickle, which may run any code when it is read; save the model with safetensors, as '
        'diffusers does by default'
      )
    )
  description = impostor(begin, 'weights')
  if not description and is_text(begin):
    start = begin[:40].decode(errors='replace')
    description = f'is a text file that begins {start!r}, not weights; download the file itself'
  return description


def check_complete(
  *, missing: Collection[str], unknown: Collection[str], misshapen: Collection[str], expected: str
) -> None:
  """Raises ConfigError, naming the first tensors of each kind, if there are any."""
  if missing or unknown or misshapen:
    kinds = {'missing': missing, 'unknown': unknown, 'of another shape': misshapen}
    raise ConfigError(f'the tensors do not make this model: {listed(kinds)}; expected {expected}')


def check_agrees(config: Fields, sizes: Fields) -> None:
  """Raises ConfigError if a value of config.json, not None, differs from the tensors' size."""
  for name, value in config.items():
    if value is not None and value != sizes[name]:
      raise ConfigError(
        f'config.json says {name} = {value!r:.100}, the tensors {sizes[name]!r}; take both from '
        'one model'
      )


def listed(kinds: Mapping[str, Collection[str]]) -> str:
  """Formats counts and names as '2 missing (a, b), 5 unknown (c, d, e, ...)'."""
  return ', '.join(
    f'{len(names)} {kind} ({", ".join(map(shown, [*names][:_SHOWN]))}'
    f'{", ..." * (len(names) > _SHOWN)})'
    for kind, names in kinds.items()
    if names
  )


def shown(name: str) -> str:
  """Formats a name from a file for a message: cut to 200 characters, escaped if not printable."""
  return (name if name.isprintable() else ascii(name))[:200]
