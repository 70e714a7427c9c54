"""Prompt suites: the prompts of a comparison, by index, with their tags and conditions.

Movie Gen Video Bench and Movie Gen Audio Bench are CC-BY-NC (Movie Gen §3.5, §6.3). Users download
them; no prompt of them is part of this code.
"""

import dataclasses
import json
import os
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json
from mgjax.core.settings import Count, check
from mgjax.data.ingest.edit_bench import read_edit_bench
from mgjax.data.synthetic_datasets import prompts_of, with_prompts
from mgjax.lab.evaluation.suites import tables, vbench
from mgjax.models.text.prompts import prompt_hash

FILE = 'suite.json'  # in a directory of videos: their suite
MINI = 381  # prompts of the private set that Movie Gen §3.5 measures its sigma on
MOTIONS = ('', 'low', 'medium', 'high')
KINDS = ('video', 'sound', 'edit')
_TAGGED = 'WithTag'  # at the end of the name of the table with concepts and motion levels
_TAGS = ('concept', 'motion_level')
_OTHER = 50  # one prompt in this many may differ between the .txt and the .csv
_MOST = 10**6  # captions of a world
_EDITS = {
  'instruction',
  'edit_instruction',
  'edit_prompt',
  'style_change_caption',
  'object_change_caption',
  'background_change_caption',
  'multiple_changes_caption',
}


@dataclasses.dataclass(frozen=True)
class Row:
  """One prompt of a suite.

  Attributes:
    index: its index in the complete suite, which names its videos and joins tables.
    prompt: the text; it may occur again under another index.
    concepts: tags of what it tests.
    motion: 'low', 'medium' or 'high', '' if unknown.
    fields: other fields: for sound 'id', 'audio_prompt' and 'music_prompt'; for an edit 'video',
      'task', 'caption' and 'target'; for videos the conditions beside the prompt, by name.
    scene: for a caption of a synthetic dataset, the key by which the judge finds its scene.
  """

  index: Count
  prompt: str
  concepts: tuple[str, ...] = ()
  motion: str = ''
  fields: Fields = dataclasses.field(default_factory=dict)
  scene: str = ''

  def __post_init__(self):
    check(self)
    if self.motion not in MOTIONS:
      raise DataError(f'row {self.index + 1}: motion {self.motion!r}; expected low, medium or high')

  @property
  def file(self) -> str:
    """Name of its video without the suffix: the index and a hash of the prompt."""
    return f'{self.index:04d}_{prompt_hash(self.prompt)}'


@dataclasses.dataclass(frozen=True)
class Suite:
  """Prompts in order; `kind` is the task of the model: 'video', 'sound' or 'edit'."""

  name: str
  kind: str
  rows: tuple[Row, ...]

  @property
  def prompts(self) -> list[str]:
    """The text of each row."""
    return [row.prompt for row in self.rows]

  @property
  def tags(self) -> dict[str, list[int]]:
    """Concepts and motion levels ('motion: low') -> positions of their rows, most rows first."""
    positions_by_tag: dict[str, list[int]] = {}
    for position, row in enumerate(self.rows):
      for tag in (*row.concepts, *([f'motion: {row.motion}'] if row.motion else [])):
        positions_by_tag.setdefault(tag, []).append(position)
    return dict(sorted(positions_by_tag.items(), key=lambda item: (-len(item[1]), item[0])))

  def drawn(self, count: Count = MINI, seed: Count = 0) -> 'Suite':
    """Returns `count` rows drawn without replacement, in order and with their original index."""
    if count > len(self.rows):
      raise DataError(f'{self.name} has {len(self.rows)} prompts; {count} cannot be drawn of them')
    chosen = np.random.default_rng(seed).choice(len(self.rows), count, replace=False)
    rows = tuple(self.rows[position] for position in sorted(chosen.tolist()))
    return dataclasses.replace(self, name=f'{self.name}:mini', rows=rows)

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values, the format of a suite's .json."""
    return json.loads(json.dumps(dataclasses.asdict(self)))


