"""Handwriting is found among others of its digit, and its pose is read from pixels."""

import dataclasses

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.handwriting import identities_of, image_of
from mgjax.lab.worlds.digits.judges.digit import worn
from mgjax.lab.worlds.digits.judges.identity import CANDIDATES, IdentityJudge, candidates_for

JUDGE = IdentityJudge(turns=10.0, weights=0.5)
WORLD = {'split': 'test', 'captions': 'all', 'turns': 10.0, 'weights': 0.5}
# No two clips of one digit, so that few hands have to be drawn.
SOURCE = Digits(frames=6, extras=('reference',), **WORLD)
DIGITS = [int(SOURCE.scene(index).number) for index in range(60)]
SCENES = [SOURCE.scene(DIGITS.index(digit)) for digit in range(10)]


def found(video, scene):
  (identity,) = scene.identities
  likeness = JUDGE.find(video, candidates_for(identity))
  return likeness.identity == identity, JUDGE.allows(likeness.pose)


@pytest.mark.parametrize('size', [(32, 32), (64, 64), (40, 32)])
def test_the_hand_of_a_clip_is_found_in_its_pose(size):
  source = dataclasses.replace(SOURCE, size=size)
  errors = []
  for scene in SCENES:
    video = source.show(scene)['video']
    assert found(video, scene) == (True, True)
    pose = JUDGE.find(video, scene.identities).pose
    sideways = scene.motion in ('left', 'right')
    place = (
      pose.y - scene.jitter * scene.offset[0]
      if sideways
      else (pose.x - scene.jitter * scene.offset[1])
    )
    errors.append((pose.turn - scene.turn, pose.weight - scene.weight, place))
  turn, weight, place = np.sqrt(np.mean(np.square(errors), 0))
  # A zero is round in every turn; steps of the grid are 2.5 degrees and .25.
  assert turn < 2.5 and weight < 0.25 and place < 0.2


def test_noise_and_softness_hide_nobody():
  generator = np.random.default_rng(0)
  right = [found(worn(SOURCE.show(scene)['video'], generator), scene)[0] for scene in SCENES]
  assert np.mean(right) >= 0.9


@pytest.mark.parametrize(('turn', 'weight'), [(25.0, 0.0), (-25.0, 0.0), (0.0, 1.0), (20.0, -1.0)])
def test_a_pose_that_no_clip_has_is_told_though_the_hand_is_found(turn, weight):
  poses = []
  for scene in SCENES[1:6]:
    other = dataclasses.replace(SOURCE.reference_scene(scene), turn=turn, weight=weight)
    picture = Digits(frames=1).show(other)['video']
    likeness = JUDGE.find(picture, candidates_for(*scene.identities))
    assert likeness.identity == scene.identities[0]
    assert not JUDGE.allows(likeness.pose)
    assert IdentityJudge(30.0, 1.0).allows(likeness.pose)
    poses.append(likeness.pose[:2])
  assert np.mean(poses, 0) == pytest.approx((turn, weight), abs=2.5)


def test_another_hand_is_found_by_chance():
  right, generator = [], np.random.default_rng(0)
  for scene in SCENES * 10:
    digit = int(scene.number)
    stranger = (int(generator.choice(identities_of('train', digit))),)
    video = SOURCE.show(dataclasses.replace(scene, identities=stranger))['video']
    right.append(all(found(video, scene)))
  # 100 draws of .05: a standard deviation is .022. Those of one digit share their candidates.
  assert np.mean(right) < 0.05 + 4 * 0.022


def test_an_empty_clip_shows_nobody():
  likeness = JUDGE.find(np.zeros((2, 32, 32, 3), np.uint8), identities_of('test', 3)[:2])
  assert likeness.identity == -1 and np.isnan(likeness.pose).all()
  assert not JUDGE.allows(likeness.pose)


def test_candidates_are_others_of_one_digit():
  (identity,) = SCENES[4].identities
  chosen = candidates_for(identity)
  assert len(set(chosen)) == CANDIDATES and chosen[0] == identity
  assert {image_of(each)[1] for each in chosen} == {4}
  assert set(chosen) <= set(identities_of('test', 4))
  assert chosen == candidates_for(identity) != candidates_for(identity, seed=1)
  with pytest.raises(ConfigError, match="100 candidates are asked for, 'test' has"):
    candidates_for(identity, count=100)
