"""Reads benches of edits: a folder of videos and a table of what to do with each (TGVE+).

The table is a .csv, .jsonl or .parquet in the folder, or the given file itself. A row has a video,
an instruction and, if known, a task and captions of the video and of the edited one. Columns have
their usual names. A table of TGVE (2023) has captions of edited videos instead of instructions, one
column a kind of edit. Each becomes a row whose instruction is that caption.
"""

import csv
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.plug_ins import load_package
from mgjax.data.ingest.entries import VIDEO

_TABLES = ('.csv', '.jsonl', '.parquet')
_NAMES = {
  'video': ('video', 'video_name', 'video_file', 'video_path', 'video_id', 'file', 'name'),
  'instruction': ('instruction', 'edit_instruction', 'edit_prompt', 'edit', 'prompt'),
  'task': ('task', 'edit_type', 'type', 'category'),
  'caption': ('caption', 'original_caption', 'input_caption', 'source_caption', 'our_gt_caption'),
  'target': ('target', 'target_caption', 'output_caption', 'edited_caption'),
}
# Columns of TGVE, and the tasks that they are.
_TGVE = {
  'style_change_caption': 'style',
  'object_change_caption': 'replace',
  'background_change_caption': 'background',
  'multiple_changes_caption': '',
}


class EditRequest(NamedTuple):
  """One row of a bench: a video, what to do and, '' where the bench says nothing, the rest.

  `caption` is of the video, `target` of the edited one; `task` is as the bench calls it.
  """

  video: pathlib.Path
  instruction: str
  task: str = ''
  caption: str = ''
  target: str = ''


def read_edit_bench(path: str | os.PathLike[str]) -> list[EditRequest]:
  """Returns the rows of a benchmark in order; `path` is its table, or a folder with one table.

  Raises:
    ConfigError: there is no such place, or not one table in it.
    DataError: the table cannot be read, lacks a column, or names a video that is not there.
  """
  path = pathlib.Path(path)
  table = _find_table(path) if path.is_dir() else path
  if table.suffix.lower() not in _TABLES or not table.is_file():
    raise ConfigError(f'{path}: expected a folder with a table, or one: {", ".join(_TABLES)}')
  rows = list(_rows(table))
  if not rows:
    raise DataError(f'{table}: has no rows; write one for each edit')
  names = dict.fromkeys(name for row in rows for name in row)
  columns = {'_'.join(str(name).lower().replace('-', ' ').split()): name for name in names}
  tgve = {columns[name]: task for name, task in _TGVE.items() if name in columns}
  needed = ('video',) if tgve else ('video', 'instruction')
  column_of = {
    field: next((columns[name] for name in usual if name in columns), None)
    for field, usual in _NAMES.items()
  }
  if missing := [field for field in needed if column_of[field] is None]:
    raise DataError(
      f'{table}: has no column for the {missing[0]}, such as {_NAMES[missing[0]][0]!r}; it has '
      f'{", ".join(columns.values())}'
    )
  files = sorted(file for file in table.parent.rglob('*') if file.suffix.lower() in VIDEO.suffixes)
  videos = {file.stem: file for file in reversed(files)}
  requests = []
  for number, row in enumerate(rows, 1):
    cells = {field: _text(row, name) for field, name in column_of.items()}
    row_name = f'row {number} of {table}'
    video = _find_video(cells['video'], table.parent, videos, row_name)
    edits = [(_text(row, name), task) for name, task in tgve.items()]
    for instruction, task in edits or [(cells['instruction'], cells['task'])]:
      if not instruction:
        raise DataError(f'{row_name}: there is no instruction; say what to do with {video.name}')
      target = instruction if tgve else cells['target']
      requests.append(EditRequest(video, instruction, task, cells['caption'], target))
  return requests


def _find_table(folder: pathlib.Path) -> pathlib.Path:
  tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in _TABLES)
  if len(tables) != 1:
    names = ', '.join(table.name for table in tables) or 'none'
    raise ConfigError(
      f'{folder}: expected one table ({", ".join(_TABLES)}), found {names}; name it'
    )
  return tables[0]


def _rows(table: pathlib.Path) -> Iterator[Fields]:
  try:
    if table.suffix.lower() == '.csv':
      with table.open(encoding='utf-8-sig', newline='') as file:
        yield from csv.DictReader(file)
    elif table.suffix.lower() == '.jsonl':
      for line in table.read_text(encoding='utf-8-sig').splitlines():
        if line.strip():
          yield json.loads(line)
    else:
      parquet = load_package('pyarrow.parquet', f'{table} needs pyarrow', 'parquet')
      yield from parquet.read_table(table).to_pylist()
  except (OSError, ValueError, csv.Error) as error:
    raise DataError(f'{table}: cannot be read: {str(error).splitlines()[0]}') from error


def _text(row: Fields, name: str | None) -> str:
  value = row.get(name) if name is not None else None
  return '' if value is None else str(value).strip()


def _find_video(
  name: str, folder: pathlib.Path, videos: Mapping[str, pathlib.Path], row_name: str
) -> pathlib.Path:
  direct = folder / name
  if name and direct.is_file() and direct.resolve().is_relative_to(folder.resolve()):
    return direct
  stem = pathlib.PurePath(name).name
  for known in (stem, pathlib.PurePath(stem).stem):
    if known in videos:
      return videos[known]
  raise DataError(f'{row_name}: there is no video {name!r} in {folder}; put it there')
