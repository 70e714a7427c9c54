"""Measures how well videos are edited by instruction (Movie Gen §5).

Clips of handwriting and of combinations that training never saw are edited in every task that the
model knows, as often in each, and the judge of moving digits says of each whether all is as asked
and all else is kept. Beside the model stand the source as it is, which must be right where nothing
is asked for and wrong everywhere else, and the true clip, as it is and through the autoencoder.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.conditioning.edit_task import KEY as TASK
from mgjax.conditioning.source_video import KEY as SOURCE
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.evaluation.metrics.intervals import share
from mgjax.evaluation.record.measured import Grid, Measured, mean_metric, share_metric
from mgjax.evaluation.record.show import Shown
from mgjax.evaluation.worlds.alignment import world_of
from mgjax.video.pipeline import VideoPipeline
from mgjax.worlds.digits import render
from mgjax.worlds.digits.edits import OF_MOTION, TASKS, Edit
from mgjax.worlds.digits.judges.edit import EditJudge, JudgedEdit, train_edit_judge
from mgjax.worlds.digits.judges.video import LOOKS, held_out_labels, indices_of
from mgjax.worlds.digits.scene import COLOURS

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
Scores = dict[str, list[JudgedEdit]]  # row -> what is read of each of its edits


class Asked(NamedTuple):
  """An edit to judge a model by, with the row it counts in: its task, or `NEW_COLOUR`."""

  name: str
  edit: Edit


def judge_editing(
  editor: VideoPipeline,
  *,
  samples: int = 216,
  seed: int = 0,
  judge: EditJudge | None = None,
  untold: bool = False,
) -> tuple[Measured, dict[str, list[Shown]]]:
  """Edits clips that training never showed in every task of the model, and judges the videos.

  `samples` are shared out evenly to tasks, at least one a task. With `untold` the model makes all
  edits again by the instruction alone, without the task. Returns the numbers, and row -> its edits,
  for pictures. Raises what `held_out_edits` does.
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
  again = [editor.reconstruct(video) for video in truth]
  ways |= {'source, unchanged': before, 'truth, autoencoder': again, 'truth': truth}
  judge = judge or train_edit_judge(**world_of(editor, 'digits', LOOKS))
  rows = [each.name for each in asked]
  found = {way: judge_edits(edits, videos, judge, rows) for way, videos in ways.items()}
  shown: dict[str, list[Shown]] = {name: [] for name in rows}
  for name, prompt, *videos in zip(rows, prompts, before, ways[OURS], truth, strict=True):
    titles = ('source', 'the model', 'expected')
    shown[name].append(Shown(prompt, dict(zip(titles, videos, strict=True))))
  return _measured(found, prompts), shown


def _measured(scores: Mapping[str, Scores], instructions: Sequence[str]) -> Measured:
  """Numbers of the model's edits, of all tasks and of each, beside the other ways."""
  others = [way for way in scores if way != OURS]
  edits = [(name, each) for name, row in scores[OURS].items() for each in row]
  shares, means = {}, {}
  for way, rows in scores.items():
    found = {name: share([each.right for each in row]) for name, row in rows.items()}
    shares[way] = found
    means[way] = _mean(each.value for name, each in found.items() if name not in UNCOUNTED)
  metrics = {}
  if math.isfinite(means[OURS]):
    counted = [math.nan if name in UNCOUNTED else each.right for name, each in edits]
    beside = {way: means[way] for way in others}
    metrics[f'mean/{OURS}'] = share_metric(counted, 'right', beside=beside)
  for number, (label, better) in _NUMBERS.items():
    values = [getattr(each, number) for _, each in edits]
    if np.isfinite(values).any():
      beside = {}
      for way in others:
        beside[way] = _mean(getattr(each, number) for row in scores[way].values() for each in row)
      metrics[number] = mean_metric(values, label, better, beside=beside)
  for row in scores[OURS]:
    metrics[f'edits/{OURS}/{row}/right'] = share_metric(
      [each.right if name == row else math.nan for name, each in edits],
      f'right, {row}',
      beside={way: shares[way][row].value for way in others},
      shown=False,
    )
  told = {
    way: {
      name: {
        'right': shares[way][name],
        'parts': {
          part: float(np.mean([each.parts[part] for each in row])) for part in row[0].parts
        },
        **{number: _mean(getattr(each, number) for each in row) for number in _NUMBERS},
        'each': [int(each.right) for each in row],
      }
      for name, row in rows.items()
    }
    for way, rows in scores.items()
  }
  return Measured(
    metrics,
    instructions,
    about='source, edit by the model, expected',
    record={'edits': told, 'mean': means},
    table=_tables(told, means),
  )


