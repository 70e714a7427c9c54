"""Records: rows of arrays, strings and numbers in ArrayRecord shards.

They hold latents, which are encoded once and read many times in random order. A directory has
`00000.arrayrecord`, `00001.arrayrecord`, ... and `manifest.json`, which is written last: without it
the directory is unfinished. Shard i holds the rows [i R, (i+1) R), so an encoder that was killed
goes on with the shards that are missing. While it is unfinished the directory also holds
`plan.json` and one small `*.arrayrecord.json` for each finished shard.

A row is the length of its header (4 bytes, little endian), the header (JSON: name -> {"dtype",
"shape"} or {"value"}), and the bytes of the arrays in the order of the header, C order, little
endian. No pickle: reading a stranger's records runs none of the stranger's code.
"""

import hashlib
import json
import operator
import os
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
from array_record.python import array_record_module

from mgjax.core import files
from mgjax.core.config import differences
from mgjax.core.errors import ConfigError, DataError

_FORMAT = 1
_PLAN_KEYS = ('format', 'rows', 'rows_per_shard', 'meta')
# Latents do not compress; groups of one row make a random read touch that row alone.
_WRITER_OPTIONS = 'group_size:1,uncompressed'
_READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_READER_BUFFER = 32768
_MEND = 'delete it and run the command that made the records again: it writes only what is missing'
_REMAKE = 'delete the directory and make the records again'


def encode_row(row: dict[str, Any]) -> bytes:
  """Serialises a row: numpy arrays (also bfloat16 and its kin), strings, numbers, truth values."""
  header, arrays = {}, []
  for name, value in row.items():
    if isinstance(value, np.ndarray | np.generic) and _is_number(value.dtype):
      header[name] = {'dtype': value.dtype.name, 'shape': value.shape}
      arrays.append(value.astype(value.dtype.newbyteorder('<'), copy=False).tobytes())
    elif isinstance(value, str | int | float):
      header[name] = {'value': value}
    else:
      raise DataError(
        f'the field {name!r} of a row is of type {type(value).__name__}; '
        'a row holds numpy arrays of numbers, strings and numbers only'
      )
  text = json.dumps(header).encode()
  return b''.join([len(text).to_bytes(4, 'little'), text, *arrays])


def decode_row(data: bytes) -> dict[str, Any]:
  """Undoes `encode_row`; scalars of numpy come back as arrays without axes."""
  end = 4 + int.from_bytes(data[:4], 'little')
  row = {}
  for name, field in json.loads(data[4:end]).items():
    if 'value' in field:
      row[name] = field['value']
    else:
      dtype, shape = np.dtype(field['dtype']), tuple(field['shape'])
      count = int(np.prod(shape, dtype=np.int64))
      # The copy is aligned and writable, what the bytes of a record need not be.
      row[name] = np.frombuffer(data, dtype, count, end).reshape(shape).copy()
      end += count * dtype.itemsize
  return row


