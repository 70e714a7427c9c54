"""Measures how well videos are edited by instruction (Movie Gen §5).

Clips of handwriting and of combinations that training never saw are edited in every task that the
model knows, as often in each, and the judge of the small world says of each whether all is as asked
and all else is kept. Beside the model stand the source as it is, which must be right where nothing
is asked for and wrong everywhere else, and the true clip, as it is and through the autoencoder.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.conditioning.edit_task import KEY as TASK
from mgjax.conditioning.source_video import KEY as SOURCE
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_digits
from mgjax.digits import render
from mgjax.digits.edit_judge import EditJudge, JudgedEdit, train_edit_judge
from mgjax.digits.edits import OF_MOTION, TASKS, Edit
from mgjax.digits.scene import COLOURS
from mgjax.evaluation.alignment import held_out_labels, indices_of, world_of
from mgjax.evaluation.metrics.intervals import Share, share
from mgjax.evaluation.record.measured import Measured, mean_metric, share_metric
from mgjax.media.contact_sheet import contact_sheet
from mgjax.video.pipeline import VideoPipeline

OURS = 'model'
NEW_COLOUR = 'recolour, new colour'
UNCOUNTED = ('nothing', NEW_COLOUR)  # in no mean over tasks
SPLIT = 'judge'  # of the clips' handwriting, so that what was filtered by 'filter' knows none of it
_NUMBERS = {
  'handwriting': ('handwriting kept', 1),
  'path_error': ('error of the path, pixels', -1),
  'flicker': ('flicker of the wall', 0),
}

Videos = Sequence[UInt8[np.ndarray, '_ _ _ 3']] | UInt8[np.ndarray, 'b _ _ _ 3']


@dataclasses.dataclass(frozen=True)
class Asked:
  """An edit to judge a model by.

  Attributes:
    name: of the row it counts in: its task, or `NEW_COLOUR`.
    edit: with both scenes.
  """

  name: str
  edit: Edit


@dataclasses.dataclass(frozen=True)
class Scores:
  """What is read of the edits of one row.

  Attributes:
    each: one an edit.
  """

  each: tuple[JudgedEdit, ...]

  @property
  def right(self) -> Share:
    """The share of edits in which all is as asked and all else is kept."""
    return share([each.right for each in self.each])

  @property
  def parts(self) -> dict[str, float]:
    """Part -> share of edits in which it is as it should be."""
    names = self.each[0].parts
    return {name: float(np.mean([each.parts[name] for each in self.each])) for name in names}

  def mean(self, name: str) -> float:
    """The mean of a number of `JudgedEdit` over the edits that have it; NaN where none has."""
    values = np.array([getattr(each, name) for each in self.each])
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else math.nan

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values, None for NaN."""
    numbers = {name: self.mean(name) for name in _NUMBERS}
    return {
      'right': dataclasses.asdict(self.right),
      'parts': self.parts,
      **{name: None if math.isnan(value) else value for name, value in numbers.items()},
      'each': [int(each.right) for each in self.each],
    }


