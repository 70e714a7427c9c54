"""Moves of a known camera before photographs are answered as far as a plane can tell them."""

import itertools

import cv2
import numpy as np
import pytest

from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.camera import Camera
from mgjax.lab.curation.scores.camera_motion import (
  ANSWERS,
  UNKNOWN,
  CameraSettings,
  camera_motion,
  pair_motion,
)
from mgjax.lab.curation.settings import MeasureSettings
from tests.lab.curation.camera_moves import KINDS, film

FPS = 8
SEED = 1_300_000  # none that thresholds were chosen with


def pairs_of(frames, fps=FPS):
  luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
  return [pair_motion(*both, 1 / fps) for both in itertools.pairwise(luma)]


def right(kind, answer):
  return kind in ANSWERS.get(answer, (kind,) if answer == 'roll' else ())


def confusion(each):
  """Kind -> answers of so many films, with their confidences."""
  return {
    kind: [camera_motion(pairs_of(film(kind, SEED + 1000 * place + n))) for n in range(each)]
    for place, kind in enumerate(KINDS)
  }


def test_the_answers_name_each_of_the_16_classes_once():
  named = [name for classes in ANSWERS.values() for name in classes]
  assert len(named) == len(set(named)) == 16
  assert set(named) == set(KINDS) - {'roll'}


def test_moves_are_told_as_far_as_a_plane_tells_them():
  found = [(kind, motion) for kind, each in confusion(1).items() for motion in each]
  correct = [right(kind, motion.answer) for kind, motion in found]
  assert np.mean(correct) >= 0.9
  assert all(0 <= motion.confidence <= 1 for _, motion in found)


@pytest.mark.slow
def test_every_answer_is_right_in_nine_of_ten_films_and_what_is_sure_is_right():
  table = confusion(20)
  for answer, kinds in (*ANSWERS.items(), ('roll', ('roll',))):
    each = [(kind, motion) for kind in kinds for motion in table[kind]]
    assert np.mean([right(kind, motion.answer) for kind, motion in each]) >= 0.9, answer
  least = CameraSettings().prefix
  sure = [
    right(kind, motion.answer)
    for kind, each in table.items()
    for motion in each
    if motion.confidence >= least
  ]
  assert np.mean(sure) >= 0.98 and len(sure) >= 0.9 * 20 * len(KINDS)


def test_pan_and_truck_and_zoom_and_push_have_the_same_answer():
  for one, other in (('pan left', 'truck left'), ('zoom in', 'push in')):
    answers = {camera_motion(pairs_of(film(kind, SEED))).answer for kind in (one, other)}
    assert len(answers) == 1 and set(ANSWERS[answers.pop()]) == {one, other}


def test_where_there_is_nothing_to_see_nothing_is_said():
  black = np.zeros((9, 144, 256, 3), np.uint8)
  assert pairs_of(black) == [None] * 8
  assert camera_motion(pairs_of(black)).answer == UNKNOWN
  assert camera_motion([]).answer == UNKNOWN
  pan = pairs_of(film('pan right', SEED))
  assert camera_motion(pan[: CameraSettings().fewest - 1]).answer == UNKNOWN


def test_a_camera_that_goes_and_comes_back_has_no_direction():
  there = film('pan right', SEED)
  assert camera_motion(pairs_of([*there, *there[::-1]])).answer == UNKNOWN


def test_the_numbers_of_a_pair_are_those_of_the_camera():
  photo = film('static shot', SEED)[0]
  height, width = photo.shape[:2]
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -2.0, 1.03)
  matrix[:, 2] += 7.2, -3.6  # a twentieth and a fortieth of the shorter side
  moved = cv2.warpAffine(photo, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
  (pair,) = pairs_of([photo, moved])
  # Flow is right to a third of a pixel or so, and there are hundreds of places.
  assert pair.x == pytest.approx(0.05, abs=0.003) and pair.y == pytest.approx(-0.025, abs=0.003)
  assert pair.growth == pytest.approx(np.log(1.03), abs=0.003)
  assert pair.turn == pytest.approx(np.deg2rad(2.0), abs=0.003)
  assert pair.support > 0.8 and pair.seconds == 1 / FPS


def test_the_scorer_tells_each_stretch_of_a_video_alone():
  scorer = Camera(MeasureSettings())
  shots = [film('truck right', SEED), film('static shot', SEED + 1)]
  for number, pixels in enumerate(np.concatenate(shots)):
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    scorer.see(Frame(number, number / FPS, (number + 1) / FPS, pixels, luma))
  first, second = scorer.scores(0.0, 3.0), scorer.scores(3.0, 6.0)
  assert first['class'] == 'pan or truck right' and second['class'] == 'static shot'
  assert set(first) == {'class', 'confidence', 'speed', 'shake'}
  assert all(isinstance(first[name], float) for name in ('confidence', 'speed', 'shake'))
  # The pair across the cut counts for neither.
  assert second == pytest.approx(second | {'speed': 0.0}, abs=CameraSettings().still)
  assert scorer.scores(100.0, 104.0)['class'] == UNKNOWN