class RecordWriter:
  """Writes the shards of a directory in any order, those that are missing only.

  Several processes may write different shards of one directory; one of them calls `finish`.

      writer = RecordWriter(directory, rows=len(clips), rows_per_shard=1024, meta={'config': hash})
      for shard in writer.missing_shards():
        writer.write_shard(shard, (encode(clips[index]) for index in writer.shard_rows(shard)))
      writer.finish()
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    rows: int,
    rows_per_shard: int,
    meta: dict[str, Any] | None = None,
  ):
    """Begins a directory or goes on with one.

    Args:
      directory: made if it does not exist.
      rows: number of all rows.
      rows_per_shard: a few hundred megabytes a shard is good; a reader holds its shards open.
      meta: what the rows depend on, in plain JSON values, such as the hash of a configuration.

    Raises:
      ConfigError: a size that is not positive, or the directory was begun with other values.
    """
    if rows < 1 or rows_per_shard < 1:
      raise ConfigError(f'{rows=} and {rows_per_shard=} must be at least 1')
    self.directory = pathlib.Path(directory)
    plan = dict(zip(_PLAN_KEYS, (_FORMAT, rows, rows_per_shard, meta or {}), strict=True))
    self._plan = json.loads(json.dumps(plan))  # as it is read back: tuples are lists
    if (self.directory / 'manifest.json').exists():
      self._check_plan(_read_manifest(self.directory))
    elif (self.directory / 'plan.json').exists():
      self._check_plan(files.read_json(self.directory / 'plan.json'))
    else:
      files.write_json(self.directory / 'plan.json', self._plan)

  def shards(self) -> list[dict[str, Any]]:
    """Returns the entries of the finished shards: name, rows, bytes, sha256 and notes."""
    found = {}
    if (self.directory / 'manifest.json').exists():
      found = {shard['name']: shard for shard in _read_manifest(self.directory)['shards']}
    for path in self.directory.glob('*.arrayrecord.json'):
      found[path.stem] = files.read_json(path)
    return [found[name] for name in sorted(found) if not _fault(self.directory, found[name])]

  def missing_shards(self) -> list[int]:
    """Returns the indices of the shards that have yet to be written."""
    finished = {shard['name'] for shard in self.shards()}
    count = -(-self._plan['rows'] // self._plan['rows_per_shard'])
    return [index for index in range(count) if _shard_name(index) not in finished]

  def shard_rows(self, index: int) -> range:
    """Returns the indices of the rows of a shard."""
    size = self._plan['rows_per_shard']
    return range(index * size, min((index + 1) * size, self._plan['rows']))

  def write_shard(
    self, index: int, rows: Iterable[dict[str, Any]], notes: Callable[[], Any] | None = None
  ) -> None:
    """Writes one shard, which exists under its name only when it is whole and on the disk.

    Args:
      index: of the shard.
      rows: those of `shard_rows(index)`, in order.
      notes: called after the last row; its plain JSON value is kept in the shard's entry, for
        statistics that `finish` sums over the shards, resumed or not.

    Raises:
      DataError: too few or too many rows, or one that cannot be serialised.
    """
    name, expected = _shard_name(index), len(self.shard_rows(index))
    partial = self.directory / f'.{name}.{uuid.uuid4().hex}.partial'
    try:
      count = 0
      writer = array_record_module.ArrayRecordWriter(str(partial), _WRITER_OPTIONS)
      try:
        for row in rows:
          writer.write(encode_row(row))
          count += 1
      finally:
        writer.close()
      if count != expected:
        raise DataError(f'shard {name} has {expected} rows, but {count} were given')
      with partial.open('rb') as file:
        os.fsync(file.fileno())
      entry = {'name': name, 'rows': count, **_measure(partial), 'notes': notes and notes()}
      os.replace(partial, self.directory / name)
    except BaseException:
      partial.unlink(missing_ok=True)
      raise
    files.write_json(self.directory / f'{name}.json', entry)

  def finish(self, summary: dict[str, Any] | None = None) -> None:
    """Writes the manifest, which makes the directory readable, and clears what is left over.

    Args:
      summary: what is known at the end only, in plain JSON values, such as statistics of latents.

    Raises:
      DataError: shards are missing.
    """
    if missing := self.missing_shards():
      raise DataError(f'{self.directory}: the shards {missing} have yet to be written')
    manifest = {**self._plan, 'summary': summary or {}, 'shards': self.shards()}
    files.write_json(self.directory / 'manifest.json', manifest)
    for pattern in ('*.arrayrecord.json', '.*.partial', '.*.json.*', 'plan.json'):
      for path in self.directory.glob(pattern):
        path.unlink(missing_ok=True)

  def _check_plan(self, begun: dict[str, Any]) -> None:
    for key, value in self._plan.items():
      if begun[key] != value:
        changed = differences({key: begun[key]}, {key: value})
        raise ConfigError(
          f'{self.directory} was begun with other values: {"; ".join(changed):.500}; use the same '
          'ones, or another directory'
        )


def write_records(
  directory: str | os.PathLike[str],
  rows: Any,
  *,
  rows_per_shard: int,
  meta: dict[str, Any] | None = None,
) -> 'Records':
  """Writes a source of rows (`__len__`, `__getitem__`) and returns it as `Records`.

  Rows of shards that are already finished are not asked for.
  """
  writer = RecordWriter(directory, rows=len(rows), rows_per_shard=rows_per_shard, meta=meta)
  missing = writer.missing_shards()
  for shard in missing:
    writer.write_shard(shard, (rows[index] for index in writer.shard_rows(shard)))
  if missing or not (writer.directory / 'manifest.json').exists():
    writer.finish()
  return Records(directory)


class Records:
  """A finished directory as a source of rows; shards are opened when they are first read.

  Attributes:
    meta: given when the directory was begun.
    summary: given when it was finished.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    """Checks the manifest and the size of every shard, without reading them.

    Raises:
      DataError: the directory is missing, unfinished or damaged.
    """
    self.directory = pathlib.Path(directory)
    manifest = _read_manifest(self.directory)
    self.meta, self.summary = manifest['meta'], manifest['summary']
    self._rows, self._rows_per_shard = manifest['rows'], manifest['rows_per_shard']
    self._shards = manifest['shards']
    for shard in self._shards:
      if fault := _fault(self.directory, shard):
        raise DataError(f'{self.directory / shard["name"]} {fault}; {_MEND}')
    self._readers: dict[int, Any] = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return self._rows

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = operator.index(index)
    if not 0 <= index < self._rows:
      raise IndexError(f'row {index} of {self._rows}')
    shard, position = divmod(index, self._rows_per_shard)
    try:
      data = self._reader(shard).read([position])[0]
    except RuntimeError as error:
      path = self.directory / self._shards[shard]['name']
      raise DataError(f'{path} is damaged at its row {position} ({error}); {_MEND}') from error
    return decode_row(data)

  def __getstate__(self) -> dict[str, Any]:
    return {key: value for key, value in self.__dict__.items() if key not in ('_readers', '_lock')}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state, _readers={}, _lock=threading.Lock())

  def _reader(self, shard: int) -> Any:
    with self._lock:
      if shard not in self._readers:
        path, rows = self.directory / self._shards[shard]['name'], self._shards[shard]['rows']
        reader = array_record_module.ArrayRecordReader(
          str(path), options=_READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER
        )
        if reader.num_records() != rows:  # also 0 for a file that cannot be read
          raise DataError(f'{path} holds {reader.num_records()} rows instead of {rows}; {_MEND}')
        self._readers[shard] = reader
      return self._readers[shard]