@dataclasses.dataclass(frozen=True)
class Edited:
  """Scores of a model's edits, and of what they can be compared with.

  Attributes:
    scores: way -> row -> its scores.
    instructions: of the edits, row by row.
  """

  scores: Mapping[str, Mapping[str, Scores]]
  instructions: Sequence[str] = ()

  def mean(self, way: str) -> float:
    """The mean over tasks of the shares that are right; NaN if there is no task that counts."""
    found = [s.right.value for name, s in self.scores[way].items() if name not in UNCOUNTED]
    return float(np.mean(found)) if found else math.nan

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    means = {way: self.mean(way) for way in self.scores}
    return {
      'edits': {
        way: {name: scores.as_dict() for name, scores in rows.items()}
        for way, rows in self.scores.items()
      },
      'mean': {way: None if math.isnan(value) else value for way, value in means.items()},
    }

  def measured(self) -> Measured:
    """Returns what the model's edits score, of all tasks and of each, beside the other ways."""
    ours, others = self.scores[OURS], [way for way in self.scores if way != OURS]
    edits = [(name, each) for name, scores in ours.items() for each in scores.each]
    right = {name: [each.right if of == name else math.nan for of, each in edits] for name in ours}
    metrics = {}
    if any(name not in UNCOUNTED for name in ours):
      counted = [math.nan if name in UNCOUNTED else each.right for name, each in edits]
      beside = {way: self.mean(way) for way in others}
      metrics[f'mean/{OURS}'] = share_metric(counted, 'right', beside=beside)
    for number, (label, better) in _NUMBERS.items():
      values = [getattr(each, number) for _, each in edits]
      if np.isfinite(values).any():
        beside = {way: _mean_of(self.scores[way].values(), number) for way in others}
        metrics[number] = mean_metric(values, label, better, beside=beside)
    for name, each in right.items():
      beside = {way: self.scores[way][name].right.value for way in others}
      metrics[f'edits/{OURS}/{name}/right'] = share_metric(
        each, f'right, {name}', beside=beside, shown=False
      )
    about = 'source, edit by the model, expected'
    return Measured(metrics, self.instructions, about=about)

  def table(self) -> str:
    """Formats all ways with 95% intervals and what each task's parts are, for people."""
    ways = list(self.scores)
    rows = list(self.scores[ways[0]])
    width = max(map(len, (*rows, 'mean')))
    lines = ['right'.ljust(width) + ''.join(f'{way:>27}' for way in ways)]
    for name in rows:
      found = (f'{self.scores[way][name].right!s:>27}' for way in ways)
      lines.append(name.ljust(width) + ''.join(found))
    lines.append('mean'.ljust(width) + ''.join(f'{self.mean(way):27.3f}' for way in ways))
    for number in _NUMBERS:
      lines += ['', number.replace('_', ' ').ljust(width) + ''.join(f'{way:>27}' for way in ways)]
      for name in rows:
        values = [self.scores[way][name].mean(number) for way in ways]
        if np.isfinite(values).any():
          lines.append(name.ljust(width) + ''.join(f'{value:27.3f}' for value in values))
    lines += ['', f'parts, {ways[0]}']
    for name in rows:
      parts = self.scores[ways[0]][name].parts.items()
      lines.append(name.ljust(width) + ''.join(f'  {part} {value:.3f}' for part, value in parts))
    count = len(self.scores[ways[0]][rows[0]].each)
    left_out = ' and '.join(f'{name!r}' for name in UNCOUNTED if name in rows)
    note = f'; {left_out} in no mean' if left_out else ''
    return '\n'.join([*lines, '', f'{count} edits a row{note}'])


@dataclasses.dataclass(frozen=True)
class Shown:
  """One edit, for a picture."""

  row: str
  instruction: str
  source: UInt8[np.ndarray, 't h w 3']
  ours: UInt8[np.ndarray, 't h w 3']
  expected: UInt8[np.ndarray, 't h w 3']

  @property
  def beside(self) -> UInt8[np.ndarray, 't h v 3']:
    """Source, the model's video and the expected one side by side."""
    return np.concatenate([self.source, self.ours, self.expected], axis=2)


def judge_editing(
  editor: VideoPipeline,
  *,
  samples: int = 216,
  seed: int = 0,
  judge: EditJudge | None = None,
  untold: bool = False,
) -> tuple[Edited, list[Shown]]:
  """Edits clips that training never showed in every task of the model, and judges the videos.

  Args:
    editor: of a model that was trained to edit moving digits.
    samples: edits, shared out evenly to tasks; at least one a task.
    seed: of the noise.
    judge: of edits; by default one that learns from the handwriting of training.
    untold: whether the model makes all edits again by the instruction alone, without the task.

  Raises:
    ConfigError: the model was trained on something else, or reads no source video.
  """
  asked = held_out_edits(editor, samples)
  edits = [each.edit for each in asked]
  frames, *size = editor.default_shape
  before, truth = (
    [render.render(scene, frames, tuple(size)) for scene in scenes]
    for scenes in ([edit.before for edit in edits], [edit.after for edit in edits])
  )
  prompts = [edit.instruction for edit in edits]
  tasks = {TASK: [edit.task for edit in edits]} if TASK in editor.reads else {}
  ways: dict[str, Videos] = {OURS: editor.generate(prompts, video=before, seed=seed, **tasks)}
  if untold and tasks:
    ways['model, task not told'] = editor.generate(prompts, video=before, seed=seed)
  ways |= {
    'source, unchanged': before,
    'truth, autoencoder': [editor.reconstruct(video) for video in truth],
    'truth': truth,
  }
  judge = judge or train_edit_judge(**world_of(editor, 'digits'))
  rows = [each.name for each in asked]
  found = {way: judge_edits(edits, videos, judge, rows) for way, videos in ways.items()}
  shown = zip(rows, prompts, before, ways[OURS], truth, strict=True)
  return Edited(found, prompts), [Shown(*each) for each in shown]


