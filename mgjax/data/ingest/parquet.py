"""Reads clips from parquet files of Hugging Face datasets: a column of bytes, one of captions.

The bytes are a binary column or a struct {bytes, path}. A few rows are held at a time,
but a page of the file, a few of them as most writers make it, is decoded whole.
"""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.data.ingest.entries import Rejected, clean_caption
from mgjax.data.ingest.inputs import Input, Inputs, digest

_MEDIA = ('video', 'mp4', 'clip', 'media', 'webm', 'mkv', 'file', 'image')
_CAPTIONS = ('caption', 'text', 'txt', 'prompt', 'description')
_ROWS = 4  # read at a time
_BUFFER = 1 << 20  # bytes of a compressed column, read at a time


class ParquetInputs(Inputs):
  """The rows of parquet files, file after file."""

  def __init__(self, paths: Sequence[pathlib.Path], media: str = '', caption: str = ''):
    """Reads the footers of all files.

    Args:
      paths: of the files; one that cannot be opened is an input that is rejected.
      media: the column with the clips; by default one with a usual name or the only one of bytes.
      caption: the column with the captions; by default one with a usual name.

    Raises:
      ConfigError: pyarrow is not installed, or the columns are not there.
    """
    try:
      import pyarrow.parquet
    except ImportError:
      raise ConfigError(
        "reading parquet needs pyarrow, which is not installed: pip install 'mgjax[parquet]'"
      ) from None
    self._parquet = pyarrow.parquet
    self._failures = (pyarrow.ArrowException, OSError, ValueError, MemoryError)
    self._files: list[tuple[pathlib.Path, list[int] | str, str, str]] = []
    for path in paths:
      try:
        with self._parquet.ParquetFile(path) as file:
          groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
          columns = _columns(path, file.schema_arrow, media, caption)
          self._files.append((path, groups, *columns))
      except self._failures as error:
        self._files.append(
          (path, f'is not a parquet file that can be read ({error!s:.200})', '', '')
        )
    lengths = [1 if isinstance(groups, str) else sum(groups) for _, groups, *_ in self._files]
    self._ends = list(itertools.accumulate(lengths))
    described = (f'{path.name} {groups} {rest}' for path, groups, *rest in self._files)
    self.identity = {'layout': 'parquet', 'names': digest(described)}

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def between(self, first: int, last: int) -> Iterator[Input | Rejected]:
    """Yields them; a damaged part gives as many rejected inputs as it should have rows."""
    begin = 0
    for (path, groups, media, caption), end in zip(self._files, self._ends, strict=True):
      if begin < last and end > first:
        if isinstance(groups, str):
          yield Rejected(path.name, groups)
        else:
          low, high = max(first - begin, 0), min(last - begin, end - begin)
          yield from self._rows(path, groups, media, caption, low, high)
      begin = end

  def _rows(
    self, path: pathlib.Path, groups: list[int], media: str, caption: str, first: int, last: int
  ) -> Iterator[Input | Rejected]:
    begin = 0
    for group, count in enumerate(groups):
      low, high = max(first, begin), min(last, begin + count)
      done = low
      if low < high:
        try:
          for number, row in enumerate(self._cells(path, group, media, caption), begin):
            if low <= number < high:
              yield _input(path, number, row, media, caption)
              done = number + 1
            if done == high:
              break
          lost = 'is not there, though the file declares it'
        except FileNotFoundError as error:
          raise StorageError(f'{path} is gone; is its disk still there?') from error
        except self._failures as error:
          lost = f'cannot be read, its row group is damaged ({error!s:.200})'
        for number in range(done, high):
          yield Rejected(f'{path.name} row {number}', lost)
      begin += count

  def _cells(
    self, path: pathlib.Path, group: int, media: str, caption: str
  ) -> Iterator[dict[str, Any]]:
    with contextlib.closing(
      self._parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    ) as file:
      columns = [media, caption]
      for batch in file.iter_batches(_ROWS, [group], columns, use_threads=False):
        for index in range(batch.num_rows):
          yield {name: batch.column(name)[index].as_py() for name in columns}


def _columns(path: pathlib.Path, schema: Any, media: str, caption: str) -> tuple[str, str]:
  import pyarrow

  def holds_bytes(kind: Any) -> bool:
    if pyarrow.types.is_struct(kind):
      return any(field.name == 'bytes' and holds_bytes(field.type) for field in kind)
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

  def choose(what: str, given: str, usual: Sequence[str], fitting: list[str]) -> str:
    found = [given] if given else [name for name in usual if name in fitting]
    found = found or (fitting if len(fitting) == 1 else [])
    if not found or found[0] not in fitting:
      raise ConfigError(
        f'{path}: no column of {what}{f" named {given}" if given else ""}; it has '
        f'{", ".join(f"{field.name} ({field.type})" for field in schema):.400}'
      )
    return found[0]

  text = [
    field.name
    for field in schema
    if pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type)
  ]
  files = [field.name for field in schema if holds_bytes(field.type)]
  return choose('clips as bytes', media, _MEDIA, files), choose(
    'captions', caption, _CAPTIONS, text
  )


def _input(
  path: pathlib.Path, number: int, row: dict[str, Any], media: str, caption: str
) -> Input | Rejected:
  cell, name = row[media], f'{path.name} row {number}'
  if isinstance(cell, dict):
    if isinstance(cell.get('path'), str):
      name += f': {cell["path"]:.200}'
    cell = cell['bytes']
  if cell is None:
    return Rejected(name, f'its {media} holds no bytes, which must be in the file itself')
  try:
    if not isinstance(row[caption], str):
      raise DataError('has no caption')
    return Input(name, clean_caption(row[caption]), len(cell), functools.partial(bytes, cell))
  except DataError as error:
    return Rejected(name, str(error))
