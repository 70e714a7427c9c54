"""Editors are judged task by task, beside the source as it is and the truth."""

import dataclasses
import json

import numpy as np
import pytest

from configs.digits import editing as recipe
from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.editing import OURS, judge_editing, judge_edits
from mgjax.lab.evaluation.record.show import draw_below
from mgjax.lab.evaluation.worlds.alignment import judge_for
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.edits import TASKS
from mgjax.lab.worlds.digits.judges.edit import NEW_COLOUR, DigitsEdits, train_edit_judge
from mgjax.lab.worlds.digits.scene import COLOURS
from mgjax.lab.worlds.judging import EditsJudge
from mgjax.sections.video.pipeline import VideoPipeline

SHAPE = 4, 32, 32
EACH = 3
ROWS = (*TASKS, NEW_COLOUR)
SAMPLES = EACH * len(ROWS)


class Obedient(VideoPipeline):
  """An editor that knows the answers to some tasks, where it is told the task, and loses a bit."""

  default_shape, reads = SHAPE, ('source_video', 'task')

  def __init__(self, *solved: str):
    self.config, self.solved, self.calls = recipe.get_config('paired'), solved, []

  def generate(self, prompts, *, video, task=None, seed=0):
    self.calls.append((prompts, task, seed))
    videos = list(video)
    for index, (edit, name) in enumerate(zip(requests(), task or [''] * len(prompts), strict=True)):
      if name in self.solved:
        videos[index] = edit.after
    return np.stack(videos)

  def reconstruct(self, video):
    return video // 2 * 2


def requests():
  return judge_for(Obedient(), 'edits').asks(SAMPLES, TASKS)


@pytest.fixture(scope='module')
def judge():
  reader = train_edit_judge(frames=4, clips=300, **recipe.WORLD)
  return dataclasses.replace(judge_for(Obedient(), 'edits'), reader=reader)


@pytest.fixture(scope='module')
def evaluation(judge):
  editor = Obedient('recolour', 'mark')
  return (*judge_editing(editor, samples=SAMPLES, seed=3, judge=judge, untold=True), editor)


def test_what_is_solved_is_right_and_floors_and_ceilings_stand_beside(evaluation):
  scores = evaluation[0].record['edits']
  for name in ROWS:
    solved = name in ('recolour', 'mark', 'nothing', NEW_COLOUR)
    assert scores[OURS][name]['right']['value'] == solved
    assert scores['source, unchanged'][name]['right']['value'] == (name == 'nothing')
    assert scores['model, task not told'][name]['right']['value'] == (name == 'nothing')
    for way in ('truth', 'truth, autoencoder'):
      # A digit that nobody keeps may be misread by a judge that saw so few.
      assert scores[way][name]['right']['value'] >= (0.6 if name in ('replace', 'add') else 1)
    assert scores['truth'][name]['right']['count'] == EACH

  mean = evaluation[0].record['mean']  # in which what changes nothing and new colours do not count
  assert mean[OURS] == pytest.approx(2 / 8) and mean['source, unchanged'] == 0


def test_edits_show_what_training_never_did():
  edits = requests()
  assert [edit.name for edit in edits] == [name for name in ROWS for _ in range(EACH)]
  for edit in edits:
    new = edit.edit.after.colour not in recipe.COLOURS
    assert new == (edit.name == NEW_COLOUR) and edit.edit.after.colour in COLOURS
    assert edit.edit.before.colour in recipe.COLOURS
  scenes = [edit.edit.after for edit in edits[:EACH]]
  assert len({(scene.number, scene.colour, scene.motion) for scene in scenes}) == EACH


def test_the_model_is_told_tasks_once_and_the_seed_always(evaluation):
  first_call, second_call = evaluation[2].calls
  assert len(first_call[0]) == len(first_call[1]) == SAMPLES
  assert first_call[2] == second_call[2] == 3
  assert second_call[0] == first_call[0] and second_call[1] is None
  assert first_call[1][-1] == 'recolour'


def test_all_of_it_is_in_record_and_picture(evaluation, tmp_path):
  edited, pictures, _ = evaluation
  record = json.loads(json.dumps(edited.record, allow_nan=False))
  for rows in record['edits'].values():
    assert tuple(rows) == ROWS
    assert rows['remove']['handwriting'] is None
    assert len(rows['add']['each']) == EACH
  assert edited.notes[0].startswith(f'{EACH} edits a row')
  assert [*pictures] == [*ROWS] and {len(row) for row in pictures.values()} == {EACH}
  assert pictures['recolour'][0].beside.shape == (*SHAPE[:2], 3 * SHAPE[2], 3)
  sheet = draw_below(tmp_path / 'edited.png', [row[0] for row in pictures.values()])
  assert sheet.stat().st_size > 1000


def test_numbers_of_all_tasks_stand_edit_by_edit_beside_the_other_ways(evaluation):
  measured, _, _ = evaluation
  record, mean = measured.record, measured.metrics[f'mean/{OURS}']
  assert mean.value.value == pytest.approx(record['mean'][OURS])
  assert len(measured.samples) == len(mean.value.each) == EACH * len(ROWS)
  counted = [name not in DigitsEdits.uncounted for name in ROWS for _ in range(EACH)]
  assert np.isfinite(mean.value.each).tolist() == counted
  assert mean.beside['truth'] == record['mean']['truth']
  recolour = measured.metrics[f'edits/{OURS}/recolour/right'].value
  share = record['edits'][OURS]['recolour']['right']['value']
  assert (recolour.value, recolour.count) == (share, EACH)


def test_videos_of_any_maker_are_scored(judge):
  edits = requests()
  black = [np.zeros((*SHAPE, 3), np.uint8)] * len(edits)
  scores = judge_edits(edits, black, judge)
  assert not any(edit.right for row in scores.values() for edit in row)
  with pytest.raises(DataError, match='give one of each an edit'):
    judge_edits(edits, black[:-1], judge)
  editor = Obedient()
  editor.reads = ()
  with pytest.raises(ConfigError, match='reads a source video'):
    judge_editing(editor, samples=9)
  for make in (DigitsEdits,):
    assert isinstance(make(Digits()), EditsJudge)