def read_suite(path: str | os.PathLike[str]) -> Suite:
  """Reads a suite of any kind.

  - .txt: a prompt a line; NAME.txt and NAMEWithTag.csv in one folder are joined by index, as in
    Movie Gen Video Bench.
  - .csv: a column `prompt`, and `concept` (several joined by ',') with `motion_level`.
  - .jsonl: objects with `prompt` and conditions beside it, or of Movie Gen Audio Bench with `id`,
    `video_prompt`, `audio_prompt` and `music_prompt`.
  - a folder of videos with a table of edits, or that table: see `read_edit_bench`.
  - .json: `suite.json`, also by the folder that `launch.sample suite` wrote it to, or VBench's
    VBench_full_info.json, whose dimensions become concepts.
  - 'digits:N' or 'digits:N:SEED': held-out captions of moving digits; 'solids:N' of lit solids.

  A path that ends in ':mini' is a seeded sample of 381 of its prompts.

  Raises:
    ConfigError: the name is invalid.
    DataError: the suite cannot be read, or is not of the kind of its name.
  """
  name = os.fspath(path)
  if name.partition(':')[0] in with_prompts() and ':' in name:
    return _of_world(name)
  if name.endswith(':mini'):
    return read_suite(name.removesuffix(':mini')).drawn()
  location = pathlib.Path(name)
  if location.is_dir():
    return _restore(location / FILE) if (location / FILE).exists() else _edits(location)
  readers = {
    '.txt': _lines_or_table,
    '.csv': _lines_or_table,
    '.jsonl': _jsonl,
    '.json': _json,
    '.parquet': _edits,
  }
  if location.suffix not in readers:
    worlds = ' or '.join(f'{world}:N' for world in with_prompts())
    raise ConfigError(f'{name}: a suite is a {", ".join(readers)}, a folder of edits, {worlds}')
  return readers[location.suffix](location)


def _lines_or_table(path: pathlib.Path) -> Suite:
  """Reads prompts, with concepts and motion levels if there is a table of them.

  Movie Gen Video Bench has both, joined by index: some prompts differ between the files, and some
  occur twice. The text is that of the .txt, if it exists.
  """
  if path.suffix == '.txt':
    lines = path
    table = path.with_name(f'{path.stem}{_TAGGED}.csv')
    if not table.is_file():
      rows = (Row(index, prompt) for index, prompt in enumerate(tables.read_lines(path)))
      return Suite(path.stem, 'video', tuple(rows))
  else:
    lines = path.with_name(f'{path.stem.removesuffix(_TAGGED)}.txt')
    table = path
  records = tables.read_csv(table)
  if table == path and _of_edits(records[0]):
    return _edits(path)
  has = [name for name in ('prompt', *_TAGS) if name in records[0]]
  if has[:1] != ['prompt'] or len(has) == 2:
    missing = next(name for name in ('prompt', *_TAGS) if name not in has)
    raise DataError(
      f'{table}: has no column {missing!r} but {", ".join(records[0])}; expected prompt alone, or '
      'prompt,concept,motion_level'
    )
  prompts = [
    tables.required_texts(table, row, number, 'prompt')[0] for number, row in enumerate(records, 1)
  ]
  if table.stem.endswith(_TAGGED) and lines.is_file():
    prompts = _joined(lines, table, prompts)
  rows = []
  for index, (prompt, row) in enumerate(zip(prompts, records, strict=True)):
    concepts = [concept.strip() for concept in row.get('concept', '').split(',')]
    concepts = tuple(dict.fromkeys(filter(None, concepts)))
    rows.append(Row(index, prompt, concepts, row.get('motion_level', '').lower()))
  return Suite(table.stem.removesuffix(_TAGGED), 'video', tuple(rows))


