"""Reads and writes named tensors in safetensors files, checked against damage and against a model.

What `in_file` writes has checksums in its metadata, as 'checksums': 'crc32:' and 8 digits of the
header, then 8 of each tensor in the order of their names. Every reader here compares them: any one
byte that changed is found. They say nothing of who made a file; the SHA-256 of a published name
does.
"""

import contextlib
import functools
import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import BEGIN, impostor, is_text

Tensors = dict[str, np.ndarray]

SHOWN = 3  # names in a message
SCALE = ':scale'  # ends the name of the scales of a tensor that a file has in int8
_FEWEST = 2048  # numbers of such a tensor, more than stacked norms have in small models
_PICKLE = re.compile(rb'PK|\x80[\x02-\x05]')  # as PyTorch writes it
# A header may bring a tokenizer of 20 MB in its metadata, and has some commas a tensor.
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


class TensorFile:
  """An open .safetensors file, which checks every tensor as it is read.

  Attributes:
    names: of the tensors.
    metadata: texts of the header, by name, without checksums.
  """

  def __init__(self, path: str | os.PathLike[str], file: Any, header: bytes):
    """Binds a file that the library has opened, its path for messages, and its header's bytes.

    Raises ConfigError if the header is not what was written.
    """
    self._path = os.fspath(path)
    self._file = file
    self._header = header
    self.names: list[str] = list(file.keys())
    self.metadata: dict[str, str] = file.metadata() or {}
    self._checksums: dict[str, str] | None = None
    # By either, for the damage may be there.
    found = [k for k, v in self.metadata.items() if k == _CHECKSUMS or v.startswith(_CRC32)]
    if found:
      known = self.metadata.pop(found[0]).removeprefix(_CRC32)
      known = [known[at : at + _DIGITS] for at in range(0, len(known), _DIGITS)]
      if len(known) != 1 + len(self.names) or _with_checksum(header) != header:
        raise self._damaged('its header')
      self._checksums = dict(zip(sorted(self.names), known[1:], strict=True))

  def describe(self, name: str) -> tuple[str, tuple[int, ...]]:
    """Returns the type of a tensor as the header has it, such as 'BF16', and its shape."""
    found = self._file.get_slice(name)
    return found.get_dtype(), tuple(found.get_shape())

  def read(self, name: str, *, anything: bool = False) -> np.ndarray:
    """Reads a tensor; `anything` says that its floats need not be finite.

    Raises ConfigError if they are not, the tensor is not what was written, is larger than the
    memory, or is empty and of unlimited shape.
    """
    kind, shape = self.describe(name)
    self._check_room(name, kind, shape)
    if kind in _FLOAT8:  # the library asks numpy for them, which has none
      begin, end = json.loads(self._header[8:])[name]['data_offsets']
      found = np.fromfile(self._path, np.uint8, end - begin, offset=len(self._header) + begin)
      tensor = found.view(jnp.dtype(_FLOAT8[kind])).reshape(shape)
    else:
      tensor = self._file.get_tensor(name)
    if self._checksums is not None and _checksum(tensor) != self._checksums[name]:
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
    # A sparse file of a few blocks may be of any size, and the library panics without memory.
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


