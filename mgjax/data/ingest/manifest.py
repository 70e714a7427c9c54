"""Reads manifests row by row: a damaged line costs itself, and none of those after it.

A .csv or .tsv names its columns in its first line; each line of a .jsonl is an object. A .json is a
list of objects, an object of columns, or one that maps names of files to captions or objects; a
.parquet has columns of text. Lines are read one at a time and only so far, so neither a long line
nor an open quote costs much memory or time. Text is UTF-8, or UTF-16 or UTF-32 with a byte order
mark.
"""

import codecs
import csv
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mgjax.core.errors import DataError, MgjaxError
from mgjax.core.files import BEGIN, impostor, unique_fields
from mgjax.core.plug_ins import load_package
from mgjax.data.ingest.columns import (
  caption_column,
  file_column,
  first_of_several,
  segment_columns,
  shown_names,
)

MANIFEST_SUFFIXES = ('.csv', '.tsv', '.jsonl', '.json', '.parquet')
Row = dict[str, Any]
_Line = tuple[int, str | DataError]  # its number, and what it says
_CHARACTERS = 1 << 20  # of a line
_LINES = 100  # of a row of csv, whose quoted text may have several
_REPORTED = 4096  # lines between two reports
_JSON_BYTES = 256 << 20  # of a .json, which is read whole
_OPEN = 'has a quote that is not closed; write a quote inside quotes twice'
_DELIMITERS = ',\t;|'
_MARKS = {  # that of UTF-32 begins as that of UTF-16
  codecs.BOM_UTF8: 'utf-8-sig',
  codecs.BOM_UTF32_LE: 'utf-32',
  codecs.BOM_UTF32_BE: 'utf-32',
  codecs.BOM_UTF16_LE: 'utf-16',
  codecs.BOM_UTF16_BE: 'utf-16',
}


