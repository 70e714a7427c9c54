"""Random access to records: rows of arrays, strings and numbers in shards.

They hold latents or clips, which are made once and read many times. A directory, local or behind a
URL, has three files for each shard: an ArrayRecord file, its index (`shards.py`) and, if rows have
captions, those (`caption_files.py`). `manifest.json` is written last: a directory without it is
unfinished (`writer.py`).
"""

import bisect
import concurrent.futures
import functools
import hashlib
import itertools
import logging
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields, Sample
from mgjax.core.errors import DataError, StorageError
from mgjax.data.records import caption_files, shards
from mgjax.data.records.rows import decode_row
from mgjax.data.records.storage import Handle, Storage, open_storage
from mgjax.data.records.writer import RecordWriter, fault, read_record_manifest

# For all records of a process, which often may have only 1024 files open at once.
_OPEN_FILES = 128
_INDICES = 4096  # a few kilobytes each
_REQUESTS = 32
_MEND = 'delete it and run the command that made the records again: it writes only what is missing'

_log = logging.getLogger(__name__)


def write_records(
  directory: str | os.PathLike[str],
  rows: Any,
  *,
  rows_per_shard: int,
  meta: JSON | None = None,
  columns: Sequence[str] = (),
) -> 'Records':
  """Writes a source of rows; rows of finished shards are not read."""
  writer = RecordWriter(
    directory, rows=len(rows), rows_per_shard=rows_per_shard, meta=meta, columns=columns
  )
  for shard in writer.missing_shards():
    writer.write_shard(shard, (rows[index] for index in writer.shard_rows(shard)))
  writer.finish()
  return Records(directory)


