"""Rows of scores on the disk: parquet shards beside a manifest, of which a killed run loses none.

A shard holds the rows of a few videos. It is written whole, named after its content, and counts
from the moment on at which its entry `<index>.json` is there. `plan.json` says what the scores are
of. When all shards are there, `manifest.json` takes the place of both and names the table, one
parquet file of all rows without their pictures, which is quick to read.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.data.records.storage import inside, open_storage

FORMAT = 1
MANIFEST, PLAN = 'manifest.json', 'plan.json'
PICTURES = ('middle',)  # columns that the table leaves out
_DIGITS = 12  # of a digest, in names
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
  """

  index: int
  name: str
  bytes: int
  videos: int
  rows: int
  seconds: float
  decoded: float


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
    names = self._storage.names()
    manifest = self._manifest()
    found = [] if manifest is None else [Entry(**each) for each in manifest['shards']]
    for name in names:
      stem, _, end = name.partition('.')
      if end == 'json' and stem.isdigit():
        with contextlib.suppress(ValueError, TypeError):
          found.append(Entry(**json.loads(self._storage.read(name) or b'null')))
    there = {each.index: each for each in found if names.get(each.name, -1) in (None, each.bytes)}
    return dict(sorted(there.items()))

  def write(self, index: int, rows: Sequence[Mapping[str, Any]], seconds: float) -> Entry:
    """Writes the rows of a shard; of two that write it the first counts.

    Args:
      index: of the shard.
      rows: of its videos, one a clip.
      seconds: that they took.
    """
    names = dict.fromkeys(name for row in rows for name in row)  # a row may lack some
    columns = {name: [row.get(name) for row in rows] for name in names}
    data = to_parquet(pyarrow().table(columns))
    name = f'{index:05d}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.parquet'
    lengths = {row['video']: row.get('seconds') or 0.0 for row in rows}
    entry = Entry(
      index, name, len(data), len(self.places(index)), len(rows), seconds, sum(lengths.values())
    )
    self._storage.replace(name, data)
    place = f'{index:05d}.json'
    if not self._storage.create(place, _to_json(dataclasses.asdict(entry))):
      first = self.entries().get(index)
      if first is None:  # an entry of a file that was lost since, or half an entry
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
    entries = self.entries()
    if missing := [index for index in range(len(self)) if index not in entries]:
      raise DataError(f'{self.directory}: shards {missing[:9]} have yet to be measured')
    listed = [dataclasses.asdict(entry) for entry in entries.values()]
    manifest, names = self._manifest(), self._storage.names()
    if manifest and manifest['shards'] == listed and manifest['table']['name'] in names:
      return
    data = to_parquet(self._read(list(entries.values()), without=PICTURES))
    name = f'table-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.parquet'
    self._storage.replace(name, data)
    whole = {**self.plan, 'shards': listed, 'table': {'name': name, 'bytes': len(data)}}
    self._storage.replace(MANIFEST, _to_json(whole))
    kept = {MANIFEST, name, *(entry.name for entry in entries.values())}
    for leftover in self._storage.names():
      if leftover not in kept:
        self._storage.remove(leftover)

  def table(self) -> Any:
    """Returns the rows of all finished shards, without their pictures, as a pyarrow.Table."""
    manifest, entries = self._manifest(), list(self.entries().values())
    if (
      manifest is not None and [dataclasses.asdict(each) for each in entries] == manifest['shards']
    ):
      return self._parquet(manifest['table']['name'])
    return self._read(entries, without=PICTURES)

  def pictures(self, wanted: Mapping[int, Sequence[str]]) -> dict[str, bytes]:
    """Returns the pictures of some clips: name of the clip -> JPEG.

    Args:
      wanted: shard -> names of clips in it.
    """
    found, entries = {}, self.entries()
    for index, clips in wanted.items():
      table = self._parquet(entries[index].name, ['clip', *PICTURES])
      pairs = zip(*(table.column(name).to_pylist() for name in ('clip', *PICTURES)), strict=True)
      found |= {clip: picture for clip, picture in pairs if clip in clips and picture}
    return found

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
      table = arrow.parquet.read_table(io.BytesIO(data or b''), columns=columns)
    except (arrow.ArrowException, OSError) as error:
      where = printable(inside(self.directory, name))
      raise DataError(f'{where} is damaged ({error!s:.100}); {_MEND}') from error
    return table

  def _manifest(self) -> dict[str, Any] | None:
    data = self._storage.read(MANIFEST)
    if data is None:
      return None
    try:
      manifest = json.loads(data)
      for each in manifest['shards']:
        Entry(**each)
      if not isinstance(manifest['table']['name'], str):
        raise TypeError('no name')
    except (ValueError, TypeError, KeyError) as error:
      where = printable(inside(self.directory, MANIFEST))
      raise DataError(f'{where} is damaged ({error!r:.100}); {_MEND}') from error
    return manifest


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
