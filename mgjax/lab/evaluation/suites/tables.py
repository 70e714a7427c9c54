"""Reads lists of prompts: lines, .csv and .jsonl, in UTF-8 or, with a BOM, UTF-16."""

import codecs
import csv
import io
import os
import pathlib
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError, first_line
from mgjax.core.files import parse_json

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | os.PathLike[str]) -> str:
  """Returns a file's text with normalised line ends; DataError if it cannot be read or decoded."""
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise DataError(f'{path}: cannot be read: {error.strerror}; name a file of prompts') from None
  try:
    text = data.decode('utf-16' if data.startswith(_WIDE) else 'utf-8-sig')
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b'\n') + 1
    raise DataError(
      f'{path}, line {line}: is no UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8, as '
      'with `iconv -f latin1 -t utf-8`'
    ) from None
  return text.replace('\r\n', '\n').replace('\r', '\n')


def read_lines(path: str | os.PathLike[str]) -> list[str]:
  """Returns the non-empty lines of a file, stripped; DataError as `read_text`, or if none.

  Only line ends separate lines: characters such as U+2028 are part of a prompt.
  """
  lines = [line.strip() for line in read_text(path).split('\n')]
  if not any(lines):
    raise DataError(f'{path}: holds no prompts; write one a line')
  return [line for line in lines if line]


def read_csv(
  path: str | os.PathLike[str], header: str = 'prompt,concept,motion_level'
) -> list[dict[str, str]]:
  """Returns the rows of a .csv with a header such as `header`, names in lower case.

  Raises DataError as `read_text`, or if there is no row, a duplicate column, or a row of another
  length.
  """
  try:
    first, *rows = [row for row in csv.reader(io.StringIO(read_text(path)), strict=True) if row]
  except csv.Error as error:
    raise DataError(f'{path}: is no readable .csv: {first_line(error)}; save it anew') from None
  except ValueError:
    first = []
    rows = []
  names = [name.strip().lower() for name in first]
  if not rows:
    raise DataError(f'{path}: has no rows; write a header such as {header}')
  if len({*names}) < len(names):
    raise DataError(f'{path}: a column comes twice in {", ".join(names)}; leave one of them out')
  for number, row in enumerate(rows, 1):
    if len(row) != len(names):
      raise DataError(
        f'{path}: row {number} has {len(row)} fields and the header {len(names)}; put what has a '
        'comma into quotes'
      )
  return [dict(zip(names, map(str.strip, row), strict=True)) for row in rows]


def read_json_rows(path: str | os.PathLike[str]) -> list[JSON]:
  """Returns the objects of a .jsonl; raises as `read_lines`, or DataError if a line is none."""
  mend = 'write an object a line, such as {"prompt": "a dog runs"}'
  return [
    parse_json(line, f'{path}, line {number}', error=DataError, mend=mend)
    for number, line in enumerate(read_lines(path), 1)
  ]


def required_texts(path: Any, row: dict[str, Any], number: int, *names: str) -> list[str]:
  """Returns the named texts of a row; raises DataError if one is missing or empty."""
  for name in names:
    if name not in row:
      has = ', '.join(map(str, row)) or 'none'
      raise DataError(f'{path}: row {number} has no {name!r} but {has}; add it, or rename one')
    if not isinstance(row[name], str) or not row[name].strip():
      raise DataError(f'{path}: row {number} has an empty {name!r}; fill it in')
  return [row[name].strip() for name in names]
