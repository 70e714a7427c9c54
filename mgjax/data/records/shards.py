"""Writes shards as ArrayRecord files, and reads each row by its offset in the file.

A shard is written by ArrayRecord, one uncompressed row a group, so whatever reads ArrayRecord reads
it too. Here a row is read by its place instead: with one system call from a local file, into the
memory where it stays, and with one request from a bucket. The file is a riegeli one: blocks of 64
KiB that begin with a header of 24 bytes each, and, running on across those, chunks: a header of 40
bytes and the data, which end with the row. A version of ArrayRecord that wrote something else would
be found out, since each row is read back once. Beside each shard lies its index, `*.columns.npz`:
the place, length and CRC-32 of every row, and the numbers that are wanted without reading the rows.
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
from typing import Any

import numpy as np
from array_record.python import array_record_module

from mgjax.core.errors import DataError, StorageError
from mgjax.data.records.rows import encode_row
from mgjax.data.records.storage import Folder, Handle

_WRITER_OPTIONS = 'group_size:1,uncompressed'
_BLOCK = 65536
_BLOCK_HEADER = 24
_CHUNK_HEADER = 40
_PIECE = 1 << 24
# NumPy reads headers with Python's own parser, which up to Python 3.11 fails now and then when
# several threads are in it (CPython issue 106905).
_PARSING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Index:
  """Where the rows of a shard are, and its columns, name -> the numbers of all rows.

  `offsets` are of the first bytes of rows in the file, `sizes` in bytes, without headers of blocks,
  `checks` the CRC-32 of each row.
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
    """Undoes `to_bytes`; ValueError and its kin if the bytes are no index."""
    with _PARSING, np.load(io.BytesIO(data), allow_pickle=False) as stored:
      arrays = dict(stored)
    fixed = [arrays.pop(name) for name in ('offsets', 'sizes', 'checks')]
    return cls(*fixed, {name.removeprefix('column '): array for name, array in arrays.items()})


def write_rows(
  path: pathlib.Path, rows: Iterable[dict[str, Any]], columns: Sequence[str] = ()
) -> Index:
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
  """Yields what writes a row, of whose failures a full disk is the likeliest."""

  def guarded(function: Callable[..., Any], *given: Any) -> Any:
    try:
      return function(*given)
    except RuntimeError as error:
      reason = str(error).split(';')[0]
      raise StorageError(
        f'{path.parent} cannot be written to: {reason}; make room, then the same command goes on'
      ) from error

  writer = guarded(array_record_module.ArrayRecordWriter, str(path), _WRITER_OPTIONS)
  try:
    yield functools.partial(guarded, writer.write)
  except BaseException:
    with contextlib.suppress(RuntimeError):  # of what went wrong first
      writer.close()
    raise
  guarded(writer.close)


def read_row(handle: Handle, index: Index, row: int) -> np.ndarray:
  """Returns the bytes of a row, which need not be whole (`is_whole`), as a uint8 array."""
  data = np.empty(index.sizes[row], np.uint8)
  _read(handle, int(index.offsets[row]), memoryview(data))
  return data


def is_whole(index: Index, row: int, data: np.ndarray) -> bool:
  """Says whether the bytes of a row are those that were written."""
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


def _number(row: dict[str, Any], name: str) -> Any:
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
  """Walks over the chunks of a file; DataError if its rows are not where they are expected."""
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
  """Returns the place `count` bytes after `offset`, not counting headers of blocks."""
  block, within = divmod(offset, _BLOCK)
  payload = _BLOCK - _BLOCK_HEADER
  block, within = divmod(block * payload + max(within - _BLOCK_HEADER, 0) + count, payload)
  return block * _BLOCK + _BLOCK_HEADER + within


def _read(handle: Handle, offset: int, data: memoryview) -> None:
  """Fills `data` from `offset` on, leaving out headers of blocks."""
  aside = memoryview(bytearray(_BLOCK_HEADER))
  buffers = []
  begin = 0
  end = _BLOCK - offset % _BLOCK
  while begin < len(data):
    buffers += [data[begin:end], aside]
    begin = end
    end = end + _BLOCK - _BLOCK_HEADER
  handle.read_into(offset, buffers[:-1])