def verify(directory: str | os.PathLike[str]) -> list[str]:
  """Reads every shard in full and returns a sentence for each that is not what was written.

  Raises:
    DataError: there is no manifest to compare with.
  """
  directory = pathlib.Path(directory)
  faults = []
  for shard in _read_manifest(directory)['shards']:
    fault = _fault(directory, shard)
    if not fault and _measure(directory / shard['name'])['sha256'] != shard['sha256']:
      fault = 'does not have the checksum in the manifest'
    if fault:
      faults.append(f'{directory / shard["name"]} {fault}; {_MEND}')
  return faults


def _read_manifest(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / 'manifest.json'
  if not directory.is_dir():
    raise DataError(f'there are no records at {directory}: no such directory; check the path')
  if not path.exists():
    raise DataError(
      f'{directory} has no manifest.json, so its records are unfinished; '
      'run the command that makes them again, it goes on where it stopped'
    )
  try:
    manifest = files.read_json(path)
    if manifest['format'] != _FORMAT:
      raise DataError(f'{path} has format {manifest["format"]}, expected {_FORMAT}; {_REMAKE}')
    total = sum(shard['rows'] for shard in manifest['shards'])
    if total != manifest['rows']:
      raise DataError(f'the shards in {path} have {total} rows, not {manifest["rows"]}; {_REMAKE}')
  except (ValueError, KeyError, TypeError) as error:
    raise DataError(f'{path} is not a manifest of records ({error!r}); {_REMAKE}') from error
  return manifest


def _fault(directory: pathlib.Path, shard: dict[str, Any]) -> str:
  path = directory / shard['name']
  if not path.exists():
    return 'is missing'
  if (size := path.stat().st_size) != shard['bytes']:
    return f'has {size} bytes instead of {shard["bytes"]}'
  return ''


def _measure(path: pathlib.Path) -> dict[str, Any]:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return {'bytes': path.stat().st_size, 'sha256': digest}


def _shard_name(index: int) -> str:
  return f'{index:05d}.arrayrecord'


def _is_number(dtype: np.dtype) -> bool:
  return dtype.kind in 'biufc' or hasattr(ml_dtypes, dtype.name)
