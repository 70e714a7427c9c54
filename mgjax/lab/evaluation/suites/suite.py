"""A prompt suite: the prompts that a comparison is about, by index, with what is known of them.

Movie Gen Video Bench and Movie Gen Audio Bench are CC-BY-NC (Movie Gen §3.5, §6.3): they are read
where their user has put them, and no prompt of them is part of this code.
"""

import dataclasses
import json
import os
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json
from mgjax.core.settings import Count, check
from mgjax.data.ingest.edit_bench import read_edit_bench
from mgjax.data.synthetic_datasets import prompts_of, with_prompts
from mgjax.lab.evaluation.suites import tables, vbench
from mgjax.models.text.prompts import prompt_hash

FILE = 'suite.json'  # in a directory of videos, of which suite they are
MINI = 381  # prompts of the set that Movie Gen §3.5 measures its sigma on; which is not public
MOTIONS = ('', 'low', 'medium', 'high')
KINDS = ('video', 'sound', 'edit')
_TAGGED = 'WithTag'  # at the end of the name of the table with concepts and motion levels
_TAGS = ('concept', 'motion_level')
_OTHER = 50  # one prompt in so many may be written otherwise in the other file
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
    index: its place in the whole suite, by which videos are named and rows are joined.
    prompt: what is asked for; the same text may come again under another index.
    concepts: tags of what it tests.
    motion: 'low', 'medium' or 'high', '' where nobody says.
    fields: what else there is: of sound 'id', 'audio_prompt' and 'music_prompt'; of an edit
      'video', 'task', 'caption' and 'target'; of videos conditions beside the prompt, by name.
    scene: of a world's caption, where its judge finds what it is of.
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
    """What a video of it is called, without its ending: its index and a hash of the prompt."""
    return f'{self.index:04d}_{prompt_hash(self.prompt)}'


@dataclasses.dataclass(frozen=True)
class Suite:
  """Prompts in their order; `kind` is what a model is asked to make: 'video', 'sound' or 'edit'."""

  name: str
  kind: str
  rows: tuple[Row, ...]

  @property
  def prompts(self) -> list[str]:
    """The text of each row."""
    return [row.prompt for row in self.rows]

  @property
  def tags(self) -> dict[str, list[int]]:
    """Concepts, and motion levels as 'motion: low' -> places of their rows, the most first."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(self.rows):
      for tag in (*row.concepts, *([f'motion: {row.motion}'] if row.motion else [])):
        found.setdefault(tag, []).append(place)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

  def drawn(self, count: Count = MINI, seed: Count = 0) -> 'Suite':
    """Returns some rows, drawn without replacement, in their order and under their own index."""
    if count > len(self.rows):
      raise DataError(f'{self.name} has {len(self.rows)} prompts; {count} cannot be drawn of them')
    chosen = np.random.default_rng(seed).choice(len(self.rows), count, replace=False)
    rows = tuple(self.rows[place] for place in sorted(chosen.tolist()))
    return dataclasses.replace(self, name=f'{self.name}:mini', rows=rows)

  def as_dict(self) -> JSON:
    """Returns plain JSON values, which `read_suite` reads from a .json."""
    return json.loads(json.dumps(dataclasses.asdict(self)))


def read_suite(path: str | os.PathLike[str]) -> Suite:
  """Reads a suite of any kind.

  - .txt: a prompt a line; NAME.txt and NAMEWithTag.csv beside each other are joined by index, as of
    Movie Gen Video Bench.
  - .csv: a column `prompt`, and `concept` (several joined by ',') with `motion_level`.
  - .jsonl: objects with `prompt` and conditions beside it, or of Movie Gen Audio Bench with `id`,
    `video_prompt`, `audio_prompt` and `music_prompt`.
  - a folder of videos with a table of edits, or that table: see `read_edit_bench`.
  - .json: `suite.json`, also by the folder that `launch.sample suite` wrote it to, or VBench's
    VBench_full_info.json, whose dimensions become concepts.
  - 'digits:N' or 'digits:N:SEED': held-out captions of moving digits; 'solids:N' of lit solids.

  With ':mini' behind its path: the seeded sample of 381 of its prompts.

  Raises:
    ConfigError: it is named wrongly.
    DataError: it cannot be read, or is not what its name says.
  """
  name = os.fspath(path)
  if name.partition(':')[0] in with_prompts() and ':' in name:
    return _of_world(name)
  if name.endswith(':mini'):
    return read_suite(name.removesuffix(':mini')).drawn()
  place = pathlib.Path(name)
  if place.is_dir():
    return _restore(place / FILE) if (place / FILE).exists() else _edits(place)
  readers = {
    '.txt': _lines_or_table,
    '.csv': _lines_or_table,
    '.jsonl': _jsonl,
    '.json': _json,
    '.parquet': _edits,
  }
  if place.suffix not in readers:
    worlds = ' or '.join(f'{world}:N' for world in with_prompts())
    raise ConfigError(f'{name}: a suite is a {", ".join(readers)}, a folder of edits, {worlds}')
  return readers[place.suffix](place)


def _lines_or_table(path: pathlib.Path) -> Suite:
  """Reads prompts, with concepts and motion levels where there is a table of them.

  Movie Gen Video Bench has both, joined by index: some prompts are written otherwise in the other
  file, some come twice. The words are those of the .txt, if it is there.
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
  found = tables.read_csv(table)
  if table == path and _of_edits(found[0]):
    return _edits(path)
  has = [name for name in ('prompt', *_TAGS) if name in found[0]]
  if has[:1] != ['prompt'] or len(has) == 2:
    missing = next(name for name in ('prompt', *_TAGS) if name not in has)
    raise DataError(
      f'{table}: has no column {missing!r} but {", ".join(found[0])}; expected prompt alone, or '
      'prompt,concept,motion_level'
    )
  prompts = [tables.wanted(table, row, number, 'prompt')[0] for number, row in enumerate(found, 1)]
  if table.stem.endswith(_TAGGED) and lines.is_file():
    prompts = _joined(lines, table, prompts)
  rows = []
  for index, (prompt, row) in enumerate(zip(prompts, found, strict=True)):
    concepts = [each.strip() for each in row.get('concept', '').split(',')]
    concepts = tuple(dict.fromkeys(filter(None, concepts)))
    rows.append(Row(index, prompt, concepts, row.get('motion_level', '').lower()))
  return Suite(table.stem.removesuffix(_TAGGED), 'video', tuple(rows))


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


