"""Rows of what is seen of digits tell sets of clips apart that differ in what people would see."""

import numpy as np
import pytest

from mgjax.lab.evaluation.metrics.frechet import frechet_distance
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.features import SHAPES, fit_features

FEATURES = fit_features(clips=300)


def rows(seed=0, **fields):
  source = Digits(**{'split': 'test', 'captions': 'all', 'length': 160, 'seed': seed} | fields)
  return FEATURES.rows(source[index]['video'] for index in range(len(source)))


REAL = rows()
APART = frechet_distance(rows(seed=1), REAL)  # of true clips, because they are few


def test_true_clips_have_deviations_of_about_one():
  assert REAL.shape == (160, SHAPES + 7)
  # Of 160 rows a standard deviation is known to 1 / sqrt(320) = 6%; other hands are a little wider.
  np.testing.assert_allclose(REAL.std(0), 1, atol=0.35)


@pytest.mark.parametrize(
  'fields', [{'motions': ('left',)}, {'colours': ('red',)}, {'weights': 2.0}], ids=str
)
def test_a_set_that_lacks_ways_or_tints_or_strokes_is_further_than_true_clips(fields):
  assert frechet_distance(rows(seed=1, **fields), REAL) > 1.5 * APART


def test_one_hand_is_further_than_many():
  repeated = np.repeat(rows(seed=1)[:8], 20, axis=0)
  assert frechet_distance(repeated, REAL) > 2 * APART


def test_a_clip_without_a_digit_has_a_row():
  black = np.zeros((2, 4, 32, 32, 3), np.uint8)
  assert np.isfinite(FEATURES.rows(black)).all()
