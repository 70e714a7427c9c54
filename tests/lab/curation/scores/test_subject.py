"""The size of a subject is that of what a detector finds."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.curation.scores.subject import Subject
from mgjax.lab.curation.settings import MeasureSettings, PlugIn
from tests.lab.curation.scores.shown import scores_of

LAWN = np.broadcast_to(np.uint8([60, 130, 50]), (96, 128, 3))


def ball(share):
  """A red disc of a share of a lawn."""
  made, radius = LAWN.copy(), np.sqrt(share * 96 * 128 / np.pi)
  rows, columns = np.mgrid[:96, :128]
  made[(rows - 48) ** 2 + (columns - 60) ** 2 <= radius**2] = (210, 30, 30)
  return made


def boxes(frames, weights):
  assert weights == 'w'
  return [np.array([[0, 0, 64, 48], [100, 80, 500, 500]], float)] * len(frames)


def masks(frames, weights):
  return frames[..., 0] > 135


def none(frames, weights):
  return [np.zeros((0, 4))] * len(frames)


def wrong(frames, weights):
  return np.zeros((len(frames), 3))


def subject(name):
  python = f'{__name__}:{name}'
  return Subject(MeasureSettings(subject=PlugIn(python=python, weights='w', frames=3, side=96)))


def test_boxes_and_masks_of_a_detector_count():
  shown = [ball(0.1)] * 8
  assert scores_of(subject('boxes'), shown) == {'share': pytest.approx(0.25)}  # the largest, cut
  assert scores_of(subject('masks'), shown)['share'] == pytest.approx(0.1, abs=0.01)
  assert scores_of(subject('none'), shown) == {'share': 0.0}
  assert Subject(MeasureSettings()).missing == 'subject: no plug-in is given'
  with pytest.raises(ConfigError, match='expected masks'):
    scores_of(subject('wrong'), shown)
