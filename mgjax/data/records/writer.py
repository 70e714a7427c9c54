"""Writes records from many processes on many hosts, each of which may die at any moment.

A shard is written completely under a temporary name, and renamed to `<index>-<start of its
SHA-256>.arrayrecord`. So two processes that make the same shard by mistake write different names
unless the content is equal. Then each creates the entry `<index>.json`, which names the files of
the shard. The first one wins, and the other deletes its files. `plan.json` is written first and
holds the settings of the directory. `manifest.json` is written last, holds all entries, and
replaces both.
"""

import concurrent.futures
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import JSON, Sample, differences
from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.data.records import caption_files, shards
from mgjax.data.records.storage import Folder, Storage, open_storage

_FORMAT = 2
MANIFEST = 'manifest.json'
PLAN = 'plan.json'
REMAKE = 'delete the directory and make the records again'
_PLAN_KEYS = ('format', 'rows', 'rows_per_shard', 'exact', 'columns', 'meta')
# Files of an unfinished directory, and those that killed processes leave behind.
_LEFTOVER = re.compile(
  rf'plan\.json|\d{{5,}}\.json|\d{{5,}}-[0-9a-f]+\.(arrayrecord|columns\.npz|{caption_files.PATTERN})'
  r'|\.(manifest\.json|plan\.json|\d{5,}[.-]).*'
)

_REQUESTS = 32  # at once, where entries are read from a bucket
_TRIES = 3

_log = logging.getLogger(__name__)


class Share(NamedTuple):
  """Which part of the work a process does: it is number `process` of the `processes` that work."""

  process: int = 0
  processes: int = 1


ALONE = Share()


