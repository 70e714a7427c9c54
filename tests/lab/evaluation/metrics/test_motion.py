"""The size of motion: of flows that are given, and of a picture that moves by a known way."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.optical_flow import flows
from mgjax.lab.evaluation.metrics.motion import motion_of
from tests.lab.evaluation.metrics.test_stability import drift


def flow(share, length, size=(40, 60)):
  """A flow of this length in this share of the pixels and of none elsewhere."""
  vectors = np.zeros((size[0] * size[1], 2), np.float32)
  vectors[: round(share * len(vectors))] = (0.6 * length, -0.8 * length)
  return vectors.reshape(*size, 2)


def test_the_mean_is_over_all_pixels_and_the_fastest_over_those_that_move_most():
  motion = motion_of([flow(0.02, 5), flow(1, 2), flow(0, 9)])
  # In shares of 40 pixels; 2% of the pixels are two fifths of the fastest 5%.
  np.testing.assert_allclose(motion.mean, [0.02 * 5 / 40, 2 / 40, 0], rtol=1e-6)
  np.testing.assert_allclose(motion.fastest, [0.4 * 5 / 40, 2 / 40, 0], rtol=1e-6)


def test_a_quarter_of_the_frames_have_to_move():
  still, fast = flow(0, 1), flow(0.1, 40 * 7 / 256)
  assert not motion_of([still] * 13 + [fast] * 2).dynamic()
  assert not motion_of([still] * 12 + [fast] * 3).dynamic()  # of 16 frames
  assert motion_of([still] * 11 + [fast] * 4).dynamic()
  assert motion_of([fast]).dynamic() and not motion_of([still]).dynamic()
  assert not motion_of([flow(0.1, 40 * 5 / 256)]).dynamic()
  with pytest.raises(DataError, match='two or more'):
    motion_of([])


def test_of_a_picture_that_moves_it_is_the_way():
  motion = motion_of(forth for _, forth in flows(drift(4)))
  way = np.hypot(0.6, 0.9) / 64
  # The flow is wrong at the borders, where the picture comes in: a tenth of the pixels or so.
  np.testing.assert_allclose(motion.mean, way, rtol=0.15)
