"""Reads clips from parquet files of Hugging Face datasets: a column of bytes, one of captions.

The bytes are a binary column or a struct {bytes, path}. A few rows are held at a time,
but a page of the file, a few of them as most writers make it, is decoded whole.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError, StorageError, printable
from mgjax.core.files import BEGIN, impostor
from mgjax.core.plug_ins import load_package
from mgjax.data.ingest.columns import caption_column, file_column, first_of_several
from mgjax.data.ingest.entries import NO_CAPTION, VIDEO, RejectedEntry, clean_caption
from mgjax.data.ingest.inputs import Input, Inputs, digest

_ROWS = 4  # read at a time
_BUFFER = 1 << 20  # bytes of a compressed column, read at a time
# a row group may have so many times the file's bytes, and more
_RATIO = 100
_UNPACKED = 64 << 20


@dataclasses.dataclass(frozen=True)
class _File:
  path: pathlib.Path
  groups: list[int]  # rows of each
  columns: tuple[str, str] = ('', '')  # of clips and of captions
  problem: str = ''  # why it is one input that is rejected

  def __len__(self) -> int:
    return 1 if self.problem else sum(self.groups)


class ParquetInputs(Inputs):
  """The rows of parquet files, file after file."""

  def __init__(
    self,
    paths: Sequence[pathlib.Path],
    media: str = '',
    caption: str = '',
    progress: Callable[[int, int], None] = lambda done, total: None,
  ):
    """Reads the footers of all files; one that cannot be opened is an input that is rejected.

    Args:
      media: the column with the clips; by default one with a usual name or the only one of bytes.
      caption: the column with the captions; by default one with a usual name.
      progress: called with how many footers are read, and of how many.

    Raises:
      ConfigError: pyarrow is not installed, or the columns are not there.
    """
    self._parquet = load_package('pyarrow.parquet', 'reading parquet needs pyarrow', 'parquet')
    self._files: list[_File] = []
    for done, path in enumerate(paths, 1):
      self._files.append(self._open(path, media, caption))
      progress(done, len(paths))
    self._ends = list(itertools.accumulate(map(len, self._files)))
    self._reading: tuple[Any, int, Iterator] | None = None  # what it is, its next row, its rows
    self._lost: dict[Hashable, tuple[int, str]] = {}  # from which row on, and why
    described = (
      f'{file.path.name} {file.problem or file.groups} {list(file.columns)}' for file in self._files
    )
    self.identity = {'layout': 'parquet', 'names': digest(described)}

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getstate__(self) -> JSON:
    return {**self.__dict__, '_parquet': None, '_reading': None}  # neither pickles

  def __setstate__(self, state: JSON) -> None:
    import pyarrow.parquet

    self.__dict__.update(state, _parquet=pyarrow.parquet)

  def _open(self, path: pathlib.Path, media: str, caption: str) -> _File:
    try:
      if not path.is_file():  # opening a pipe could wait for ever
        raise DataError('is not a regular file, or is not there')
      with path.open('rb') as opened:
        if problem := impostor(opened.read(BEGIN), 'parquet'):
          raise DataError(problem)
      with self._parquet.ParquetFile(path) as file:
        row_groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        groups = [group.num_rows for group in row_groups]
        unpacked = [group.total_byte_size for group in row_groups]
        size = os.path.getsize(path)
        if min(groups, default=0) < 0 or sum(groups) > size:
          raise DataError(f'declares {sum(groups)} rows in {size} bytes')
        if max(unpacked, default=0) > _UNPACKED + _RATIO * size:
          raise DataError(
            f'would be unpacked from {size} bytes to {max(unpacked)}; clips hardly are'
          )
        return _File(path, groups, _columns(path, file.schema_arrow, media, caption))
    except ConfigError:
      raise
    except DataError as error:
      return _File(path, [], problem=str(error))
    except Exception as error:  # a damaged file may raise any error
      return _File(path, [], problem=f'is not a parquet file that can be read ({error!s:.200})')

  def between(self, first: int, last: int) -> Iterator[Input | RejectedEntry]:
    """Yields the inputs; a damaged part yields a rejected input for each row it should have."""
    for file, end in zip(self._files, self._ends, strict=True):
      begin = end - len(file)
      if begin < last and end > first:
        if file.problem:
          yield RejectedEntry(file.path.name, file.problem)
        else:
          yield from self._rows(file, max(first - begin, 0), min(last, end) - begin)

  def _rows(self, file: _File, first: int, last: int) -> Iterator[Input | RejectedEntry]:
    begin = 0
    for group, count in enumerate(file.groups):
      done = max(first - begin, 0)
      high = min(last - begin, count)
      damaged, lost = self._lost.get((file.path, group), (count, ''))
      if done < min(high, damaged):
        try:
          cells = self._cells(file, group, done)
          for cell, text in itertools.islice(cells, high - done):
            yield _input(f'{file.path.name} row {begin + done}', file.columns[0], cell, text)
            done += 1
          self._reading = (file.path, group), done, cells
          lost = 'is not there, though the file declares it'
        except Exception as error:  # a damaged file may raise any error
          if isinstance(error, OSError) and error.errno:
            raise StorageError(f'{file.path} is gone; is its disk still there?') from error
          lost = f'cannot be read, its row group is damaged ({error!s:.200})'
        if done < high:
          self._lost[file.path, group] = done, lost
      for number in range(begin + done, begin + high):
        yield RejectedEntry(f'{file.path.name} row {number}', lost)
      begin += count

  def _cells(self, file: _File, group: int, first: int) -> Iterator[tuple[Any, Any]]:
    """Goes on with the rows of a group from `first` on, from where it was read last if it can."""
    read = self._reading
    self._reading = None
    if not read or read[0] != (file.path, group) or read[1] > first:
      return self._scan(file, group, first)
    cells = read[2]
    for _ in range(first - read[1]):
      next(cells, None)
    return cells

  def _scan(self, file: _File, group: int, skip: int) -> Iterator[tuple[Any, Any]]:
    with contextlib.closing(
      self._parquet.ParquetFile(file.path, buffer_size=_BUFFER, pre_buffer=False)
    ) as opened:
      for batch in opened.iter_batches(_ROWS, [group], list(file.columns), use_threads=False):
        media, captions = (batch.column(name) for name in file.columns)
        for index in range(min(skip, batch.num_rows), batch.num_rows):
          yield media[index], captions[index]
        skip -= min(skip, batch.num_rows)


def holds_clip_bytes(path: pathlib.Path) -> bool:
  """Says whether a parquet file has a column of bytes or is unreadable; otherwise it is a list."""
  parquet = load_package('pyarrow.parquet', 'reading parquet needs pyarrow', 'parquet')
  try:
    return any(_holds_bytes(field.type) for field in parquet.read_schema(path))
  except Exception:  # the reader of this untrusted file reports the error
    return True


def _holds_bytes(kind: Any) -> bool:
  from pyarrow import types

  if types.is_struct(kind):
    index = kind.get_field_index('bytes')  # below 0 if there is none, or several
    kind = kind.field(index).type if index >= 0 else kind
  return types.is_binary(kind) or types.is_large_binary(kind)


def _columns(path: pathlib.Path, schema: Any, media: str, caption: str) -> tuple[str, str]:
  from pyarrow import types

  def choose(what: str, named: str, usual: str | None, fitting: list[str]) -> str:
    candidates = [name for name in (named or usual,) if name]
    candidates = candidates or (fitting if len(fitting) == 1 else [])
    if not candidates or candidates[0] not in fitting:
      has = ', '.join(f'{field.name} ({field.type})' for field in schema)
      raise ConfigError(
        f'{path}: no column of {what}{f" named {named}" if named else ""}; it has '
        f'{printable(has):.400}'
      )
    if schema.names.count(candidates[0]) > 1:
      raise DataError(f'has several columns named {candidates[0]!r}; rename all but one')
    return candidates[0]

  def holds_text(kind: Any) -> bool:
    if types.is_list(kind) or types.is_dictionary(kind):  # several captions, a category
      kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind)

  text = [field.name for field in schema if holds_text(field.type)]
  files = [field.name for field in schema if _holds_bytes(field.type)]
  return (
    choose('clips as bytes', media, file_column(tuple(files), VIDEO.word), files),
    choose('captions', caption, caption_column(tuple(text)), text),
  )


def _input(name: str, column: str, media: Any, caption: Any) -> Input | RejectedEntry:
  try:
    cell, text = media.as_py(), first_of_several(caption.as_py())
  except Exception as error:  # text may not be UTF-8, and a damaged file may raise any error
    return RejectedEntry(name, f'cannot be read ({error!s:.200})')
  if isinstance(cell, dict):
    if isinstance(cell.get('path'), str):
      name += f': {cell["path"]:.200}'
    cell = cell['bytes']
  if cell is None:
    return RejectedEntry(name, f'its {column} holds no bytes, which must be in the file itself')
  try:
    if not isinstance(text, str):
      raise DataError(NO_CAPTION)
    return Input(name, clean_caption(text), len(cell), functools.partial(bytes, cell))
  except DataError as error:
    return RejectedEntry(name, str(error))
