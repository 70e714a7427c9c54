"""Writes shards as ArrayRecord files, and reads each row by its offset in the file.

ArrayRecord writes a shard, with one uncompressed row a group, so any ArrayRecord reader can read
it. Here a row is read by its offset: from a local file with one system call, directly into its
array, and from a bucket with one request. The file has the riegeli format: blocks of 64 KiB that
begin with a header of 24 bytes each. Chunks lie across blocks: a header of 40 bytes and the data,
which end with the row. Each row is read back once after writing, which would reveal a version of
ArrayRecord with another format. Beside each shard lies its index, `*.columns.npz`: the offset,
length and CRC-32 of every row, and the numbers that can be read without the rows.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import pathlib
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from array_record.python import array_record_module

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError, StorageError
from mgjax.data.records.rows import encode_row
from mgjax.data.records.storage import Folder, Handle

T = TypeVar('T')

_WRITER_OPTIONS = 'group_size:1,uncompressed'
_BLOCK = 65536
_BLOCK_HEADER = 24
_CHUNK_HEADER = 40
_PIECE = 1 << 24
# NumPy parses headers with Python's parser, which sometimes fails in several threads at once up to
# Python 3.11 (CPython issue 106905).
_PARSING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Index:
  """The positions of the rows of a shard, and its columns, name -> the numbers of all rows.

  `offsets` are those of the first bytes of rows in the file, `sizes` their bytes without headers of
  blocks, `checks` their CRC-32.
  """

  offsets: np.ndarray
  sizes: np.ndarray
  checks: np.ndarray
  columns: dict[str, np.ndarray]

  def to_bytes(self) -> bytes:
    file = io.BytesIO()
    columns = {f'column {name}': column for name, column in self.columns.items()}
    np.savez(file, offsets=self.offsets, sizes=self.sizes, checks=self.checks, **columns)
    return file.getvalue()

  @classmethod
  def from_bytes(cls, data: bytes) -> 'Index':
    """Inverts `to_bytes`; raises ValueError or a similar error if the bytes are no index."""
    with _PARSING, np.load(io.BytesIO(data), allow_pickle=False) as stored:
      arrays = dict(stored)
    fixed = [arrays.pop(name) for name in ('offsets', 'sizes', 'checks')]
    return cls(*fixed, {name.removeprefix('column '): array for name, array in arrays.items()})


def write_rows(path: pathlib.Path, rows: Iterable[JSON], columns: Sequence[str] = ()) -> Index:
  """Writes rows to a local file and reads them back once.

  `columns` are fields of every row that are numbers or truth values.

  Raises:
    DataError: a row that cannot be serialised, or without one of the columns.
    StorageError: the file cannot be written, as on a full disk.
  """
  sizes = []
  checks = []
  values = {name: [] for name in columns}
  with _writer(path) as write:
    for row in rows:
      for name, column in values.items():
        column.append(_number(row, name))
      data = encode_row(row)
      write(data)
      sizes.append(len(data))
      checks.append(zlib.crc32(data))
  handle = Folder(path.parent).open(path.name)
  index = Index(
    offsets=np.array(_find_rows(handle, sizes), np.int64),
    sizes=np.array(sizes, np.int64),
    checks=np.array(checks, np.uint32),
    columns={name: np.array(column) for name, column in values.items()},
  )
  for row in range(len(sizes)):
    if not is_whole(index, row, read_row(handle, index, row)):
      raise DataError(f'row {row} of {path} is not what was written; the disk cannot be trusted')
  return index


@contextlib.contextmanager
def _writer(path: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
  """Yields a function that writes a row. Raises StorageError if it fails, likely on a full disk."""

  def guarded(function: Callable[..., T], *arguments: object) -> T:
    try:
      return function(*arguments)
    except RuntimeError as error:
      reason = str(error).split(';')[0]
      raise StorageError(
        f'{path.parent} cannot be written to: {reason}; make room, then the same command goes on'
      ) from error

  writer = guarded(array_record_module.ArrayRecordWriter, str(path), _WRITER_OPTIONS)
  try:
    yield functools.partial(guarded, writer.write)
  except BaseException:
    with contextlib.suppress(RuntimeError):  # the first error is raised
      writer.close()
    raise
  guarded(writer.close)


def read_row(handle: Handle, index: Index, row: int) -> np.ndarray:
  """Returns the bytes of a row as a uint8 array, unchecked (see `is_whole`)."""
  data = np.empty(index.sizes[row], np.uint8)
  _read(handle, int(index.offsets[row]), memoryview(data))
  return data


def is_whole(index: Index, row: int, data: np.ndarray) -> bool:
  """Returns whether the bytes of a row have the checksum in the index."""
  return zlib.crc32(data) == int(index.checks[row])


def checksum(handle: Handle, size: int) -> str:
  """Returns the SHA-256 of the first `size` bytes of a file."""
  digest = hashlib.sha256()
  buffer = memoryview(bytearray(min(_PIECE, size)))
  for begin in range(0, size, _PIECE):
    piece = buffer[: size - begin]
    handle.read_into(begin, [piece])
    digest.update(piece)
  return digest.hexdigest()


def _number(row: JSON, name: str) -> Any:
  value = row.get(name)
  if (
    isinstance(value, np.ndarray | np.generic) and value.shape == () and value.dtype.kind in 'biuf'
  ):
    return value[()]
  if not isinstance(value, int | float):
    raise DataError(
      f'the column {name!r} needs a number or a truth value in every row, found {value!r:.100}'
    )
  return value


def _find_rows(handle: Handle, sizes: Sequence[int]) -> list[int]:
  """Finds the offsets of rows by walking over chunks; DataError if the format is unexpected."""
  # the first chunk is a signature
  offsets = []
  offset = _skip(0, _CHUNK_HEADER)
  for size in sizes:
    header = memoryview(bytearray(_CHUNK_HEADER))
    _read(handle, offset, header)
    _, data_size, _, kind, decoded_size = struct.unpack('<5Q', header)
    if kind != ord('r') + (1 << 8) or decoded_size != size:  # a simple chunk of one record
      raise DataError(
        f'row {len(offsets)} is not where it is expected; '
        'is this version of array_record one that mgjax was tried with?'
      )
    offsets.append(_skip(offset, _CHUNK_HEADER + data_size - size))
    offset = _skip(offset, _CHUNK_HEADER + data_size)
  return offsets


def _skip(offset: int, count: int) -> int:
  """Returns the offset `count` bytes after `offset`, not counting headers of blocks."""
  block, within = divmod(offset, _BLOCK)
  payload = _BLOCK - _BLOCK_HEADER
  block, within = divmod(block * payload + max(within - _BLOCK_HEADER, 0) + count, payload)
  return block * _BLOCK + _BLOCK_HEADER + within


def _read(handle: Handle, offset: int, data: memoryview) -> None:
  """Fills `data` from `offset` on, without the headers of blocks."""
  header = memoryview(bytearray(_BLOCK_HEADER))
  buffers = []
  begin = 0
  end = _BLOCK - offset % _BLOCK
  while begin < len(data):
    buffers += [data[begin:end], header]
    begin = end
    end = end + _BLOCK - _BLOCK_HEADER
  handle.read_into(offset, buffers[:-1])