def _joined(lines: pathlib.Path, table: pathlib.Path, prompts: Sequence[str]) -> list[str]:
  """Returns the prompts of the .txt, if they match those of the table."""
  lines_read = tables.read_lines(lines)
  if len(lines_read) != len(prompts):
    raise DataError(
      f'{lines} has {len(lines_read)} prompts and {table} {len(prompts)} rows, which are joined by '
      'index; take both from one release'
    )
  pairs = enumerate(zip(lines_read, prompts, strict=True), 1)
  other = [number for number, pair in pairs if len({*map(_plain, pair)}) > 1]
  if len(other) > max(1, len(prompts) // _OTHER):
    raise DataError(
      f'{lines} and {table} have other prompts in {len(other)} of {len(prompts)} rows, first in '
      f'row {other[0]}; take both from one release'
    )
  return lines_read


def _plain(prompt: str) -> str:
  return ' '.join(unicodedata.normalize('NFKC', prompt).casefold().split())


def _of_edits(row: Fields) -> bool:
  return not _EDITS.isdisjoint(name.lower().replace(' ', '_') for name in row)


def _jsonl(path: pathlib.Path) -> Suite:
  records = tables.read_json_rows(path)
  if _of_edits(records[0]):
    return _edits(path)
  if 'video_prompt' in records[0]:
    return _sounds(path, records)
  rows = []
  for index, row in enumerate(records):
    (prompt,) = tables.required_texts(path, row, index + 1, 'prompt')
    concepts = row.pop('concepts', ())
    motion = row.pop('motion', '')
    if not isinstance(concepts, list | tuple) or not isinstance(motion, str):
      raise DataError(f'{path}: row {index + 1}: concepts are a list of words, motion is one')
    conditions = {key: value for key, value in row.items() if key != 'prompt'}
    rows.append(Row(index, prompt, tuple(map(str, concepts)), motion, conditions))
  return Suite(path.stem, 'video', tuple(rows))


def _sounds(path: pathlib.Path, records: Sequence[dict[str, Any]]) -> Suite:
  """Reads Movie Gen Audio Bench: prompts of videos and of audio, by ids with gaps."""
  rows = []
  known = set()
  for number, row in enumerate(records, 1):
    video, sound = tables.required_texts(path, row, number, 'video_prompt', 'audio_prompt')
    fields = {'id': row.get('id', number - 1), 'audio_prompt': sound}
    if str(fields['id']) in known:
      raise DataError(f'{path}: row {number} has the id {fields["id"]} of another; give it its own')
    known.add(str(fields['id']))
    if row.get('music_prompt'):
      (fields['music_prompt'],) = tables.required_texts(path, row, number, 'music_prompt')
    rows.append(Row(number - 1, video, fields=fields))
  return Suite(path.stem, 'sound', tuple(rows))


def _json(path: pathlib.Path) -> Suite:
  if not path.is_file() or not tables.read_text(path).lstrip().startswith('['):
    return _restore(path)
  rows = (Row(index, *columns) for index, columns in enumerate(vbench.read_full_info(path)))
  return Suite(path.stem, 'video', tuple(rows))


def _restore(path: pathlib.Path) -> Suite:
  mend = 'name one that launch.sample suite wrote'
  fields = read_json(path, error=DataError, mend=mend)
  try:
    rows = (Row(**{**row, 'concepts': tuple(row['concepts'])}) for row in fields['rows'])
    return Suite(fields['name'], fields['kind'], tuple(rows))
  except (TypeError, KeyError, AttributeError, ConfigError) as error:
    raise DataError(f'{path}: is no suite ({error}); {mend}') from None


def _edits(path: pathlib.Path) -> Suite:
  rows = []
  for index, request in enumerate(read_edit_bench(path)):
    fields = {key: value for key, value in request._asdict().items() if key != 'instruction'}
    fields['video'] = os.fspath(request.video)
    concepts = (request.task,) if request.task else ()
    rows.append(Row(index, request.instruction, concepts, fields=fields))
  return Suite(path.stem, 'edit', tuple(rows))


def _of_world(name: str) -> Suite:
  """Held-out captions of a synthetic dataset, in an order that the seed says."""
  world, *numbers = name.split(':')
  if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() for number in numbers):
    raise ConfigError(f'{name}: expected {world}:N or {world}:N:SEED, as in {world}:1003')
  count = int(numbers[0])
  seed = int([*numbers, '0'][1])
  if not 0 < count <= _MOST:
    raise ConfigError(f'{name}: expected from 1 to {_MOST} prompts')
  rows = [
    Row(index, row.caption, row.concepts, scene=row.scene)
    for index, row in enumerate(prompts_of(world).rows(count, seed))
  ]
  return Suite(f'{world}_{count}', 'video', tuple(rows))