def _of_edits(row: Fields) -> bool:
  return not _EDITS.isdisjoint(name.lower().replace(' ', '_') for name in row)


def _jsonl(path: pathlib.Path) -> Suite:
  found = tables.read_json_rows(path)
  if _of_edits(found[0]):
    return _edits(path)
  if 'video_prompt' in found[0]:
    return _sounds(path, found)
  rows = []
  for index, row in enumerate(found):
    (prompt,) = tables.wanted(path, row, index + 1, 'prompt')
    concepts = row.pop('concepts', ())
    motion = row.pop('motion', '')
    if not isinstance(concepts, list | tuple) or not isinstance(motion, str):
      raise DataError(f'{path}: row {index + 1}: concepts are a list of words, motion is one')
    more = {key: value for key, value in row.items() if key != 'prompt'}
    rows.append(Row(index, prompt, tuple(map(str, concepts)), motion, more))
  return Suite(path.stem, 'video', tuple(rows))


def _sounds(path: pathlib.Path, found: Sequence[JSON]) -> Suite:
  """Movie Gen Audio Bench: what videos show and what is to be heard, by ids with gaps."""
  rows = []
  known = set()
  for number, row in enumerate(found, 1):
    video, sound = tables.wanted(path, row, number, 'video_prompt', 'audio_prompt')
    fields = {'id': row.get('id', number - 1), 'audio_prompt': sound}
    if str(fields['id']) in known:
      raise DataError(f'{path}: row {number} has the id {fields["id"]} of another; give it its own')
    known.add(str(fields['id']))
    if row.get('music_prompt'):
      (fields['music_prompt'],) = tables.wanted(path, row, number, 'music_prompt')
    rows.append(Row(number - 1, video, fields=fields))
  return Suite(path.stem, 'sound', tuple(rows))


def _json(path: pathlib.Path) -> Suite:
  if not path.is_file() or not tables.read_text(path).lstrip().startswith('['):
    return _restore(path)
  rows = (Row(index, *each) for index, each in enumerate(vbench.read_full_info(path)))
  return Suite(path.stem, 'video', tuple(rows))


def _restore(path: pathlib.Path) -> Suite:
  mend = 'name one that launch.sample suite wrote'
  told = read_json(path, error=DataError, mend=mend)
  try:
    rows = (Row(**{**row, 'concepts': tuple(row['concepts'])}) for row in told['rows'])
    return Suite(told['name'], told['kind'], tuple(rows))
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
  """Held-out captions of a world, in an order that the seed says."""
  world, *numbers = name.split(':')
  if not 1 <= len(numbers) <= 2 or not all(each.isdecimal() for each in numbers):
    raise ConfigError(f'{name}: expected {world}:N or {world}:N:SEED, as in {world}:1003')
  count = int(numbers[0])
  seed = int([*numbers, '0'][1])
  if not 0 < count <= _MOST:
    raise ConfigError(f'{name}: expected from 1 to {_MOST} prompts')
  rows = [
    Row(index, each.caption, each.concepts, scene=each.scene)
    for index, each in enumerate(prompts_of(world).rows(count, seed))
  ]
  return Suite(f'{world}_{count}', 'video', tuple(rows))
