"""Measures how well videos are edited by instruction (Movie Gen §5).

Clips that training never showed are edited in every task that the model knows, as often in each,
and the judge of their world says of each whether all is as asked and all else is kept. Beside the
model stand the source as it is, which must be right where nothing is asked for and wrong everywhere
else, and the true clip, as it is and through the autoencoder.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.lab.evaluation.record.measured import Measured, mean_metric, share_metric
from mgjax.lab.evaluation.record.show import Shown
from mgjax.lab.evaluation.worlds.alignment import judge_for
from mgjax.lab.statistics.intervals import share
from mgjax.lab.statistics.values import finite_mean
from mgjax.lab.worlds.judging import AskedEdit, EditsJudge, JudgedEdit, Videos
from mgjax.models.conditioning.clips.source_video import SOURCE_VIDEO_KEY as SOURCE
from mgjax.models.conditioning.edit_task import TASK_KEY as TASK
from mgjax.sections.video.pipeline import VideoPipeline

OURS = 'model'

Scores = dict[str, list[JudgedEdit]]  # row -> what is read of each of its edits


def judge_editing(
  editor: VideoPipeline,
  *,
  samples: int = 216,
  seed: int = 0,
  judge: EditsJudge | None = None,
  untold: bool = False,
) -> tuple[Measured, dict[str, list[Shown]]]:
  """Edits clips that training never showed in every task of the model, and judges the videos.

  `samples` are shared out evenly to tasks, at least one a task. With `untold` the model makes all
  edits again by the instruction alone, without the task. Returns the numbers, and row -> its edits,
  for pictures. Raises ConfigError if the model reads no source video, or no judge knows its data.
  """
  if SOURCE not in editor.reads:
    raise ConfigError(
      f'the model reads {", ".join(editor.reads) or "nothing"} beside text; expected one that '
      'reads a source video, as configs/digits/editing.py trains'
    )
  judge = judge or judge_for(editor, 'edits')
  asked = judge.asks(samples, _tasks_of(editor, judge))
  before, truth = [each.before for each in asked], [each.after for each in asked]
  prompts = [each.edit.instruction for each in asked]
  tasks = {TASK: [each.edit.task for each in asked]} if TASK in editor.reads else {}
  ways: dict[str, Videos] = {OURS: editor.generate(prompts, video=before, seed=seed, **tasks)}
  if untold and tasks:
    ways['model, task not told'] = editor.generate(prompts, video=before, seed=seed)
  again = [editor.reconstruct(video) for video in truth]
  ways |= {'source, unchanged': before, 'truth, autoencoder': again, 'truth': truth}
  found = {way: judge_edits(asked, videos, judge) for way, videos in ways.items()}
  shown: dict[str, list[Shown]] = {each.name: [] for each in asked}
  for each, prompt, *videos in zip(asked, prompts, before, ways[OURS], truth, strict=True):
    titles = ('source', 'the model', 'expected')
    shown[each.name].append(Shown(prompt, dict(zip(titles, videos, strict=True))))
  return _measured(found, prompts, judge), shown


def _measured(
  scores: Mapping[str, Scores], instructions: Sequence[str], judge: EditsJudge
) -> Measured:
  """Numbers of the model's edits, of all tasks and of each, beside the other ways."""
  others = [way for way in scores if way != OURS]
  edits = [(name, each) for name, row in scores[OURS].items() for each in row]
  shares = {}
  means = {}
  for way, rows in scores.items():
    found = {name: share([each.right for each in row]) for name, row in rows.items()}
    shares[way] = found
    counted = [each.value for name, each in found.items() if name not in judge.uncounted]
    means[way] = finite_mean(counted)
  metrics = {}
  if math.isfinite(means[OURS]):
    counted = [math.nan if name in judge.uncounted else each.right for name, each in edits]
    beside = {way: means[way] for way in others}
    metrics[f'mean/{OURS}'] = share_metric(counted, 'right', beside=beside)
  for number, column in judge.numbers.items():
    values = [each.numbers[number] for _, each in edits]
    if np.isfinite(values).any():
      beside = {}
      for way in others:
        every = (each for row in scores[way].values() for each in row)
        beside[way] = finite_mean(each.numbers[number] for each in every)
      metrics[number] = mean_metric(values, column.label, column.better, beside=beside)
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
        **{number: finite_mean(each.numbers[number] for each in row) for number in judge.numbers},
        'each': [int(each.right) for each in row],
      }
      for name, row in rows.items()
    }
    for way, rows in scores.items()
  }
  count = len(next(iter(told[OURS].values()))['each'])
  left_out = ' and '.join(repr(name) for name in judge.uncounted if name in scores[OURS])
  note = f'; {left_out} in no mean' if left_out else ''
  return Measured(
    metrics,
    instructions,
    about='source, edit by the model, expected',
    record={'edits': told, 'mean': means},
    notes=[f'{count} edits a row{note}'],
  )


def judge_edits(asked: Sequence[AskedEdit], videos: Videos, judge: EditsJudge) -> Scores:
  """Reads edited videos by rows; DataError unless each edit has one."""
  if len(asked) != len(videos) or not asked:
    raise DataError(f'{len(asked)} edits and {len(videos)} videos; give one of each an edit')
  found: Scores = {each.name: [] for each in asked}
  for each, judged in zip(asked, judge.read(asked, videos), strict=True):
    found[each.name].append(judged)
  return found


def _tasks_of(editor: VideoPipeline, judge: EditsJudge) -> list[str]:
  """The tasks that the model was trained on, of those that the judge can ask for."""
  conditionings = fields_of(editor.config, 'model')['conditionings'].values()
  known = next((each['tasks'] for each in conditionings if 'tasks' in each), judge.tasks)
  return [task for task in judge.tasks if task in known]
