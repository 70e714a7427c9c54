"""Pairs of moving digits: an edit changes what its instruction names, and nothing else."""

import dataclasses

import pytest

from mgjax.lab.worlds.digits import render
from mgjax.lab.worlds.digits.clips import Digits, is_held_out
from mgjax.lab.worlds.digits.edits import OF_MOTION, TASKS
from mgjax.lab.worlds.digits.scene import TINTS

WORLD = {'background': 'tinted', 'motions': ('left', 'right', 'bounce'), 'laps': 0.4}
EACH = 24
CHANGED = {
  'recolour': 'colour',
  'replace': 'identities',
  'remove': 'hidden',
  'add': 'hidden',
  'background': 'tint',
  'still': 'play',
  'reverse': 'play',
  'mark': 'mark',
}


def source_of(*tasks: str, **more) -> Digits:
  return Digits(edits=tasks or TASKS, **{'frames': 4, **WORLD, **more})


@pytest.mark.parametrize('task', TASKS)
def test_an_edit_changes_what_its_instruction_names_and_nothing_else(task):
  source = source_of(task)
  for index in range(EACH):
    edit = source.edit(source.scene(index))
    names = [field.name for field in dataclasses.fields(edit.before)]
    before, after = edit.before, edit.after
    different = [name for name in names if getattr(before, name) != getattr(after, name)]
    assert different == ([CHANGED[task]] if task in CHANGED else [])
    assert edit.task == task


@pytest.mark.parametrize('task', ('recolour', 'replace', 'remove', 'add', 'mark'))
def test_pixels_outside_of_the_digit_stay(task):
  source = source_of(task)
  for index in range(4):
    sample, edit = source[index], source.edit(source.scene(index))
    where = 4, (32, 32)
    free = (render.mask(edit.before, *where) == 0) & (render.mask(edit.after, *where) == 0)
    if edit.after.mark:
      free &= render.box(edit.after, *where) == 0
    same = (sample['video'] == sample['source_video']).all(-1)
    assert same[free].all() and not same.all()


def test_motions_are_played_backwards_or_not_at_all():
  backwards, frozen = source_of('reverse')[3], source_of('still')[3]
  assert (backwards['video'] == backwards['source_video'][::-1]).all()
  assert (frozen['video'] == frozen['source_video'][:1]).all()


def test_an_undone_edit_leads_back_and_what_cannot_be_undone_says_so():
  source = source_of()
  edits = [source.edit(source.scene(index)) for index in range(200)]
  assert {edit.task for edit in edits} == set(TASKS)
  known = {sample['caption'] for sample in source.every_caption()}
  for edit in edits:
    back = edit.undone
    assert (back is None) == (edit.task in ('still', 'mark'))
    if back is not None:
      assert (back.before, back.after) == (edit.after, edit.before)
      assert back.undone == edit
      assert back.instruction in known


def test_every_instruction_is_among_every_caption_once():
  source = source_of()
  listed = [sample['caption'] for sample in source.every_caption()]
  assert len(listed) == len(set(listed))
  assert {source[index]['caption'] for index in range(150)} <= set(listed)


def test_combinations_kept_from_training_are_in_no_pair_of_it_and_in_all_of_validation():
  train, held_out = source_of(length=400), source_of(captions='held_out', split='test', length=100)

  def shown(source, scenes):
    for index in range(len(source)):
      edit = source.edit(source.scene(index))
      for scene in scenes(edit):
        if not scene.hidden:
          yield is_held_out(int(scene.number), scene.colour, scene.motion)

  assert not any(shown(train, lambda edit: (edit.before, edit.after)))
  # What remains of a removed digit shows none.
  asked = list(shown(held_out, lambda edit: (edit.before if edit.after.hidden else edit.after,)))
  assert all(asked) and len(asked) == 100


def test_a_pair_is_what_its_scenes_show():
  source = source_of()
  for index in range(8):
    sample, edit = source[index], source.edit(source.scene(index))
    assert (sample['video'] == render.render(edit.after, 4, (32, 32))).all()
    assert (sample['source_video'] == render.render(edit.before, 4, (32, 32))).all()
    assert (sample['caption'], sample['task']) == (edit.instruction, edit.task)


def test_captions_of_both_pictures_are_those_that_pictures_have():
  tasks = tuple(task for task in TASKS if task not in OF_MOTION)
  source = source_of(*tasks, frames=1, empty=0.0)
  plain = Digits(frames=1, background='tinted', empty=0.5, captions='all')
  known = {sample['caption'] for sample in plain.every_caption()}
  for index in range(60):
    edit = source.edit(source.scene(index))
    assert {edit.source_caption, edit.target_caption} <= known
    assert (edit.source_caption == edit.target_caption) == (edit.task in ('mark', 'nothing'))
  assert {f'nothing, {tint} wall' for tint in TINTS} <= known
