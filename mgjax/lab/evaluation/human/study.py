"""A study: the videos that people compare, the questions, and the raters (Movie Gen §3.5).

A killed server resumes from its `study.json` and from `votes.jsonl`, the answers.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import random
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import Fields, differences
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.files import read_json, write_json
from mgjax.core.settings import Count, Fraction, check, unpack
from mgjax.data.media.video import probe
from mgjax.lab.evaluation.human.questions import Question, read_questions
from mgjax.lab.evaluation.suites.suite import read_suite

FILE = 'study.json'
SPOILT = 'spoilt'  # in place of a model's name in gold pairs
PICTURES = {'.png': 'image/png', '.jpg': 'image/jpeg', '.webp': 'image/webp'}
KINDS = {'.mp4': 'video/mp4', '.webm': 'video/webm', **PICTURES}
_INDEX = re.compile(r'(\d+)(_\w+)?')  # 00000.mp4, and 0000_1f3a5b7c.mp4 of launch.sample
_NAME = re.compile(r'[\w.-]{1,64}')


@dataclasses.dataclass(frozen=True)
class Item:
  """Two models' videos of one prompt; `gold` names the one that wins for certain, if one does."""

  id: str
  prompt: Count
  a: str
  b: str
  gold: str = ''


@dataclasses.dataclass(frozen=True)
class Study:
  """The complete definition of a study.

  Attributes:
    seed: of pairs, of sides, and of the order of items for each rater.
    secret: the key of links and ids; it lets a client vote for all raters.
    models: name -> folder of videos; `references` and `gold` are folders, or ''.
    prompts: each with the keys 'prompt', 'concepts' and 'motion', by index.
    repeats: share of a rater's pairs that are repeated with swapped sides.
    items: pairs, gold ones at the end.
    files: digest of names and sizes of each folder's videos.
  """

  name: str
  seed: Count
  secret: str
  models: Mapping[str, str]
  prompts: tuple[Fields, ...]
  questions: tuple[Question, ...]
  raters: tuple[str, ...]
  repeats: Fraction
  items: tuple[Item, ...]
  references: str = ''
  gold: str = ''
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(self)
    most = max(self.questions, key=lambda question: question.raters)
    if len(self.raters) < most.raters:
      raise ConfigError(
        f'{len(self.raters)} raters, but {most.raters} are to answer {most.name!r} about each '
        'pair; invite more, or lower --each'
      )

  @property
  def folders(self) -> dict[str, pathlib.Path]:
    """Folders of the videos by their names in items."""
    others = {SPOILT: self.gold, '': self.references}
    named = (*self.models.items(), *others.items())
    return {name: pathlib.Path(folder) for name, folder in named if folder}

  def draw(self, *parts: Any) -> random.Random:
    """Returns a random generator that depends on the seed and `parts`."""
    return random.Random(json.dumps([self.seed, *parts]))


class Folders(NamedTuple):
  """The folders of videos of a study.

  Attributes:
    models: name -> folder of videos, one a prompt.
    references: folder of model inputs (clips to edit, pictures of people), or ''.
    gold: folder of videos of some prompts that certainly lose against the first model's, or ''.
  """

  models: Mapping[str, str]
  references: str = ''
  gold: str = ''


class Design(NamedTuple):
  """The number of answers of a study.

  Attributes:
    raters_per_pair: raters that answer a question about a pair; 0 for the question's own number.
    pairs: pairs of models drawn for each prompt, so that all pairs are equally frequent; 0 for as
      many as show each model once.
    repeats: share of a rater's pairs that are repeated.
    seed: of the draws.
  """

  raters_per_pair: int = 0
  pairs: int = 0
  repeats: float = 0.05
  seed: int = 0


USUAL = Design()