def _mean_of(scores: Iterable[Scores], number: str) -> float:
  values = np.array([getattr(each, number) for row in scores for each in row.each])
  there = values[np.isfinite(values)]
  return float(there.mean()) if there.size else math.nan


def judge_edits(
  edits: Sequence[Edit], videos: Videos, judge: EditJudge, rows: Sequence[str] = ()
) -> dict[str, Scores]:
  """Scores edited videos, whoever made them, by their rows.

  Args:
    edits: what was asked for, with the scenes.
    videos: one an edit, in the same order.
    judge: of edits, see `train_edit_judge`.
    rows: the name of the row that each counts in; its task by default.

  Raises:
    DataError: there is not one video an edit.
  """
  rows = rows or [edit.task for edit in edits]
  if not len(edits) == len(videos) == len(rows) or not edits:
    raise DataError(
      f'{len(edits)} edits, {len(videos)} videos and {len(rows)} rows; give one of each an edit'
    )
  found: dict[str, list[JudgedEdit]] = {name: [] for name in rows}
  for edit, video, name in zip(edits, videos, rows, strict=True):
    found[name].append(judge.judge(np.asarray(video), edit))
  return {name: Scores(tuple(each)) for name, each in found.items()}


def held_out_edits(editor: VideoPipeline, samples: int) -> list[Asked]:
  """Returns edits of clips that training never showed, as many of each task, in its order.

  Args:
    editor: of a model that was trained to edit moving digits.
    samples: edits, shared out evenly; at least one a task.

  Raises:
    ConfigError: the model was trained on something else, or reads no source video.
  """
  if SOURCE not in editor.reads:
    raise ConfigError(
      f'the model reads {", ".join(editor.reads) or "nothing"} beside text; expected one that '
      'reads a source video, as configs/digits/editing.py trains'
    )
  world = world_of(editor, 'digits')
  data = data_settings(fields_of(editor.config, 'data'))
  names = _tasks_of(editor, world['frames'])
  fresh = [name for name in COLOURS if name not in world['colours']]
  rows = [*names, *([NEW_COLOUR] if 'recolour' in names and fresh else [])]
  count = max(samples // len(rows), 1)
  labels = held_out_labels(world, count)[2][:count]
  asked = []
  for row in rows:
    task = 'recolour' if row == NEW_COLOUR else row
    looks = {'frames': world['frames'], 'size': world['size'], 'empty': 0.0, 'extras': ()}
    source = make_digits(data, 'validation', edits=(task,), **looks)
    source = dataclasses.replace(source, split=SPLIT)
    for place, index in enumerate(indices_of(source, labels)):
      edit = source.edit(source.scene(index))
      if row == NEW_COLOUR:
        other = dataclasses.replace(edit.after, colour=fresh[place % len(fresh)])
        edit = edit._replace(after=other)
      asked.append(Asked(row, edit))
  return asked


def _tasks_of(editor: VideoPipeline, frames: int) -> list[str]:
  """The tasks that the model was trained on, of those that clips of so many frames can show."""
  conditionings = fields_of(editor.config, 'model')['conditionings'].values()
  known = next((each['tasks'] for each in conditionings if 'tasks' in each), TASKS)
  return [task for task in TASKS if task in known and (frames > 1 or task not in OF_MOTION)]


def write_shown(directory: pathlib.Path, shown: Sequence[Shown]) -> pathlib.Path:
  """Draws of one edit a row source, the model's video and the expected one below each other."""
  shown = list({each.row: each for each in reversed(shown)}.values())[::-1]
  directory.mkdir(parents=True, exist_ok=True)
  rows = [video for each in shown for video in (each.source, each.ours, each.expected)]
  titles = [
    f'{each.instruction}: {what}' for each in shown for what in ('source', 'the model', 'expected')
  ]
  path = directory / 'edited.png'
  contact_sheet(path, rows, titles)
  return path