class Columns(NamedTuple):
  """Which columns are read: those of files of a medium, and of captions; '' for the usual names."""

  word: str
  media: str = ''
  caption: str = ''

  def read(self, row: Row) -> Row:
    """Returns a row, changed, with its file by the medium's word and, if it has one, its `caption`.
    Raises DataError if no field names a file, or one a part of it.
    """
    names = tuple(row)
    media, caption = self.found(names)
    for name in segment_columns(names):
      if row[name] not in (None, '', []):
        raise DataError(
          f'{name} = {row[name]!r:.60} is a part of a clip, which is not cut out here; cut the '
          'clip, or remove the column (`start`, in seconds, is read)'
        )
    if media is None:
      named = f' named {self.media}' if self.media else ''
      raise DataError(
        f'has no {self.word}{named}: its fields are {shown_names(names)}; name one with '
        '--media_column'
      )
    file = first_of_several(row[media])
    file = file.get('path') if isinstance(file, dict) else file  # as Hugging Face writes a file
    row[self.word] = file
    if caption is not None:
      row['caption'] = first_of_several(row[caption])
    return row

  def caption_of(self, text: str) -> str | None:
    """Returns the caption in the JSON of one clip, None where there is none."""
    try:
      fields = json.loads(text)
    except (ValueError, RecursionError):
      return None
    name = self.found(tuple(fields))[1] if isinstance(fields, dict) else None
    caption = None if name is None else first_of_several(fields[name])
    return caption if isinstance(caption, str) else None

  def needed(self, path: pathlib.Path, names: Sequence[str]) -> tuple[str, str]:
    """Returns the two columns of a table; DataError, with the names of all, if it lacks one."""
    media, caption = self.found(tuple(names))
    expected = self.media or self.word, self.caption or 'caption'
    if media is None or caption is None:
      missing = [name for name, known in zip(expected, (media, caption), strict=True) if not known]
      raise DataError(
        f'{path} has no columns named {" and ".join(missing)}; it has {shown_names(names)}. Name '
        'them so, or give --media_column and --caption_column'
      )
    return media, caption

  def found(self, names: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The two columns among names, None where there is none."""
    return _found(self, names)


@functools.lru_cache(16)
def _found(columns: Columns, names: tuple[str, ...]) -> tuple[str | None, str | None]:
  media = file_column(names, columns.word, columns.media)
  return media, caption_column(names, columns.caption)


def manifest_rows(
  path: pathlib.Path,
  columns: Columns,
  optional: Sequence[str],
  suffixes: tuple[str, ...],
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, Row | DataError]]:
  """Yields the rows of a manifest, or their errors, with line numbers.

  Args:
    columns: of files and captions, which a .csv must have.
    optional: other columns to read, if there are any.
    progress: called with how many lines are read, and of how many.

  Raises:
    DataError: the file cannot be read, or the first line of a .csv is wrong.
  """
  suffix = path.suffix.lower()
  if suffix == '.parquet':
    rows = _parquet_rows(path, columns, optional)
  elif suffix in ('.csv', '.tsv'):
    rows = _csv_rows(path, _lines(path, '', progress), columns, optional, suffixes)
  elif (table := _json_table(path, columns)) is not None:
    rows = enumerate(table, 1)
  else:
    rows = _json_rows(_lines(path, '\n', progress))
  for number, row in rows:
    try:
      yield number, row if isinstance(row, DataError) else columns.read(row)
    except DataError as error:
      yield number, error


def encoding_of(begin: bytes) -> str:
  """Returns the encoding of a text that begins so; DataError if it is UTF-16 without a mark."""
  if 0 in begin[:4] and not any(map(begin.startswith, _MARKS)):
    raise DataError('is UTF-16 or UTF-32 without a byte order mark; save it as UTF-8')
  return next((name for mark, name in _MARKS.items() if begin.startswith(mark)), 'utf-8')


def _lines(
  path: pathlib.Path, newline: str, progress: Callable[[int, int], None]
) -> Iterator[_Line]:
  try:
    with path.open('rb') as file:
      total = sum(part.count(b'\n') for part in iter(lambda: file.read(1 << 20), b''))
    encoding = encoding_of(_begin(path))
    with path.open(encoding=encoding, errors='surrogateescape', newline=newline) as file:
      number = 0
      while line := file.readline(_CHARACTERS + 1):
        number += 1
        if len(line) > _CHARACTERS:
          while len(line) > _CHARACTERS and not line.endswith('\n'):
            line = file.readline(_CHARACTERS + 1)
          yield number, DataError(f'has more than {_CHARACTERS} characters')
        else:
          yield number, line if is_unicode(line) else DataError('is not UTF-8 text')
        if number % _REPORTED == 0:
          progress(min(number, total), total)
    progress(total, total)
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  except (UnicodeError, DataError) as error:
    raise DataError(f'{path}: {error}') from error


def _begin(path: pathlib.Path) -> bytes:
  with path.open('rb') as file:
    begin = file.read(BEGIN)
  if problem := impostor(begin, 'a list'):
    raise DataError(problem)
  return begin


def is_unicode(text: str) -> bool:
  """Whether a text holds whole characters only, and not halves of pairs, which no file can hold."""
  try:
    return text.isascii() or bool(text.encode())
  except UnicodeEncodeError:
    return False


def _json_table(path: pathlib.Path, columns: Columns) -> list[Any] | None:
  """Reads the objects of a .json; None if each line is one."""
  try:
    with path.open('rb') as file:
      data = file.read(_JSON_BYTES + 1) if path.suffix.lower() == '.json' else b''
    encoding = encoding_of(_begin(path))
    if len(data) > _JSON_BYTES:
      raise DataError(f'has over {_JSON_BYTES} bytes; write it as .jsonl, an object a line')
    content = json.loads(data.decode(encoding), object_pairs_hook=unique_fields)
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  except DataError as error:
    raise DataError(f'{path}: {error}') from error
  except (ValueError, RecursionError):
    return None
  if isinstance(content, dict):
    content = _mapped_rows(content, columns)
  content = content if isinstance(content, list) else [content]
  return [row if isinstance(row, dict) else DataError('is not a JSON object') for row in content]


def _mapped_rows(content: Row, columns: Columns) -> list[Any]:
  """Returns the rows of an object: its lists of objects, columns, one clip, or an entry a file."""
  lists = (value for value in content.values() if isinstance(value, list))
  objects = [entry for value in lists for entry in value if isinstance(entry, dict)]
  if any(None not in columns.found(tuple(entry)) for entry in objects):
    return objects
  if None not in columns.found(tuple(content)):
    # pandas writes a column as an object of index and cell, in whatever order it was sorted.
    table = {
      name: _cells(value) for name, value in content.items() if isinstance(value, list | dict)
    }
    if None in columns.found(tuple(table)):
      return [content]  # of one clip
    first = table[str(columns.found(tuple(table))[0])]
    return [{name: cells[key] for name, cells in table.items() if key in cells} for key in first]
  rows = []
  for name, value in content.items():
    fields = value if isinstance(value, dict) else {columns.caption or 'caption': value}
    known = columns.found(tuple(fields))[0] is not None
    rows.append(fields if known else {columns.media or columns.word: name, **fields})
  return rows


def _cells(column: Any) -> dict[Any, Any]:
  return column if isinstance(column, dict) else dict(enumerate(column))


def _parquet_rows(
  path: pathlib.Path, columns: Columns, optional: Sequence[str]
) -> Iterator[tuple[int, Row]]:
  parquet = load_package('pyarrow.parquet', 'reading parquet needs pyarrow', 'parquet')
  try:
    with parquet.ParquetFile(path) as file:
      names = file.schema_arrow.names
      optional = (*optional, *segment_columns(tuple(names)))
      read = [*columns.needed(path, names), *(name for name in optional if name in names)]
      batches = file.iter_batches(1024, columns=read)
      yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
  except MgjaxError:
    raise
  except Exception as error:  # a damaged file may raise any error
    raise DataError(f'{path} cannot be read ({error!s:.200})') from error


def _json_rows(lines: Iterator[_Line]) -> Iterator[tuple[int, Row | DataError]]:
  decode = json.JSONDecoder(object_pairs_hook=unique_fields).decode
  for number, line in lines:
    row: Any = line
    if isinstance(line, str):
      if line.isspace():
        continue
      try:
        row = decode(line)
      except (ValueError, RecursionError) as error:  # of numbers of thousands of digits too
        row = DataError(f'is not JSON: {error!s:.200}')
      if not isinstance(row, dict | DataError):
        row = DataError('is not a JSON object')
    yield number, row


def _csv_rows(
  path: pathlib.Path,
  lines: Iterator[_Line],
  columns: Columns,
  optional: Sequence[str],
  suffixes: tuple[str, ...],
) -> Iterator[tuple[int, Row | DataError]]:
  first = next(lines, (1, ''))
  delimiter = _delimiter(str(first[1]), columns)
  records = _Records(itertools.chain([first], lines), delimiter)
  fields = records.read() or []
  if isinstance(fields, DataError):
    raise DataError(f'{path}: its first line must name the columns, but {fields}')
  header = [field.strip() for field in fields]
  needed = columns.needed(path, header)
  if twice := [column for column in (*needed, *optional) if header.count(column) > 1]:
    raise DataError(f'{path} has two columns named {twice[0]}; leave one, or rename it')
  while (fields := records.read()) is not None:
    if (
      isinstance(fields, list)
      and len(records.taken) > 1
      and _swallows(records.taken, suffixes, delimiter)
    ):
      records.give_back()
      fields = DataError(_OPEN)
    number = records.taken[-1][0]
    if isinstance(fields, DataError):
      yield number, fields
    elif len(fields) > len(header):
      yield number, DataError('has more fields than columns; quote captions with commas')
    elif fields:
      yield number, dict(zip(header, fields, strict=False))


def _delimiter(header: str, columns: Columns) -> str:
  """What parts the columns of a header: the first with which it has those that are needed."""
  for delimiter in _DELIMITERS:
    names = tuple(name.strip(' "\r\n') for name in header.split(delimiter))
    if None not in columns.found(names):
      return delimiter
  return ','


class _Records:
  """The rows of a csv; of one that cannot be read, all lines but the first are read again.

  `taken` are the lines of the last row.
  """

  def __init__(self, lines: Iterator[_Line], delimiter: str):
    self.taken: list[_Line] = []
    # those that were given back, the next one last
    self._lines = lines
    self._again = []
    self._reader = None
    self._delimiter = delimiter

  def read(self) -> list[str] | DataError | None:
    """Returns the fields of the next row, or what is wrong with it; None after the last."""
    self.taken.clear()
    self._reader = self._reader or csv.reader(self._feed(), strict=True, delimiter=self._delimiter)
    try:
      fields = next(self._reader, None)
    except csv.Error as error:
      opened = len(self.taken) > 1 or 'end of data' in str(error)
      self._reader = None
      self.give_back()
      return DataError(_OPEN if opened else f'is not csv: {error}')
    if fields is not None:
      return fields
    self._reader = None  # after a line that is none of csv; it goes on with the next
    return self.taken[0][1] if self.taken else None

  def give_back(self) -> None:
    """Leaves the last row its first line only."""
    self._again += reversed(self.taken[1:])
    del self.taken[1:]

  def _feed(self) -> Iterator[str]:
    while len(self.taken) < _LINES:
      line = self._again.pop() if self._again else next(self._lines, None)
      if line is None:
        return
      self.taken.append(line)
      if isinstance(line[1], DataError):
        return
      yield line[1]


def _swallows(taken: list[_Line], suffixes: tuple[str, ...], delimiter: str) -> bool:
  """Whether a row of several lines names several files: an open quote took in rows of their own."""
  cells = (cell for _, line in taken for cell in str(line).replace('"', '').split(delimiter))
  return sum(cell.strip().lower().endswith(suffixes) for cell in cells) > 1