class Records:
  """A finished directory as a source of rows; threads may read at once.

  `meta` was given when the directory was begun, `summary` when it was finished. `skipped` has a
  sentence for each shard that was left out.
  """

  def __init__(self, directory: str | os.PathLike[str], skip_missing: bool = False):
    """Checks the manifest against a listing of the files at a path or URL, without reading them.

    With `skip_missing` the rows of shards that are missing or cut off are left out, with a warning.

    Raises:
      StorageError: a shard is missing or cut off.
      DataError: there are no records, or they are unfinished or damaged.
    """
    self.directory = directory
    self._storage = open_storage(directory)
    manifest = read_record_manifest(self._storage)
    self.meta = manifest['meta']
    self.summary = manifest['summary']
    self.skipped = []
    self._shards = []
    names = self._storage.names()
    for shard in manifest['shards']:
      problem = fault(names, shard)
      if not problem:
        self._shards.append(shard)
      elif skip_missing:
        self.skipped.append(f'{self._storage.location}: {problem}; {shard["rows"]} rows left out')
        _log.warning('%s', self.skipped[-1])
      else:
        raise StorageError(f'{self._storage.location}: {problem}; {_MEND}')
    self._ends = list(itertools.accumulate(shard['rows'] for shard in self._shards))

  @property
  def fingerprint(self) -> str:
    """A hash of the content of all rows and their order."""
    digests = ' '.join(shard['sha256'] for shard in self._shards)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> Sample:
    """Reads a row, whose arrays are writable.

    Raises:
      StorageError: its shard is gone.
      DataError: the row is damaged.
    """
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    number = bisect.bisect_right(self._ends, index)
    shard = self._shards[number]
    row = index - self._ends[number] + shard['rows']
    stored = shard['columns']
    offsets = _cached_index(self._storage, stored['name'], stored['sha256'])
    data = shards.read_row(_open(self._storage, shard['name']), offsets, row)
    if not shards.is_whole(offsets, row, data):
      path = f'{self._storage.location}/{shard["name"]}'
      raise DataError(f'{path} is damaged at its row {row}; {_MEND}')
    return decode_row(data)

  def column(self, name: str) -> np.ndarray:
    """Returns a column that was chosen on writing, a number for each row; else DataError."""
    if name not in self._columns:
      names = ', '.join(self._columns) or 'none'
      raise DataError(f'{self._storage.location} has no column {name!r}; its columns: {names}')
    return self._columns[name]

  def captions(self, keep: bool = False) -> Iterator[Sample]:
    """Yields {'caption'} of each row, and 'fps' if it has one, without reading arrays.

    Shards of earlier versions have no caption file; their rows are read, with a warning. With
    `keep`, missing or damaged caption files are written. Raises DataError if a row has no caption,
    or if a row that has to be read is damaged.
    """
    return self._read_captions(caption_files.names(self._storage.names()), keep)

  def cheap_captions(self, most: int) -> Iterator[Sample] | None:
    """Returns `captions`, or None if that would read more than `most` bytes of rows."""
    files = caption_files.names(self._storage.names())
    return None if _bytes(self._without(files)) > most else self._read_captions(files)

  def _read_captions(self, files: Mapping[str, str], keep: bool = False) -> Iterator[Sample]:
    if missing := self._without(files):
      _log.warning(
        '%s: %d of %d shards have no file of captions; all of their %.3g GB is read instead',
        self._storage.location,
        len(missing),
        len(self._shards),
        _bytes(missing) / 1e9,
      )

    def read(number: int) -> list[JSON] | None:
      shard = self._shards[number]
      name = files.get(shard['name'])
      captions = name and caption_files.read(self._storage, name, shard['rows'])
      if name and captions is None:
        _log.warning('%s/%s is damaged; the rows are read instead', self._storage.location, name)
      return captions or None

    with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
      for first in range(0, len(self._shards), _REQUESTS):
        numbers = range(first, min(first + _REQUESTS, len(self._shards)))
        for number, captions in zip(numbers, pool.map(read, numbers), strict=True):
          if captions is None:
            captions = list(self._captions_of_rows(number))
            if keep:
              caption_files.write(self._storage, self._shards[number]['name'], captions)
          yield from captions

  def _without(self, files: Mapping[str, str]) -> list[JSON]:
    return [shard for shard in self._shards if shard['rows'] and shard['name'] not in files]

  def _captions_of_rows(self, number: int) -> Iterator[Sample]:
    end = self._ends[number]
    for index in range(end - self._shards[number]['rows'], end):
      row = caption_files.about(self[index])
      if 'caption' not in row:
        raise DataError(f'row {index} of {self._storage.location} has no caption')
      yield row

  @functools.cached_property
  def _columns(self) -> dict[str, np.ndarray]:
    # Shards without rows do not record the types of their columns: use them only if all are empty.
    numbers = range(len(self._shards))
    filled = [number for number in numbers if self._shards[number]['rows']] or numbers

    def read(number: int) -> shards.Index:
      stored = self._shards[number]['columns']
      return _read_index(self._storage, stored['name'], stored['sha256'])

    if not self._shards:
      raise StorageError(f'{self._storage.location}: every shard is missing or cut off; {_MEND}')
    with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
      parts = [index.columns for index in pool.map(read, filled)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def __getstate__(self) -> JSON:
    return {key: value for key, value in self.__dict__.items() if key != '_columns'}


def verify_records(directory: str | os.PathLike[str]) -> list[str]:
  """Reads every file completely and returns a sentence for each whose content has changed."""
  storage = open_storage(directory)
  names = storage.names()
  faults = []
  captions = caption_files.names(names)
  for shard in read_record_manifest(storage)['shards']:
    problem = fault(names, shard)
    for file in () if problem else (shard, shard['columns']):
      try:
        if shards.checksum(storage.open(file['name']), file['bytes']) != file['sha256']:
          problem = f'{file["name"]} does not have the checksum in the manifest'
      except StorageError as error:
        problem = str(error)
    if problem:
      faults.append(f'{storage.location}: {problem}; {_MEND}')
    file = captions.get(shard['name'])
    if file and caption_files.read(storage, file, shard['rows']) is None:
      faults.append(
        f'{storage.location}/{file} is damaged; delete it, then captions are read from the rows'
      )
  return faults


def _bytes(shards: Sequence[Fields]) -> int:
  return sum(shard['bytes'] for shard in shards)


def _read_index(storage: Storage, name: str, sha256: str) -> shards.Index:
  data = storage.read(name)
  if data is None:
    raise StorageError(f'{storage.location}/{name} is gone; {_MEND}')
  if hashlib.sha256(data).hexdigest() != sha256:
    raise StorageError(f'{storage.location}/{name} is damaged; {_MEND}')
  return shards.Index.from_bytes(data)


# Names of files contain a hash of their content, so a cached index is never outdated.
_cached_index = functools.lru_cache(_INDICES)(_read_index)


@functools.lru_cache(_OPEN_FILES)
def _open(storage: Storage, name: str) -> Handle:
  return storage.open(name)