def _tables(
  told: Mapping[str, Mapping[str, Mapping[str, Any]]], means: Mapping[str, float]
) -> list[Grid | str]:
  """All ways with 95% intervals, task by task, and what each task's parts are."""
  rows = {name: [str(found[name]['right']) for found in told.values()] for name in told[OURS]}
  means = {'mean': list(means.values())}
  tables: list[Grid | str] = [Grid(list(told), rows | means, title='right')]
  for number in _NUMBERS:
    numbers = {name: [found[name][number] for found in told.values()] for name in rows}
    numbers = {name: row for name, row in numbers.items() if np.isfinite(row).any()}
    tables += ['', Grid(list(told), numbers, title=number.replace('_', ' '))]
  tables += ['', f'parts, {OURS}']
  for name, found in told[OURS].items():
    tables.append('  '.join([name, *(f'{part} {x:.3f}' for part, x in found['parts'].items())]))
  count = len(next(iter(told[OURS].values()))['each'])
  left_out = ' and '.join(f'{name!r}' for name in UNCOUNTED if name in rows)
  note = f'; {left_out} in no mean' if left_out else ''
  return [*tables, '', f'{count} edits a row{note}']


def _mean(numbers: Iterable[float]) -> float:
  """The mean of those that are finite; NaN where none is."""
  values = np.array(list(numbers))
  there = values[np.isfinite(values)]
  return float(there.mean()) if there.size else math.nan


def judge_edits(
  edits: Sequence[Edit], videos: Videos, judge: EditJudge, rows: Sequence[str] = ()
) -> Scores:
  """Reads edited videos by rows, by default tasks; DataError unless each edit has one of each."""
  rows = rows or [edit.task for edit in edits]
  if not len(edits) == len(videos) == len(rows) or not edits:
    raise DataError(
      f'{len(edits)} edits, {len(videos)} videos and {len(rows)} rows; give one of each an edit'
    )
  found: dict[str, list[JudgedEdit]] = {name: [] for name in rows}
  for edit, video, name in zip(edits, videos, rows, strict=True):
    found[name].append(judge.judge(np.asarray(video), edit))
  return found


def held_out_edits(editor: VideoPipeline, samples: int) -> list[Asked]:
  """Returns edits of clips that training never showed, as many of each task, at least one.

  Raises ConfigError if the model was trained on something else, or reads no source video.
  """
  if SOURCE not in editor.reads:
    raise ConfigError(
      f'the model reads {", ".join(editor.reads) or "nothing"} beside text; expected one that '
      'reads a source video, as configs/digits/editing.py trains'
    )
  world = world_of(editor, 'digits', LOOKS)
  data = data_settings(fields_of(editor.config, 'data'))
  names = _tasks_of(editor, world['frames'])
  fresh = [name for name in COLOURS if name not in world['colours']]
  rows = [*names, *([NEW_COLOUR] if 'recolour' in names and fresh else [])]
  count = max(samples // len(rows), 1)
  labels = held_out_labels(world, count)[:count]
  asked = []
  for row in rows:
    task = 'recolour' if row == NEW_COLOUR else row
    looks = {'frames': world['frames'], 'size': world['size'], 'empty': 0.0, 'extras': ()}
    source = make_world(data, 'validation', edits=(task,), **looks)
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
