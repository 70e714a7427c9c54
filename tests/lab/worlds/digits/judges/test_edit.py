"""The judge of edits knows right edits from sources that are left as they were, and from ghosts."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mgjax.lab.worlds.digits import render
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.edits import OF_MOTION, TASKS, Edit
from mgjax.lab.worlds.digits.judges.edit import (
  KEEP_THE_HAND,
  KEEP_THE_PATH,
  PARTS,
  train_edit_judge,
)
from mgjax.lab.worlds.digits.scene import Scene

FRAMES, SIZE = 8, (32, 32)
WORLD = {'background': 'tinted', 'motions': ('left', 'right', 'bounce'), 'laps': 0.4}
EACH = 6  # edits of a task


def show(scene: Scene, frames: int = FRAMES) -> np.ndarray:
  return render.render(scene, frames, SIZE)


def edits_of(task: str, frames: int = FRAMES) -> list[Edit]:
  source = Digits(split='judge', captions='all', edits=(task,), frames=frames, **WORLD)
  return [source.edit(source.scene(index)) for index in range(EACH)]


@pytest.fixture(scope='module')
def judge():
  return train_edit_judge(frames=4, clips=300, **WORLD)


@pytest.mark.parametrize('task', TASKS)
def test_true_edits_are_right_and_sources_left_as_they_were_are_not(judge, task):
  true, left = (
    [judge.judge(show(scene), edit) for edit in edits_of(task) for scene in scenes(edit)]
    for scenes in (lambda edit: [edit.after], lambda edit: [edit.before])
  )
  for found in true:
    # One hand in six may be misread by a judge that saw so few, if nothing tells it which.
    assert all(right for part, right in found.parts.items() if part != 'digit')
    assert tuple(found.parts) == PARTS[task]
    assert found.numbers['wall_error'] == 0 and found.numbers['flicker'] == 0
    assert (found.numbers['handwriting'] == pytest.approx(1)) == (task in KEEP_THE_HAND)
    assert (found.numbers['path_error'] == 0) == (task in KEEP_THE_PATH)
  assert sum(found.right for found in true) >= (EACH if task in KEEP_THE_HAND else EACH - 1)
  assert [found.right for found in left] == [task == 'nothing'] * EACH


@pytest.mark.parametrize('task', [task for task in TASKS if task not in OF_MOTION])
def test_pictures_are_judged_as_clips_are(judge, task):
  found = [judge.judge(show(edit.after, 1), edit) for edit in edits_of(task, 1)]
  assert sum(each.right for each in found) >= EACH - 1
  assert all(np.isnan(each.numbers['flicker']) for each in found)
  source = [judge.judge(show(edit.before, 1), edit) for edit in edits_of(task, 1)]
  assert not any(each.right for each in source) or task == 'nothing'


SCENE = edits_of('nothing')[0].after
WRONG = {
  'digit': {'hidden': True},
  'colour': {'colour': 'white'},
  'wall': {'tiles': 3},
  'path': {'play': 'backward'},
  'mark': {'mark': 'white'},
}


@pytest.mark.parametrize('part', WRONG)
def test_what_else_has_changed_is_found(judge, part):
  other = dataclasses.replace(SCENE, **WRONG[part])
  found = judge.judge(show(other), Edit('nothing', SCENE, SCENE))
  assert not found.parts[part]
  assert part in ('digit', 'path') or sum(found.parts.values()) == len(found.parts) - 1


def test_a_ghost_of_what_was_removed_is_found(judge):
  edit = Edit('remove', SCENE, dataclasses.replace(SCENE, hidden=True))
  there, gone = (show(scene).astype(np.float64) for scene in (edit.before, edit.after))
  ghost = (gone + 0.2 * (there - gone)).astype(np.uint8)
  found = judge.judge(ghost, edit)
  assert found.parts['gone'] and not found.parts['wall']


def test_an_added_digit_may_be_anywhere(judge):
  edit = Edit('add', dataclasses.replace(SCENE, hidden=True), SCENE)
  for change in ({'play': 'backward'}, {'motion': 'up', 'offset': (0.0, 0.0)}):
    assert judge.judge(show(dataclasses.replace(SCENE, **change)), edit).right


def test_a_replaced_digit_may_be_of_any_hand(judge):
  edits = edits_of('replace')
  others = Digits(split='train', captions='all', length=2000, **WORLD)
  for edit in edits[:3]:
    scenes = map(others.scene, range(2000))
    hand = next(scene.identities for scene in scenes if scene.number == edit.after.number)
    assert judge.judge(show(dataclasses.replace(edit.after, identities=hand)), edit).right


def test_a_wall_that_flickers_is_measured(judge):
  edit = edits_of('nothing')[0]
  grey = show(edit.after).astype(np.int16) + np.array([0, 2] * (FRAMES // 2))[:, None, None, None]
  # x, x + 2, x, ...: the second difference is 4 everywhere.
  assert judge.judge(grey.clip(0, 255).astype(np.uint8), edit).numbers['flicker'] == pytest.approx(
    4
  )


def test_what_decoders_blur_is_judged_the_same(judge):
  generator, right = np.random.default_rng(0), []
  for task in ('recolour', 'remove', 'background', 'reverse', 'mark'):
    for edit in edits_of(task):
      soft = gaussian_filter(show(edit.after).astype(np.float32), (0, 0.6, 0.6, 0))
      soft = np.rint(soft + 3 * generator.standard_normal(soft.shape)).clip(0, 255)
      right.append(judge.judge(soft.astype(np.uint8), edit).right)
  assert np.mean(right) >= 0.9