def begin(
  directory: str | os.PathLike[str],
  folders: Folders,
  prompts: str | None,
  questions: str = 'video',
  raters: Sequence[str] = (),
  *,
  design: Design = USUAL,
  name: str = '',
) -> Study:
  """Creates a study and its directory, or resumes the same study in that directory.

  Without `raters` it makes up as many names as the questions need. Raises ConfigError if the parts
  do not fit together, or the directory has another study, DataError if videos or prompts are
  missing or cannot be read.
  """
  path = pathlib.Path(directory) / FILE
  if not prompts:
    raise ConfigError('--prompts is missing; name the file that the videos were made from')
  rows = [
    {'prompt': row.prompt, 'concepts': [*row.concepts], 'motion': row.motion}
    for row in read_suite(prompts).rows
  ]
  models, references, gold = folders
  all_questions = read_questions(questions, design.raters_per_pair)
  most = max(question.raters for question in all_questions)
  raters = raters or tuple(f'rater{number:02d}' for number in range(1, most + 1))
  _check_names(models, raters)
  all_folders = {**models, SPOILT: gold, '': references}
  videos = {label: videos_of(folder) for label, folder in all_folders.items() if folder}
  for model, folder in models.items():
    _check_complete(folder, videos[model], len(rows))
  if needing := [question.name for question in all_questions if question.reference]:
    if not references:
      raise ConfigError(
        f'question {needing[0]!r} needs what the models were given; name its folder by --references'
      )
    _check_complete(references, videos[''], len(rows))
  items = _items(models, rows, design.seed, design.pairs)
  fields = {
    'name': name or 'Which video is better?',
    'seed': design.seed,
    'models': {model: os.path.abspath(folder) for model, folder in models.items()},
    'prompts': rows,
    'questions': [dataclasses.asdict(question) for question in all_questions],
    'raters': [*raters],
    'repeats': design.repeats,
    'references': references and os.path.abspath(references),
    'gold': gold and os.path.abspath(gold),
    'files': {label: _digest(paths) for label, paths in videos.items()},
  }
  first = next(iter(models))
  spoilt = (prompt for prompt in sorted(videos.get(SPOILT, ())) if prompt < len(rows))
  items += (Item(f'{prompt}:gold', prompt, first, SPOILT, first) for prompt in spoilt)
  fields['items'] = [dataclasses.asdict(item) for item in items]
  if path.exists():
    known = read_json(path, mend='put back a whole copy, or take another --out')
    changed = differences({**known, 'secret': ''}, {**fields, 'secret': ''})
    if changed:
      raise ConfigError(
        f'{path}: is of another study ({changed[0]:.200}); take another --out, or give --out alone '
        'to go on with that one'
      )
    return read_study(directory)
  study = _study(fields | {'secret': secrets.token_hex(16)}, path)
  for paths in videos.values():
    for video in paths.values():
      frame_seconds(video)
  write_json(path, dataclasses.asdict(study), private=True)  # the secret is in it
  return study


def read_study(directory: str | os.PathLike[str]) -> Study:
  """Reads a study; ConfigError if there is none, or it is damaged."""
  path = pathlib.Path(directory) / FILE
  mend = 'put back a whole copy, or give --a, --b and --prompts to begin one'
  return _study(read_json(path, mend=mend), path)


def check_videos(study: Study) -> dict[str, dict[int, pathlib.Path]]:
  """Returns the videos of each folder by index; DataError if they changed since the study began."""
  videos = {name: videos_of(folder) for name, folder in study.folders.items()}
  for name, paths in videos.items():
    if _digest(paths) != study.files.get(name):
      raise DataError(
        f'{study.folders[name]}: its videos are not those that the study began with; put them back,'
        ' or begin another study'
      )
  return videos


