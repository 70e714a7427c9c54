"""Measures how well videos are edited by instruction (Movie Gen §5).

Held-out clips are edited equally often in every task that the model was trained on. The judge of
their world decides whether each edit follows the instruction and keeps everything else. The
baselines are the unchanged source, which must be right only if the instruction asks for nothing,
and the true clip, with and without the autoencoder.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.lab.evaluation.record.measured import Measured, mean_metric, share_metric
from mgjax.lab.evaluation.record.show import SampleViews
from mgjax.lab.evaluation.worlds.alignment import judge_for
from mgjax.lab.statistics.intervals import share
from mgjax.lab.statistics.values import finite_mean
from mgjax.lab.worlds.judging import AskedEdit, EditsJudge, JudgedEdit, Videos
from mgjax.models.conditioning.clips.source_video import SOURCE_VIDEO_KEY as SOURCE
from mgjax.models.conditioning.edit_task import TASK_KEY as TASK
from mgjax.sections.video.pipeline import VideoPipeline

OURS = 'model'

Scores = dict[str, list[JudgedEdit]]  # row -> the judged edits


def judge_editing(
  editor: VideoPipeline,
  *,
  samples: int = 216,
  seed: int = 0,
  judge: EditsJudge | None = None,
  untold: bool = False,
) -> tuple[Measured, dict[str, list[SampleViews]]]:
  """Edits held-out clips in every task of the model, and judges the videos.

  The `samples` are divided evenly among tasks, at least one a task. With `untold` the model makes
  all edits a second time from the instruction alone, without the task. Returns the numbers, and
  row -> its edits, for pictures. Raises ConfigError if the model reads no source video, or its data
  have no judge.
  """
  if SOURCE not in editor.reads:
    raise ConfigError(
      f'the model reads {", ".join(editor.reads) or "nothing"} beside text; expected one that '
      'reads a source video, as configs/digits/editing.py trains'
    )
  judge = judge or judge_for(editor, 'edits')
  requests = judge.asks(samples, _tasks_of(editor, judge))
  before = [request.before for request in requests]
  truth = [request.after for request in requests]
  prompts = [request.edit.instruction for request in requests]
  tasks = {TASK: [request.edit.task for request in requests]} if TASK in editor.reads else {}
  ways: dict[str, Videos] = {OURS: editor.generate(prompts, video=before, seed=seed, **tasks)}
  if untold and tasks:
    ways['model, task not told'] = editor.generate(prompts, video=before, seed=seed)
  reconstructions = [editor.reconstruct(video) for video in truth]
  ways |= {'source, unchanged': before, 'truth, autoencoder': reconstructions, 'truth': truth}
  scores = {way: judge_edits(requests, videos, judge) for way, videos in ways.items()}
  pictures: dict[str, list[SampleViews]] = {request.name: [] for request in requests}
  for request, prompt, *videos in zip(requests, prompts, before, ways[OURS], truth, strict=True):
    titles = ('source', 'the model', 'expected')
    pictures[request.name].append(SampleViews(prompt, dict(zip(titles, videos, strict=True))))
  return _measured(scores, prompts, judge), pictures


def _measured(
  scores: Mapping[str, Scores], instructions: Sequence[str], judge: EditsJudge
) -> Measured:
  """Returns the numbers of the model's edits, overall and by task, beside the baselines."""
  others = [way for way in scores if way != OURS]
  edits = [(name, edit) for name, row in scores[OURS].items() for edit in row]
  shares = {}
  means = {}
  for way, rows in scores.items():
    row_shares = {name: share([edit.right for edit in row]) for name, row in rows.items()}
    shares[way] = row_shares
    counted_shares = [
      row_share.value for name, row_share in row_shares.items() if name not in judge.uncounted
    ]
    means[way] = finite_mean(counted_shares)
  metrics = {}
  if math.isfinite(means[OURS]):
    correct = [math.nan if name in judge.uncounted else edit.right for name, edit in edits]
    beside = {way: means[way] for way in others}
    metrics[f'mean/{OURS}'] = share_metric(correct, 'right', beside=beside)
  for number, column in judge.numbers.items():
    values = [edit.numbers[number] for _, edit in edits]
    if np.isfinite(values).any():
      beside = {}
      for way in others:
        way_edits = (edit for row in scores[way].values() for edit in row)
        beside[way] = finite_mean(edit.numbers[number] for edit in way_edits)
      metrics[number] = mean_metric(values, column.label, column.better, beside=beside)
  for row in scores[OURS]:
    metrics[f'edits/{OURS}/{row}/right'] = share_metric(
      [edit.right if name == row else math.nan for name, edit in edits],
      f'right, {row}',
      beside={way: shares[way][row].value for way in others},
      show_extremes=False,
    )
  record = {
    way: {
      name: {
        'right': shares[way][name],
        'parts': {
          part: float(np.mean([edit.parts[part] for edit in row])) for part in row[0].parts
        },
        **{number: finite_mean(edit.numbers[number] for edit in row) for number in judge.numbers},
        'each': [int(edit.right) for edit in row],
      }
      for name, row in rows.items()
    }
    for way, rows in scores.items()
  }
  count = len(next(iter(record[OURS].values()))['each'])
  left_out = ' and '.join(repr(name) for name in judge.uncounted if name in scores[OURS])
  note = f'; {left_out} in no mean' if left_out else ''
  return Measured(
    metrics,
    instructions,
    about='source, edit by the model, expected',
    record={'edits': record, 'mean': means},
    notes=[f'{count} edits a row{note}'],
  )


def judge_edits(requests: Sequence[AskedEdit], videos: Videos, judge: EditsJudge) -> Scores:
  """Judges edited videos, grouped by row; DataError unless there is one video an edit."""
  if len(requests) != len(videos) or not requests:
    raise DataError(f'{len(requests)} edits and {len(videos)} videos; give one of each an edit')
  scores: Scores = {request.name: [] for request in requests}
  for request, judged in zip(requests, judge.read(requests, videos), strict=True):
    scores[request.name].append(judged)
  return scores


def _tasks_of(editor: VideoPipeline, judge: EditsJudge) -> list[str]:
  """Returns the tasks of the judge that the model was trained on."""
  conditionings = fields_of(editor.config, 'model')['conditionings'].values()
  known = next(
    (conditioning['tasks'] for conditioning in conditionings if 'tasks' in conditioning),
    judge.tasks,
  )
  return [task for task in judge.tasks if task in known]