def in_file(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
  """Returns a .safetensors file with checksums: the same bytes of the same tensors and metadata."""
  data = save(tensors, {})
  size = int.from_bytes(data[:8], 'little')
  checksums = [_checksum(tensors[name]) for name in sorted(tensors)]
  about = {**(metadata or {}), _CHECKSUMS: _CRC32 + ''.join(['0' * _DIGITS, *checksums])}
  header = json.loads(data[8 : 8 + size]) | {'__metadata__': dict(sorted(about.items()))}
  text = json.dumps(header, ensure_ascii=False, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # so that the tensors stay aligned
  return _with_checksum(len(text).to_bytes(8, 'little') + text) + data[8 + size :]


def _checksum(tensor: np.ndarray) -> str:
  # CRC-32 finds every change of up to 32 neighbouring bits, at several times the speed of SHA-256.
  return f'{zlib.crc32(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)):0{_DIGITS}x}'


def _with_checksum(header: bytes) -> bytes:
  """Returns a header with the checksum of itself, in which zeros stand in place of that."""
  key = f'"{_CHECKSUMS}":"{_CRC32}'.encode()
  at = header.find(key) + len(key)
  before, after = header[:at], header[at + _DIGITS :]
  return before + f'{zlib.crc32(before + b"0" * _DIGITS + after):0{_DIGITS}x}'.encode() + after


def read_tensors(
  path: str | os.PathLike[str], *, anything: bool = False
) -> tuple[Tensors, dict[str, str]]:
  """Reads the tensors and the metadata of a .safetensors file.

  Memory is bounded by three times the size of the file and 100 MB. With `anything` there may be
  more than finite floats, as what a model leaves out. Raises ConfigError if there is no such file,
  or it is of another kind or holds no finite floats.
  """
  with open_tensors(path) as file:
    tensors = {name: file.read(name, anything=anything) for name in file.names}
  for name, tensor in tensors.items():
    if not anything and not jnp.issubdtype(tensor.dtype, jnp.floating):
      raise ConfigError(
        f'{shown(name)} in {os.fspath(path)!r} is of {tensor.dtype}; expected finite floats'
      )
  return tensors, file.metadata


def is_boundless(shape: tuple[int, ...]) -> bool:
  """Returns whether an empty tensor has axes so long that sums over the others would not fit."""
  return 0 in shape and math.prod(max(size, 1) for size in shape) > _LARGEST_EMPTY


def are_finite_floats(tensor: np.ndarray) -> bool:
  """Returns whether these can be parameters, which are of float32 or less."""
  return bool(jnp.issubdtype(tensor.dtype, jnp.floating)) and is_finite(tensor)


def is_finite(tensor: np.ndarray) -> bool:
  """Returns whether no number is NaN or infinite in float32; integers never are."""
  if tensor.dtype == np.float64:
    with np.errstate(over='ignore', invalid='ignore'):
      tensor = tensor.astype(np.float32)
  if tensor.dtype.name in _FLOAT8.values():  # NaN of some is not last in the order of bits
    return bool(np.isfinite(tensor).all())
  if not tensor.size or (bits := _bits(tensor.dtype)) is None:
    return True
  # Of each sign, floats are in the order of their bits, and infinity and NaN come last. The largest
  # integer is found ten times faster than every number is asked, which matters with gigabytes.
  signed, unsigned, infinity, negative = bits
  return bool(tensor.view(signed).max() < infinity and tensor.view(unsigned).max() < negative)


@functools.cache
def _bits(dtype: np.dtype) -> tuple[np.dtype, np.dtype, int, int] | None:
  """Integers of the size of a float, and its infinities as such; None of what is no float.

  Where a type has no infinity, NaN takes its place.
  """
  if not jnp.issubdtype(dtype, jnp.floating):
    return None
  signed, unsigned = (np.dtype(f'{kind}{dtype.itemsize}') for kind in 'iu')
  infinity = int(np.array(np.inf, dtype).view(unsigned))
  return signed, unsigned, infinity, infinity + (1 << (8 * dtype.itemsize - 1))


def in_int8(name: str, tensor: np.ndarray, others: Any) -> Tensors:
  """Returns a tensor W as a file has it in int8: q by its name and s by 'W:scale', W ~ q s.

    s_o = max_i |W_io| / 127 in bfloat16      q_io = round(W_io / s_o) in int8

  |W - q s| is at most s / 2, and of q s one gets q and s again. Vectors and tensors of few numbers
  are of the type `others`.
  """
  if tensor.ndim < 2 or tensor.size < _FEWEST:
    return {name: tensor.astype(others)}
  tensor = tensor.astype(np.float32)
  # To the nearest bfloat16: the largest number is 127 s then, so that its s is found again.
  scale = (np.abs(tensor).max(tuple(range(tensor.ndim - 1))) / 127).astype(jnp.bfloat16)
  divisor = np.where(scale > 0, scale.astype(np.float32), 1)
  return {
    name: np.clip(np.rint(tensor / divisor), -127, 127).astype(np.int8),
    name + SCALE: scale,
  }


def unpacked(tensors: Tensors) -> Tensors:
  """Returns a file's tensors with float32 q s for q and s. Raises ConfigError if they misfit."""
  found = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
  for name, q in found.items():
    if (scale := tensors.get(name + SCALE)) is not None:
      if scale.shape != q.shape[-1:]:  # what broadcasts may be larger than any memory
        raise ConfigError(
          f'{shown(name)} of shape {q.shape} has scales of shape {scale.shape}; expected '
          f'{q.shape[-1:]}, export the weights again'
        )
      if q.dtype != np.int8 or not jnp.issubdtype(scale.dtype, jnp.floating):
        raise ConfigError(
          f'{shown(name)} is of {q.dtype} and has scales of {scale.dtype}; expected int8 and '
          'floats, export the weights again'
        )
      check_scales(name + SCALE, scale)
      found[name] = q.astype(np.float32) * scale.astype(np.float32)
  return found


def check_scales(name: str, scale: np.ndarray) -> None:
  """Raises ConfigError if a scale is negative, or numbers of one byte times it are not finite.

  These numbers go up to 448. A scale is the largest of magnitudes, so a negative one is damage.
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
  """Reads the metadata of a .safetensors file alone. Raises ConfigError if it is none."""
  with open_tensors(path) as file:
    return file.metadata


@contextlib.contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
  """Yields a .safetensors file, once its header is known to be no bomb.

  Raises ConfigError if there is no such file, or it is of another kind, or what is read of it is
  damaged.
  """
  try:
    header = _read_header(path)
    with safe_open(path, 'numpy') as file:
      yield TensorFile(path, file, header)
  except (OSError, MemoryError, SafetensorError, TypeError, ValueError, AttributeError) as error:
    raise ConfigError(_why_unreadable(pathlib.Path(path), error)) from error


def check_tensors(path: str | os.PathLike[str]) -> None:
  """Reads every tensor of a file. Raises ConfigError if one is damaged, as `open_tensors`."""
  with open_tensors(path) as file:
    for name in file.names:
      file.read(name)


def _read_header(path: str | os.PathLike[str]) -> bytes:
  """Returns the header, with its length in front.

  Raises if it makes much more than it takes: an entry of 10 bytes may make 300.
  """
  if not os.path.isfile(path):
    there = os.path.lexists(path)
    raise OSError('it is no regular file' if there else 'there is no such file')
  with open(path, 'rb') as file:
    length = file.read(8)
    size = int.from_bytes(length, 'little')
    if size > (most := max(_LARGEST_HEADER, os.path.getsize(path) // 8)):
      raise ValueError(f'its header has {size} bytes, at most {most} are read')
    header = file.read(size)
  if (commas := header.count(b',')) > _MOST_COMMAS:
    raise ValueError(f'its header has {commas} commas, at most {_MOST_COMMAS} are read')
  return length + header


def _why_unreadable(path: pathlib.Path, error: Exception) -> str:
  reason = not_weights(path)
  return (
    f'{os.fspath(path)!r} {reason}'
    if reason
    else (f'{os.fspath(path)!r} is not a readable .safetensors file: {first_line(error)}')
  )


def not_weights(path: str | os.PathLike[str], pickled: bool = False) -> str:
  """Says what lies in place of a file of weights, as 'is a web page ...'; '' if that is not known.

  `pickled` files are those that PyTorch writes.
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
  told = impostor(begin, 'weights')
  if not told and is_text(begin):
    begins = begin[:40].decode(errors='replace')
    told = f'is a text file that begins {begins!r}, not weights; download the file itself'
  return told


def check_complete(
  *, missing: Collection[str], unknown: Collection[str], misshapen: Collection[str], expected: str
) -> None:
  """Raises ConfigError, naming the first tensors of each kind, unless there are none."""
  if missing or unknown or misshapen:
    kinds = {'missing': missing, 'unknown': unknown, 'of another shape': misshapen}
    raise ConfigError(f'the tensors do not make this model: {listed(kinds)}; expected {expected}')


def check_agrees(said: Mapping[str, Any], found: Mapping[str, Any]) -> None:
  """Raises ConfigError if a size that config.json says, not None, is not that of the tensors."""
  for name, value in said.items():
    if value is not None and value != found[name]:
      raise ConfigError(
        f'config.json says {name} = {value!r:.100}, the tensors {found[name]!r}; take both from '
        'one model'
      )


def listed(kinds: Mapping[str, Collection[str]]) -> str:
  """Says '2 missing (a, b), 5 unknown (c, d, e, ...)'."""
  return ', '.join(
    f'{len(names)} {kind} ({", ".join(map(shown, [*names][:SHOWN]))}'
    f'{", ..." * (len(names) > SHOWN)})'
    for kind, names in kinds.items()
    if names
  )


def shown(name: str) -> str:
  """Returns a name from a file as a message shows it: cut, and escaped where that is needed."""
  return (name if name.isprintable() else ascii(name))[:200]
