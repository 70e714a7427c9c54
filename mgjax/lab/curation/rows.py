"""Rows of scores on the disk: parquet files, of which a killed run loses none.

`<index>-<digest>.parquet` has the rows of a shard, which are those of a few videos. It is written
whole, and a shard counts from the moment on at which its file is there. `plan.json` says what the
scores are of. When all shards are there, `table.parquet` has all rows without their pictures and
vectors, which is quick to read, and `<column>.npy` each column of vectors, of which those rows are
read that are asked for. Both follow from the shards, and are made again when those change.
"""

import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mgjax.core import files
from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import DataError, printable
from mgjax.core.plug_ins import load_package
from mgjax.core.typing import Float
from mgjax.lab.curation.filters.table import Table, dense

FORMAT = 1
PLAN = 'plan.json'
TABLE = 'table.parquet'
PICTURES = ('middle', 'loop')  # columns that the table leaves out
GATED = 'gated'  # column: why a video was not decoded
_SHARD = re.compile(r'(\d{5,})-[0-9a-f]+\.parquet')
_DIGITS = 12  # of a digest, in names

# Column of vectors -> float32 (n d), on the disk: rows that are picked are read.
Vectors = Mapping[str, Float[np.ndarray, 'n d']]


def digest(value: object) -> str:
  """Names plain JSON values."""
  return _named(json.dumps(value, sort_keys=True).encode())


def _named(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:_DIGITS]


_ColumnFilter = Callable[[str], bool]  # whether a column is read
_none = ().__contains__


