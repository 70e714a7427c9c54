"""Reads manifests row by row: a damaged line costs itself, and none of those after it.

A .csv names its columns in its first line; each line of a .jsonl is an object. Lines are read one
at a time and only so far, so neither a long line nor an open quote costs much memory or time.
"""

import csv
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mgjax.core.errors import DataError

SUFFIXES = ('.csv', '.jsonl')
Row = dict[str, Any]
_Line = tuple[int, str | DataError]  # its number, and what it says
_CHARACTERS = 1 << 20  # of a line
_LINES = 100  # of a row of csv, whose quoted text may have several
_REPORTED = 4096  # lines between two reports
_OPEN = 'has a quote that is not closed; write a quote inside quotes twice'


def manifest_rows(
  path: pathlib.Path,
  columns: Sequence[str],
  suffixes: tuple[str, ...],
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, Row | DataError]]:
  """Yields the rows of a .csv or .jsonl with the numbers of their lines, and what is wrong instead.

  Args:
    columns: that are read; of a .csv the first two must be there, the first names files.
    progress: called with how many lines are read, and of how many.

  Raises:
    DataError: the file cannot be read, or the first line of a .csv is wrong.
  """
  comma = path.suffix.lower() == '.csv'
  lines = _lines(path, '' if comma else '\n', progress)
  return _csv_rows(path, lines, columns, suffixes) if comma else _json_rows(lines)


def _lines(
  path: pathlib.Path, newline: str, progress: Callable[[int, int], None]
) -> Iterator[_Line]:
  try:
    with path.open('rb') as file:
      total = sum(part.count(b'\n') for part in iter(lambda: file.read(1 << 20), b''))
    with path.open(encoding='utf-8-sig', errors='surrogateescape', newline=newline) as file:
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


def is_unicode(text: str) -> bool:
  """Whether a text holds whole characters only, and not halves of pairs, which no file can hold."""
  try:
    return text.isascii() or bool(text.encode())
  except UnicodeEncodeError:
    return False


def _json_rows(lines: Iterator[_Line]) -> Iterator[tuple[int, Row | DataError]]:
  decode = json.JSONDecoder(object_pairs_hook=_object).decode
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


def _object(pairs: list[tuple[str, Any]]) -> Row:
  row = dict(pairs)
  if len(row) != len(pairs):
    raise ValueError('an object names a field twice')
  return row


def _csv_rows(
  path: pathlib.Path, lines: Iterator[_Line], columns: Sequence[str], suffixes: tuple[str, ...]
) -> Iterator[tuple[int, Row | DataError]]:
  records = _Records(lines)
  fields = records.read() or []
  if isinstance(fields, DataError):
    raise DataError(f'{path}: its first line must name the columns, but {fields}')
  header = [field.strip() for field in fields]
  if not set(columns[:2]) <= set(header):
    raise DataError(
      f'{path} has no columns named {" and ".join(columns[:2])}; its first line must name them: '
      f'{",".join(columns[:2])}[,{"],[".join(columns[2:])}]. It reads: {",".join(header)[:200]!r}'
    )
  if twice := [column for column in columns if header.count(column) > 1]:
    raise DataError(f'{path} has two columns named {twice[0]}; leave one, or rename it')
  while (fields := records.read()) is not None:
    if isinstance(fields, list) and len(records.taken) > 1 and _swallows(records.taken, suffixes):
      records.give_back()
      fields = DataError(_OPEN)
    number = records.taken[-1][0]
    if isinstance(fields, DataError):
      yield number, fields
    elif len(fields) > len(header):
      yield number, DataError('has more fields than columns; quote captions with commas')
    elif fields:
      yield number, dict(zip(header, fields, strict=False))


class _Records:
  """The rows of a csv; of one that cannot be read, all lines but the first are read again.

  `taken` are the lines of the last row.
  """

  def __init__(self, lines: Iterator[_Line]):
    self.taken: list[_Line] = []
    # those that were given back, the next one last
    self._lines = lines
    self._again = []
    self._reader = None

  def read(self) -> list[str] | DataError | None:
    """Returns the fields of the next row, or what is wrong with it; None after the last."""
    self.taken.clear()
    self._reader = self._reader or csv.reader(self._feed(), strict=True)
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


def _swallows(taken: list[_Line], suffixes: tuple[str, ...]) -> bool:
  """Whether a row of several lines names several files: an open quote took in rows of their own."""
  cells = (cell for _, line in taken for cell in str(line).replace('"', '').split(','))
  return sum(cell.strip().lower().endswith(suffixes) for cell in cells) > 1