def videos_of(folder: str | os.PathLike[str]) -> dict[int, pathlib.Path]:
  """Returns the videos and pictures of a folder by the index at the start of their names.

  Raises DataError if there are none, two have the same index, or a link leads out of the folder.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise DataError(f'{folder}: there is no such folder; expected one with 00000.mp4, 00001.mp4 …')
  videos = {}
  for path in sorted(folder.iterdir()):
    match = _INDEX.fullmatch(path.stem)
    if not match or path.suffix.lower() not in KINDS:
      continue
    if not inside(path, folder):
      raise DataError(f'{path}: leads out of {folder}; only files inside of it are shown')
    if (index := int(match[1])) in videos:
      raise DataError(f'{videos[index]} and {path.name} have one index; leave one of them')
    videos[index] = path
  if not videos:
    raise DataError(f'{folder}: holds no videos by index; expected 00000.mp4, 00001.mp4 …')
  return videos


def inside(path: pathlib.Path, folder: str | os.PathLike[str]) -> bool:
  """Returns whether a path, with links resolved, is a file inside a folder."""
  real = path.resolve()
  return real.is_file() and real.is_relative_to(pathlib.Path(folder).resolve())


def frame_seconds(path: pathlib.Path) -> float:
  """Returns the duration of a video's frame, 0 for a picture; DataError if it is damaged."""
  return 0.0 if path.suffix.lower() in PICTURES else 1 / probe(path).fps


def _study(fields: Mapping[str, Any], path: pathlib.Path) -> Study:
  classes = {'questions': Question, 'items': Item}
  fields = dict(fields)
  for key, kind in classes.items():
    if isinstance(fields.get(key), list | tuple):
      fields[key] = tuple(
        unpack(kind, row if isinstance(row, dict) else {}, f'{key} {number}')
        for number, row in enumerate(fields[key], 1)
      )
  return unpack(Study, fields, os.fspath(path))


def _check_names(models: Mapping[str, str], raters: Sequence[str]) -> None:
  if len(models) < 2:
    raise ConfigError(f'{len(models)} folders of videos; expected two or more to compare')
  if SPOILT in models or 'tie' in models:
    raise ConfigError(
      f"a model is called '{SPOILT}' or 'tie', which mean something else; rename it"
    )
  if len({*raters}) < len(raters):
    raise ConfigError(f'raters {", ".join(raters)}: two have one name; expected names that differ')
  for name in (*models, *raters):
    if not _NAME.fullmatch(name):
      raise ConfigError(f'{name!r} as a name; expected up to 64 letters, digits, _, - and .')


def _check_complete(folder: str, paths: Mapping[int, pathlib.Path], count: int) -> None:
  missing = [index for index in range(count) if index not in paths]
  extra = [path for index, path in paths.items() if index >= count]
  if missing:
    raise DataError(
      f'{folder}: holds {len(paths)} videos for {count} prompts, and none of prompt {missing[0]} '
      f'({missing[0]:05d}.mp4); add it, or take it out of the prompts'
    )
  if extra:
    raise DataError(
      f'{folder}: holds {len(paths)} videos for {count} prompts ({extra[0].name} is one too many);'
      ' take it away, or give all prompts'
    )


def _items(models: Mapping[str, str], rows: Sequence[Any], seed: int, pairs: int) -> list[Item]:
  all_pairs = list(itertools.combinations(models, 2))
  per_prompt = pairs or len(models) // 2
  if per_prompt > len(all_pairs) or per_prompt * len(rows) < len(all_pairs):
    raise ConfigError(
      f'--pairs={per_prompt}: {len(rows)} prompts with that many pairs each, of {len(models)} '
      f'models; expected from {-(-len(all_pairs) // len(rows))} to {len(all_pairs)}, so that all '
      'models meet'
    )
  draw = random.Random(seed)
  used = dict.fromkeys(all_pairs, 0)
  items = []
  for prompt in range(len(rows)):
    for pair in sorted(all_pairs, key=lambda pair: (used[pair], draw.random()))[:per_prompt]:
      used[pair] += 1
      items.append(Item(':'.join((str(prompt), *pair)), prompt, *pair))
  return items


def _digest(paths: Mapping[int, pathlib.Path]) -> str:
  listed = [(path.name, path.stat().st_size) for _, path in sorted(paths.items())]
  return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