class Scores:
  """The rows of one measurement, in a folder of their own."""

  def __init__(
    self,
    directory: str | os.PathLike[str],
    identity: Fields,
    videos: int,
    videos_per_shard: int,
  ):
    """Begins a folder below `directory`, or goes on with it.

    The rows depend on the identity, plain JSON values, whose digest names the folder: other
    settings begin another one and what is there stays. The last shard may have fewer videos.
    Raises ConfigError if pyarrow is not installed.
    """
    pyarrow()
    plan = {'format': FORMAT, 'videos': videos, 'videos_per_shard': videos_per_shard}
    plan['identity'] = dict(identity)
    self.directory = pathlib.Path(directory, digest(plan))
    self.videos, self._size = videos, videos_per_shard
    self.directory.mkdir(parents=True, exist_ok=True)
    if not (self.directory / PLAN).exists():
      files.write_json(self.directory / PLAN, plan)

  def __len__(self) -> int:
    """How many shards there are."""
    return -(-self.videos // self._size)

  def places(self, index: int) -> range:
    """Returns the places of a shard's videos among all."""
    return range(index * self._size, min((index + 1) * self._size, self.videos))

  def shard_of(self, index: Any) -> Any:
    """Returns the shard of the video at an index, or of an array of indices."""
    return index // self._size

  def order(self) -> list[int]:
    """Returns all shards in the order in which they are measured: shuffled, always alike.

    The first of them are a fair sample of all videos, however those are sorted.
    """
    return np.random.default_rng(0).permutation(len(self)).tolist()

  def shards(self) -> dict[int, str]:
    """Returns the files of the shards that are finished, by index."""
    names = sorted(entry.name for entry in os.scandir(self.directory))
    return {int(match[1]): match[0] for match in map(_SHARD.fullmatch, names) if match}

  def write(self, index: int, rows: Sequence[Fields], seconds: float, instead_of: str = '') -> None:
    """Writes the rows of a shard, which took one worker `seconds`, instead of an older file."""
    names = dict.fromkeys(name for row in rows for name in row)  # a row may lack some
    table = pyarrow().table({name: [row.get(name) for row in rows] for name in names})
    data = to_parquet(table.replace_schema_metadata({'seconds': repr(seconds)}))
    name = f'{index:05d}-{_named(data)}.parquet'
    files.write_bytes(self.directory / name, data)
    if instead_of not in ('', name):
      (self.directory / instead_of).unlink(missing_ok=True)

  def rows(self, index: int) -> tuple[list[JSON], float, str]:
    """Returns the rows of a shard, the seconds that they took, and its file; none, 0.0 and ''."""
    if not (name := self.shards().get(index, '')):
      return [], 0.0, ''
    table = self._parquet(name)
    return table.to_pylist(), _metadata(table, 'seconds', 0.0), name

  def seconds(self) -> dict[int, float]:
    """Returns the seconds that each finished shard took one worker, of those that say so."""
    seconds_by_shard = {
      index: _metadata(self._parquet(name, _none), 'seconds', 0.0)
      for index, name in self.shards().items()
    }
    return {index: seconds for index, seconds in seconds_by_shard.items() if seconds}

  def finish(self) -> None:
    """Writes the table once all shards are measured; does nothing the second time.
    Raises DataError if shards are missing, or one is damaged.
    """
    shards = self.shards()
    if missing := [index for index in range(len(self)) if index not in shards]:
      raise DataError(f'{self.directory}: shards {missing[:9]} have yet to be measured')
    if self._finished_table(shards, _none) is not None:
      return
    table = self._read(shards.values())
    vectors = []
    for field in table.schema:
      if 'list' in str(field.type) and (rows := dense(table.column(field.name))) is not None:
        vectors.append(field.name)
        with files.replaced(self._vectors(field.name)) as path, path.open('wb') as file:
          np.save(file, rows.astype('<f4'))
    about = {'shards': digest(list(shards.values())), 'vectors': json.dumps(vectors)}
    data = to_parquet(table.drop_columns(vectors).replace_schema_metadata(about))
    files.write_bytes(self.directory / TABLE, data)
    names = {PLAN, TABLE, *shards.values(), *(self._vectors(name).name for name in vectors)}
    for path in self.directory.iterdir():
      if path.name not in names:
        path.unlink()

  def table(self) -> tuple[Table, Vectors]:
    """Returns the rows of all finished shards without their pictures, a pyarrow.Table.

    Beside it come the columns of vectors that are not in it: all of them when all shards are there,
    else none.
    Raises DataError if nothing is measured, or a file is damaged.
    """
    shards = self.shards()
    if (table := self._finished_table(shards)) is None:
      return self._read(shards.values()), {}
    try:
      names = _metadata(table, 'vectors', [])
      return table, {name: np.load(self._vectors(name), mmap_mode='r') for name in names}
    except (OSError, ValueError) as error:
      raise self._damaged(TABLE, error) from error

  def gated(self) -> Any:
    """Returns a pyarrow.Table about the videos that were not decoded; None if there are none."""
    is_read = ('clip', 'place', 'seconds', 'width', 'height', GATED).__contains__
    if not (shards := self.shards()):
      return None
    if (table := self._finished_table(shards, is_read)) is None:
      table = self._read(shards.values(), is_read)
    if GATED not in table.column_names:
      return None
    return table.filter(table.column(GATED).is_valid())

  def pictures(
    self, places: Sequence[int], clips: Sequence[str], column: str = PICTURES[0]
  ) -> list[bytes | None]:
    """Returns the pictures of clips by the indices of their videos and names; None if missing."""
    shards = self.shards()
    pictures = {}
    for index in {self.shard_of(number) for number in places}:
      table = self._parquet(shards[index], ('clip', column).__contains__)
      if column in table.column_names:
        pictures |= zip(table['clip'].to_pylist(), table[column].to_pylist(), strict=True)
    return [pictures.get(clip) for clip in clips]

  def _vectors(self, name: str) -> pathlib.Path:
    return self.directory / f'{name}.npy'

  def _finished_table(self, shards: Mapping[int, str], is_read: _ColumnFilter = bool) -> Any:
    """Returns columns of the table; None if it is missing or not of these shards."""
    if not (self.directory / TABLE).exists():
      return None
    table = self._parquet(TABLE, is_read)
    of = (table.schema.metadata or {}).get(b'shards', b'')
    return table if of == digest(list(shards.values())).encode() else None

  def _read(self, names: Iterable[str], is_read: _ColumnFilter | None = None) -> Any:
    is_read = is_read or (lambda name: name not in PICTURES)
    tables = [self._parquet(name, is_read).replace_schema_metadata() for name in names]
    if not tables:
      raise DataError(f'{self.directory}: nothing is measured yet')
    return pyarrow().concat_tables(tables, promote_options='permissive').combine_chunks()

  def _parquet(self, name: str, is_read: _ColumnFilter = bool) -> Any:
    """Returns the columns of a file that `is_read` selects."""
    arrow = pyarrow()
    try:
      with arrow.parquet.ParquetFile(self.directory / name) as file:
        return file.read([column for column in file.schema_arrow.names if is_read(column)])
    except (arrow.ArrowException, OSError) as error:
      raise self._damaged(name, error) from error

  def _damaged(self, name: str, error: Exception) -> DataError:
    where = printable(self.directory / name)
    return DataError(
      f'{where} is damaged ({error!s:.100}); delete it, and the same command makes it again'
    )


def _metadata(table: Any, name: str, default: Any) -> Any:
  """Returns an entry of a table's metadata, parsed from JSON."""
  value = (table.schema.metadata or {}).get(name.encode())
  return default if value is None else json.loads(value)


def pyarrow() -> ModuleType:
  """The library of tables, with its part for parquet; a ConfigError where it is not installed."""
  load_package('pyarrow.parquet', 'curation needs pyarrow', 'curation')
  return load_package('pyarrow', 'curation needs pyarrow', 'curation')


def to_parquet(table: object) -> bytes:
  """Returns the parquet file of a pyarrow.Table."""
  file = io.BytesIO()
  pyarrow().parquet.write_table(table, file, compression='zstd')
  return file.getvalue()
