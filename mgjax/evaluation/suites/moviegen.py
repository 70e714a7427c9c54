"""Movie Gen Video Bench and Movie Gen Audio Bench, read where their user has put them.

Both are CC-BY-NC (Movie Gen §3.5, §6.3): no prompt of them is part of this code.
"""

import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from mgjax.core.errors import DataError
from mgjax.evaluation.suites import tables

TAGGED = 'WithTag'  # at the end of the name of the table with concepts and motion levels
_TAGS = ('concept', 'motion_level')
_OTHER = 50  # one prompt in so many may be written otherwise in the other file


def partner(path: pathlib.Path) -> pathlib.Path | None:
  """Returns the other one of NAME.txt and NAMEWithTag.csv, if it is there."""
  if path.suffix == '.txt':
    other = path.with_name(f'{path.stem}{TAGGED}.csv')
  else:
    other = path.with_name(f'{path.stem.removesuffix(TAGGED)}.txt')
  return (
    other if path.stem.endswith(TAGGED) == (path.suffix == '.csv') and other.is_file() else None
  )


def read_video_bench(path: pathlib.Path) -> tuple[str, list[tuple[str, tuple[str, ...], str]]]:
  """Reads prompts with concepts and motion levels, from the table or from both files.

  The files are joined by index: some prompts are written otherwise in the other one, some come
  twice. The words are those of the .txt, if it is there.

  Returns:
    The bench's name, and of each row prompt, concepts and motion level.

  Raises:
    DataError: a file cannot be read, a column is missing, or the files are not of one bench.
  """
  lines, table = (path, partner(path)) if path.suffix == '.txt' else (partner(path), path)
  assert table is not None
  rows = tables.read_csv(table)
  has = [name for name in ('prompt', *_TAGS) if name in rows[0]]
  if has[:1] != ['prompt'] or len(has) == 2:
    missing = next(name for name in ('prompt', *_TAGS) if name not in has)
    raise DataError(
      f'{table}: has no column {missing!r} but {", ".join(rows[0])}; expected prompt alone, or '
      'prompt,concept,motion_level'
    )
  prompts = [tables.wanted(table, row, number, 'prompt')[0] for number, row in enumerate(rows, 1)]
  if lines is not None:
    prompts = _joined(lines, table, prompts)
  found = []
  for prompt, row in zip(prompts, rows, strict=True):
    concepts = [each.strip() for each in row.get('concept', '').split(',')]
    motion = row.get('motion_level', '').lower()
    found.append((prompt, tuple(dict.fromkeys(filter(None, concepts))), motion))
  return table.stem.removesuffix(TAGGED), found


def audio_rows(
  path: str | os.PathLike[str], rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields what the video of a row shows, and its 'id', 'audio_prompt' and, if any, 'music_prompt'.

  Raises:
    DataError: a row has no such text, or the id of another.
  """
  known = set()
  for number, row in enumerate(rows, 1):
    video, sound = tables.wanted(path, row, number, 'video_prompt', 'audio_prompt')
    fields = {'id': row.get('id', number - 1), 'audio_prompt': sound}
    if str(fields['id']) in known:
      raise DataError(f'{path}: row {number} has the id {fields["id"]} of another; give it its own')
    known.add(str(fields['id']))
    if row.get('music_prompt'):
      (fields['music_prompt'],) = tables.wanted(path, row, number, 'music_prompt')
    yield video, fields


def _joined(lines: pathlib.Path, table: pathlib.Path, prompts: Sequence[str]) -> list[str]:
  """The prompts of the .txt, if they are those of the table."""
  found = tables.read_lines(lines)
  if len(found) != len(prompts):
    raise DataError(
      f'{lines} has {len(found)} prompts and {table} {len(prompts)} rows, which are joined by '
      'index; take both from one release'
    )
  pairs = enumerate(zip(found, prompts, strict=True), 1)
  other = [number for number, pair in pairs if len({*map(_plain, pair)}) > 1]
  if len(other) > max(1, len(prompts) // _OTHER):
    raise DataError(
      f'{lines} and {table} have other prompts in {len(other)} of {len(prompts)} rows, first in '
      f'row {other[0]}; take both from one release'
    )
  return found


def _plain(prompt: str) -> str:
  return ' '.join(unicodedata.normalize('NFKC', prompt).casefold().split())
