"""Tables as plain text, with columns as wide as their content, as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from mgjax.core.configuration.keys import Fields


def aligned(rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
  """Formats rows of equal length as lines: `names` columns flush left, numbers flush right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) if column < names else cell.rjust(width)
      for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]


def cells_of(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
  """Returns a header of all names in rows, and their cells; '' where a row lacks a name."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  return [names, *([row.get(name, '') for name in names] for row in rows)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Formats rows, the first of them the header, as a table in Markdown with aligned columns."""
  # Cells of prompts or tags may hold what ends a cell.
  cells = [[cell.replace('|', r'\|') for cell in row] for row in rows]
  rule = ['---', *['--:'] * (len(rows[0]) - 1)]
  table = (cells[0], rule, *cells[1:])
  return '\n'.join(aligned([[*(f'| {cell}' for cell in row), '|'] for row in table], len(rule) + 1))


def csv_text(columns: Sequence[str], rows: Iterable[Fields]) -> str:
  """Formats rows as CSV, with a header of the columns."""
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()
