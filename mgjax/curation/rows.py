"""Rows of scores on the disk: parquet shards beside a manifest, of which a killed run loses none.

A shard holds the rows of a few videos. It is written whole, named after its content, and counts
from the moment on at which its entry `<index>.json` is there. `plan.json` says what the scores are
of. When all shards are there, `manifest.json` takes the place of both and names the table, one
parquet file of all rows without their pictures and vectors, which is quick to read, and a file for
each column of vectors, float32 one row after another, of which those are read that are asked for.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.typing import Float, Int
from mgjax.curation.filters.table import dense
from mgjax.data.records.storage import inside, open_storage

FORMAT = 1
MANIFEST, PLAN = 'manifest.json', 'plan.json'
PICTURES = ('middle', 'loop')  # columns that the table leaves out
GATED = 'gated'  # column: why a video was not decoded
_DIGITS = 12  # of a digest, in names
_GAP = 64  # rows between two vectors that are read at once
_MEND = 'delete its folder, and the same command measures its videos again'


@dataclasses.dataclass(frozen=True)
class Entry:
  """A finished shard.

  Attributes:
    index: of the shard.
    name: of its file.
    bytes: of that.
    videos: how many were looked at.
    rows: how many came of them, those of videos that could not be measured among them.
    seconds: that it took one worker.
    decoded: seconds of video in it.
    gated: how many videos were not decoded, since their size or length drops them.
  """

  index: int
  name: str
  bytes: int
  videos: int
  rows: int
  seconds: float
  decoded: float
  gated: int = 0


# Column of vectors -> what returns those of some rows, float32 (n d).
Vectors = Mapping[str, Callable[[Int[np.ndarray, 'n']], Float[np.ndarray, 'n d']]]


def digest(value: Any) -> str:
  """Names plain JSON values."""
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


class Scores:
  """The rows of one measurement, in a folder of their own."""

  def __init__(
    self,
    directory: str | os.PathLike[str],
    identity: Mapping[str, Any],
    videos: int,
    videos_per_shard: int,
  ):
    """Begins a folder below `directory`, or goes on with it.

    Args:
      directory: of all measurements.
      identity: what the rows depend on, in plain JSON values; its digest names the folder, so
        other settings begin another one and what is there stays.
      videos: how many there are.
      videos_per_shard: the last shard may have fewer.

    Raises:
      ConfigError: pyarrow is not installed.
    """
    pyarrow()
    values = {'format': FORMAT, 'videos': videos, 'videos_per_shard': videos_per_shard}
    self.plan = {**values, 'identity': dict(identity)}
    self.digest = digest(self.plan)
    self.directory = inside(directory, self.digest)
    self.videos, self._size = videos, videos_per_shard
    self._storage = open_storage(self.directory)
    self._parsed: tuple[bytes, dict[str, Any]] | None = None
    self._whole: dict[int, Entry] = {}  # once `finish` found all of them
    if self._manifest() is None:
      self._storage.create(PLAN, _to_json(self.plan))

  def __len__(self) -> int:
    """How many shards there are."""
    return -(-self.videos // self._size)

  def places(self, index: int) -> range:
    """Returns the places of a shard's videos among all."""
    return range(index * self._size, min((index + 1) * self._size, self.videos))

  def order(self) -> list[int]:
    """Returns all shards in the order in which they are measured: shuffled, always alike.

    The first of them are a fair sample of all videos, however those are sorted.
    """
    return np.random.default_rng(0).permutation(len(self)).tolist()

  def entries(self) -> dict[int, Entry]:
    """Index -> entry of each finished shard whose file is there."""
    return self._entries(self._storage.names())

  def _entries(self, names: Mapping[str, int | None]) -> dict[int, Entry]:
    manifest = self._manifest()
    found = [] if manifest is None else [Entry(**each) for each in manifest['shards']]
    for name in names:
      stem, _, end = name.partition('.')
      if end == 'json' and stem.isdigit():
        with contextlib.suppress(ValueError, TypeError):
          found.append(Entry(**json.loads(self._storage.read(name) or b'null')))
    there = {each.index: each for each in found if names.get(each.name, -1) in (None, each.bytes)}
    return dict(sorted(there.items()))

  def write(
    self,
    index: int,
    rows: Sequence[Mapping[str, Any]],
    seconds: float,
    instead_of: Entry | None = None,
  ) -> Entry:
    """Writes the rows of a shard; of two that write it the first counts.

    Args:
      index: of the shard.
      rows: of its videos, one a clip.
      seconds: that they took.
      instead_of: the entry of this shard whose place it takes.
    """
    self._whole = {}
    names = dict.fromkeys(name for row in rows for name in row)  # a row may lack some
    columns = {name: [row.get(name) for row in rows] for name in names}
    data = to_parquet(pyarrow().table(columns))
    name = f'{index:05d}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.parquet'
    gated = sum(bool(row.get(GATED)) for row in rows)
    lengths = {row['video']: row.get('seconds') or 0.0 for row in rows if not row.get(GATED)}
    entry = Entry(
      index,
      name,
      len(data),
      len(self.places(index)),
      len(rows),
      seconds,
      sum(lengths.values()),
      gated,
    )
    self._storage.replace(name, data)
    place = f'{index:05d}.json'
    if not self._storage.create(place, _to_json(dataclasses.asdict(entry))):
      first = self.entries().get(index)
      # An entry of a file that was lost since, or half an entry, or an older one.
      if first is None or first == instead_of:
        self._storage.replace(place, _to_json(dataclasses.asdict(entry)))
      elif first.name != name:
        self._storage.remove(name)
        return first
    return entry

  def finish(self) -> None:
    """Writes the table and the manifest, when all shards are there; the second time, nothing.

    Raises:
      DataError: shards are missing, or one is damaged.
    """
    names = self._storage.names()
    entries = self._entries(names)
    if missing := [index for index in range(len(self)) if index not in entries]:
      raise DataError(f'{self.directory}: shards {missing[:9]} have yet to be measured')
    listed = [vars(entry) for entry in entries.values()]
    manifest = self._manifest()
    if manifest and manifest['shards'] == listed and _files_of(manifest) <= set(names):
      self._whole = entries
      return
    table, vectors = self._read(list(entries.values()), without=PICTURES), {}
    for field in table.schema:
      if 'list' in str(field.type) and (rows := dense(table.column(field.name))) is not None:
        vectors[field.name] = {
          'name': self._named(field.name, 'f32', rows.astype('<f4').tobytes()),
          'length': rows.shape[1],
        }
    data = to_parquet(table.drop_columns(list(vectors)))
    name = self._named('table', 'parquet', data)
    about = {'table': {'name': name, 'bytes': len(data)}, 'vectors': vectors}
    whole = {**self.plan, 'shards': listed, **about}
    self._storage.replace(MANIFEST, _to_json(whole))
    self._whole = entries
    kept = {MANIFEST, *_files_of(whole), *(entry.name for entry in entries.values())}
    for leftover in self._storage.names():
      if leftover not in kept:
        self._storage.remove(leftover)

  def table(self) -> tuple[Any, Vectors]:
    """Returns the rows of all finished shards, without their pictures.

    Returns:
      A pyarrow.Table, and what reads those columns of vectors that are not in it: all of them when
      all shards are there, else none.
    """
    manifest, entries = self._manifest(), list((self._whole or self.entries()).values())
    if manifest is None or [vars(each) for each in entries] != manifest['shards']:
      return self._read(entries, without=PICTURES), {}
    vectors = {
      name: functools.partial(self._vectors, each['name'], each['length'])
      for name, each in manifest.get('vectors', {}).items()
    }
    return self._parquet(manifest['table']['name']), vectors

  def gated(self, entries: Iterable[Entry]) -> Any:
    """Returns the rows of videos that were not decoded, a pyarrow.Table; None if there is none.

    Args:
      entries: of the shards that are looked at.
    """
    if not (some := [entry for entry in entries if entry.gated]):
      return None
    table = self._read(some, without=PICTURES)
    return table.filter(table.column(GATED).is_valid())

  def rows(self, index: int) -> tuple[Entry | None, list[dict[str, Any]]]:
    """Returns the entry of a shard, None of one that is not finished, and its rows."""
    if (entry := self.entries().get(index)) is None:
      return None, []
    return entry, self._parquet(entry.name).to_pylist()

  def pictures(
    self, wanted: Mapping[int, Collection[str]], column: str = PICTURES[0]
  ) -> dict[str, bytes]:
    """Returns the pictures of some clips, of those that have one: name of the clip -> its file.

    Args:
      wanted: shard -> names of clips in it.
      column: one of PICTURES.
    """
    found, entries = {}, self.entries()
    for index, clips in wanted.items():
      for row in self._parquet(entries[index].name, ['clip', column]).to_pylist():
        if row['clip'] in clips and row.get(column):
          found[row['clip']] = row[column]
    return found

  def _named(self, what: str, end: str, data: bytes) -> str:
    """Writes a file that is named after its content."""
    name = f'{what}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.{end}'
    self._storage.replace(name, data)
    return name

  def _vectors(
    self, name: str, length: int, rows: Int[np.ndarray, 'n']
  ) -> Float[np.ndarray, 'n d']:
    """Reads vectors of some rows, which ascend, from a file of all."""
    made, file = np.empty((len(rows), length), '<f4'), self._storage.open(name)
    bounds = [0, *(np.flatnonzero(np.diff(rows) > _GAP) + 1), len(rows)]
    for low, high in itertools.pairwise(bounds):
      if low < high:
        first = int(rows[low])
        block = np.empty((int(rows[high - 1]) + 1 - first, length), '<f4')
        file.read_into(4 * length * first, [memoryview(block).cast('B')])
        made[low:high] = block[rows[low:high] - first]
    return made

  def _read(self, entries: Sequence[Entry], without: Sequence[str]) -> Any:
    arrow, tables = pyarrow(), []
    for entry in entries:
      table = self._parquet(entry.name)
      table = table.drop_columns([name for name in without if name in table.column_names])
      shard = arrow.array(np.full(len(table), entry.index, np.int64))
      tables.append(table.append_column('shard', shard))
    if not tables:
      raise DataError(f'{self.directory}: nothing is measured yet')
    return arrow.concat_tables(tables, promote_options='permissive').combine_chunks()

  def _parquet(self, name: str, columns: Sequence[str] | None = None) -> Any:
    arrow, data = pyarrow(), self._storage.read(name)
    try:
      table = arrow.parquet.read_table(arrow.BufferReader(data or b''), columns=columns)
    except (arrow.ArrowException, OSError) as error:
      where = printable(inside(self.directory, name))
      raise DataError(f'{where} is damaged ({error!s:.100}); {_MEND}') from error
    return table

  def _manifest(self) -> dict[str, Any] | None:
    data = self._storage.read(MANIFEST)
    if data is None:
      return None
    if self._parsed and self._parsed[0] == data:  # a million clips have 10 MB of it
      return self._parsed[1]
    try:
      manifest = json.loads(data)
      for each in manifest['shards']:
        Entry(**each)
      if not all(isinstance(name, str) for name in _files_of(manifest)):
        raise TypeError('no name')
    except (ValueError, TypeError, KeyError) as error:
      where = printable(inside(self.directory, MANIFEST))
      raise DataError(f'{where} is damaged ({error!r:.100}); {_MEND}') from error
    self._parsed = data, manifest
    return manifest


def _files_of(manifest: Mapping[str, Any]) -> set[str]:
  """Names of the files of a manifest beside its shards."""
  return {each['name'] for each in (manifest['table'], *manifest.get('vectors', {}).values())}


def pyarrow() -> Any:
  """The library of tables, with its part for parquet.

  Raises:
    ConfigError: it is not installed.
  """
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError:
    raise ConfigError(
      "curation needs pyarrow, which is not installed: pip install 'mgjax[curation]'"
    ) from None
  return pyarrow


def to_parquet(table: Any) -> bytes:
  """Returns the parquet file of a pyarrow.Table."""
  file = io.BytesIO()
  pyarrow().parquet.write_table(table, file, compression='zstd')
  return file.getvalue()


def _to_json(value: Any) -> bytes:
  return (json.dumps(value, indent=1) + '\n').encode()
