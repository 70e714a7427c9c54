"""Edits of solids change what their instruction says, and their judge tells right from wrong."""

import dataclasses

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.worlds.judging import EditsJudge
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.edits import TASKS, styled
from mgjax.lab.worlds.solids.judges.edit import SolidsEdits

EACH = 2


@pytest.fixture(scope='module')
def judge():
  return SolidsEdits(Solids(solids=(1, 2)))


@pytest.fixture(scope='module')
def asked(judge):
  return judge.asks(EACH * len(TASKS), TASKS)


def test_true_edits_are_right_and_sources_left_as_they_are_wrong(judge, asked):
  assert isinstance(judge, EditsJudge)
  assert [each.name for each in asked] == [task for task in TASKS for _ in range(EACH)]
  for each, found in zip(asked, judge.read(asked, [x.after for x in asked]), strict=True):
    assert found.right, (each.edit.instruction, found)
  for each, found in zip(asked, judge.read(asked, [x.before for x in asked]), strict=True):
    assert found.right == (each.name == 'nothing'), (each.edit.instruction, found)


def test_what_an_edit_leaves_alone_is_compared_with_the_true_clip(judge, asked):
  recolour = asked[: 2 * EACH]
  worn = [np.clip(each.after + 8.0, 0, 255).astype(np.uint8) for each in recolour]
  for found in judge.read(recolour, worn):
    assert found.numbers['outside'] == pytest.approx(20 * np.log10(255 / 8), abs=0.5)
  style = [each for each in asked if each.name == 'style']
  found = judge.read(style, [each.after for each in style])
  assert all(np.isnan(each.numbers['outside']) for each in found)


def test_an_edit_is_undone_by_what_leads_back():
  source = Solids(solids=(2, 3), meetings=0.0, edits=TASKS)
  seen = set()
  for index in range(60):
    edit = source.edit(source.scene(index))
    back = edit.undone
    seen.add(edit.task)
    if edit.task == 'mark':
      assert back is None
      continue
    assert (back.before, back.after) == (edit.after, edit.before)
    assert back.undone == edit and edit.source_caption == back.target_caption
    if edit.task != 'nothing':
      assert edit.instruction != back.instruction
  assert seen == set(TASKS)


def test_a_sample_is_the_pair_of_its_edit():
  source = Solids(solids=(2, 2), meetings=0.0, edits=('remove',), size=(32, 32), frames=4)
  plain = dataclasses.replace(source, edits=())
  edit, sample = source.edit(source.scene(3)), source[3]
  assert (sample['source_video'] == plain.show(edit.before)['video']).all()
  assert (sample['video'] == plain.show(edit.after)['video']).all()
  assert (sample['caption'], sample['task']) == (edit.instruction, 'remove')
  assert sample['caption'].startswith('remove the ')


def test_a_camera_that_follows_is_told_whom():
  source = Solids(solids=(2, 2), meetings=0.0, edits=('camera',), cameras=('follows',))
  for edit in (source.edit(source.scene(index)) for index in range(9)):
    whom = edit.after.solids[edit.after.follows]
    assert edit.instruction == f'let the camera follow the {whom.colour} {whom.shape}'
    assert edit.undone.instruction.startswith(f'let the camera {edit.before.camera.move[:3]}')


@pytest.mark.parametrize(
  'fields, said',
  [
    ({'edits': ('remove',), 'meetings': 0.0}, 'solids = \\(2, 3\\)'),
    ({'edits': ('recolour',)}, 'expected meetings = 0'),
    ({'edits': ('camera',), 'meetings': 0.0, 'frames': 1}, 'edits: got'),
  ],
)
def test_edits_that_nobody_can_make_are_refused(fields, said):
  with pytest.raises(ConfigError, match=said):
    Solids(**fields)
  with pytest.raises(ConfigError, match='edits is empty'):
    Solids().edit(Solids().scene(0))


def test_outlines_are_dark_on_paper_and_night_is_dark():
  video = Solids(frames=1)[0]['video']
  outlines, night = styled(video, 'outlines'), styled(video, 'night')
  assert np.ptp(outlines, axis=-1).max() == 0 and outlines.mean() > 200 > 60 > outlines.min()
  assert night.mean() < video.mean() / 2 and (night[..., 2] >= night[..., 0]).mean() > 0.8
  assert styled(video, '') is video