class RecordWriter:
  """Writes the missing shards of a directory, in any order.

  writer = RecordWriter(directory, rows=len(clips), rows_per_shard=1024, meta={'config': hash})
  for shard in writer.missing_shards(*share):
    writer.write_shard(shard, (encode(clips[index]) for index in writer.shard_rows(shard)))
  if not writer.missing_shards():
    writer.finish()
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    rows: int,
    rows_per_shard: int,
    meta: JSON | None = None,
    columns: Sequence[str] = (),
    exact: bool = True,
  ):
    """Begins a directory, a path or a URL, or continues one.

    Args:
      rows_per_shard: a few hundred megabytes a shard is good.
      meta: plain JSON values on which the rows depend, such as the hash of a configuration.
      columns: fields of every row that are numbers or truth values; `Records.column` returns them
        without reading the rows.
      exact: if False, `rows` counts inputs, some of which may give no row.

    Raises:
      ConfigError: a size that is not positive, or the directory was begun with other values.
    """
    if rows < 1 or rows_per_shard < 1:
      raise ConfigError(f'{rows=} and {rows_per_shard=} must be at least 1')
    self.directory = directory
    self._storage = open_storage(directory)
    values = (_FORMAT, rows, rows_per_shard, exact, columns, meta or {})
    plan = dict(zip(_PLAN_KEYS, values, strict=True))
    self._plan = json.loads(json.dumps(plan))  # as it will be read: tuples become lists
    if not self._is_begun() and not self._storage.create(PLAN, _to_json(self._plan)):
      self._is_begun()
    if self._storage.read(MANIFEST) is not None:  # another process finished it in between
      self._storage.remove(PLAN)

  def shards(self) -> list[JSON]:
    """Returns the entries of the finished shards: name, rows, bytes, sha256, columns and notes."""
    entries = self._entries()
    return [entries[index] for index in sorted(entries)]

  def missing_shards(self, process: int = 0, processes: int = 1) -> list[int]:
    """Returns the indices of the shards that have yet to be written.

    With several processes each gets the indices that are `process` modulo `processes`.
    """
    if not 0 <= process < processes:
      raise ConfigError(f'{process=} must be from 0 to {processes - 1}, one less than {processes=}')
    finished = self._entries()
    count = -(-self._plan['rows'] // self._plan['rows_per_shard'])
    return [index for index in range(process, count, processes) if index not in finished]

  def shard_rows(self, index: int) -> range:
    size = self._plan['rows_per_shard']
    return range(index * size, min((index + 1) * size, self._plan['rows']))

  def write_shard(
    self, index: int, rows: Iterable[JSON], notes: Callable[[], object] | None = None
  ) -> None:
    """Writes one shard, which counts once it is complete and safely stored.

    If another process has written it meanwhile, that one is kept. `rows` are those of
    `shard_rows(index)`, in order. `notes` is called after the last row. Its plain JSON value is
    stored in the shard's entry, for statistics that `finish` sums over all shards. Raises DataError
    if there are too few or too many rows, or one that cannot be serialised.
    """
    try:
      self._enter(index, self._write_files(index, rows, notes))
    except (StorageError, OSError):
      if self._entry(index) is None:  # otherwise another process has finished and cleaned up
        raise

  def finish(self, summary: JSON | None = None) -> None:
    """Writes the manifest, which makes the directory readable, and deletes leftover files.

    Several processes may call it, also at once; it does not change a finished directory. `summary`
    has plain JSON values that are known only at the end, such as statistics of latents. Raises
    DataError if shards are missing.
    """
    if missing := self.missing_shards():
      raise DataError(f'{self._storage.location}: the shards {missing} have yet to be written')
    entries = self.shards()
    previous = self._manifest() or {'summary': {}, 'shards': []}
    if previous['shards'] != entries:
      summary = previous['summary'] if summary is None else summary
      manifest = {**self._plan, 'summary': summary, 'shards': entries}
      try:
        self._storage.replace(MANIFEST, _to_json(manifest))
      except (StorageError, OSError):
        if self._finished() != entries:  # otherwise another process has finished and cleaned up
          raise
    used_stems = {_stem(entry['name']) for entry in entries}
    for name in self._storage.names():
      if _stem(name) not in used_stems and _LEFTOVER.fullmatch(name):
        self._storage.remove(name)

  def _is_begun(self) -> bool:
    """Checks the settings with which the directory was begun; False if it was not."""
    saved = self._manifest()
    if saved is None:
      plan = self._storage.read(PLAN)
      if plan is None:
        return False
      saved = json.loads(plan)
    for key, value in self._plan.items():
      if saved.get(key) != value:
        changed = differences({key: saved.get(key)}, {key: value})
        raise ConfigError(
          f'{self._storage.location} was begun with other values: {"; ".join(changed):.500}; use '
          'the same ones, or another directory'
        )
    return True

  def _manifest(self) -> dict[str, Any] | None:
    return None if self._storage.read(MANIFEST) is None else read_record_manifest(self._storage)

  def _entries(self) -> dict[int, JSON]:
    """Index -> entry of the shards whose files are there."""
    indices = map(_entry_index, self._storage.names())
    with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
      entries = list(pool.map(self._read_entry, (index for index in indices if index is not None)))
    # The manifest is read after the entries, because its writer deletes them.
    return _present([*entries, *self._finished()], self._storage.names())

  def _entry(self, index: int) -> JSON | None:
    entries = [self._read_entry(index), *self._finished()]
    return _present(entries, self._storage.names(f'{index:05d}')).get(index)

  def _finished(self) -> list[JSON]:
    return (self._manifest() or {'shards': []})['shards']

  def _read_entry(self, index: int) -> JSON | None:
    data = self._storage.read(f'{index:05d}.json')
    try:
      return None if data is None else json.loads(data)
    except ValueError:
      return None

  def _write_files(
    self, index: int, rows: Iterable[JSON], notes: Callable[[], object] | None
  ) -> JSON:
    expected = len(self.shard_rows(index))
    stem = f'{index:05d}'
    captions: list[Sample] = []

    def noted() -> Iterator[JSON]:
      for row in rows:
        captions.append(caption_files.about(row))
        yield row

    with self._storage.partial(f'{stem}.arrayrecord') as partial:
      shard_index = shards.write_rows(partial, noted(), self._plan['columns'])
      count = len(shard_index.sizes)
      if count > expected or (self._plan['exact'] and count < expected):
        raise DataError(f'shard {stem} has {expected} rows, but {count} were given')
      size = partial.stat().st_size
      digest = shards.checksum(Folder(partial.parent).open(partial.name), size)
      stem = f'{stem}-{digest[:12]}'
      name = f'{stem}.arrayrecord'
      shard = {'name': name, 'rows': count, 'bytes': size, 'sha256': digest}
      columns = shard_index.to_bytes()
      shard['columns'] = {
        'name': f'{stem}.columns.npz',
        'bytes': len(columns),
        'sha256': hashlib.sha256(columns).hexdigest(),
      }
      entry = shard | {'notes': notes and notes()}
      self._storage.publish(partial, shard['name'])
    self._storage.replace(shard['columns']['name'], columns)
    caption_files.write(self._storage, shard['name'], captions)
    return entry

  def _enter(self, index: int, entry: JSON) -> None:
    name = f'{index:05d}.json'
    for _ in range(_TRIES):
      self._storage.create(name, _to_json(entry))
      if winner := self._entry(index):
        break
      self._storage.remove(name)  # it names files that have been lost since
    else:
      raise StorageError(f'{self._storage.location}/{entry["name"]} was written, but is not there')
    if winner in self._finished():
      self._storage.remove(name)  # the directory was finished before it was written
    if winner['name'] != entry['name']:
      _log.info('%s: shard %d was written by another process', self._storage.location, index)
      for file in self._storage.names(f'{_stem(entry["name"])}.'):
        self._storage.remove(file)


def read_record_manifest(storage: Storage) -> dict[str, Any]:
  """Reads the manifest of finished records; DataError if it is missing or damaged."""
  data = storage.read(MANIFEST)
  where = f'{storage.location}/{MANIFEST}'
  if data is None:
    if not storage.names():
      raise DataError(f'there are no records at {storage.location}: nothing there; check the path')
    raise DataError(
      f'{storage.location} has no {MANIFEST}, so its records are unfinished; '
      'run the command that makes them again, it goes on where it stopped'
    )
  try:
    manifest = json.loads(data)
    if manifest['format'] != _FORMAT:
      raise DataError(f'{where} has format {manifest["format"]}, expected {_FORMAT}; {REMAKE}')
    total = sum(shard['rows'] for shard in manifest['shards'])
    if total > manifest['rows'] or (manifest['exact'] and total != manifest['rows']):
      raise DataError(f'the shards in {where} have {total} rows, not {manifest["rows"]}; {REMAKE}')
    for shard in manifest['shards']:
      stored_files(shard)
    # Raises LookupError here if a field is missing.
    _ = manifest['meta'], manifest['summary']
    _ = [(shard['sha256'], shard['columns']['sha256']) for shard in manifest['shards']]
  except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
    raise DataError(f'{where} is not a manifest of records ({error!r}); {REMAKE}') from error
  return manifest


def stored_files(shard: JSON) -> list[tuple[str, int]]:
  """Returns name and size of the two required files of a shard."""
  return [(str(file['name']), int(file['bytes'])) for file in (shard, shard['columns'])]


def fault(names: dict[str, int | None], shard: JSON) -> str:
  """Describes a problem of a shard that a listing of files shows, '' if there is none."""
  for name, size in stored_files(shard):
    if name not in names:
      return f'{name} is missing'
    if names[name] not in (None, size):
      return f'{name} has {names[name]} bytes instead of {size}'
  return ''


def _stem(name: str) -> str:
  return name.partition('.')[0]


def _entry_index(name: str) -> int | None:
  stem, _, end = name.partition('.')
  return int(stem) if end == 'json' and stem.isdigit() else None


def _present(entries: list[JSON | None], names: dict[str, int | None]) -> dict[int, JSON]:
  """Maps each index to its last entry whose files are among the names."""
  complete = (entry for entry in entries if entry and not fault(names, entry))
  return {int(entry['name'].split('-')[0]): entry for entry in complete}


def _to_json(value: object) -> bytes:
  return (json.dumps(value, indent=2) + '\n').encode()
