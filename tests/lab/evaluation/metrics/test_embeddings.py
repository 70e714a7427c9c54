"""Scores of pairs of vectors: closed forms."""

import numpy as np
import pytest

from mgjax.lab.evaluation.metrics.embeddings import (
  clip_score,
  cosines,
  directional_similarity,
  frame_consistency,
)


def turned(*degrees):
  """Vectors of the plane at these angles, of various lengths."""
  angles = np.radians(degrees)
  lengths = np.arange(1, len(degrees) + 1)[:, None]
  return lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_scores_of_frames_are_mean_cosines():
  text = turned(0)[0]
  assert clip_score(turned(60, 0, 120), text) == pytest.approx(100 * (0.5 + 1 + 0) / 3, rel=1e-14)
  assert clip_score(turned(180), text) == 0
  assert frame_consistency(turned(0, 60, 60, 150)) == pytest.approx((0.5 + 1 + 0) / 3, rel=1e-14)
  assert np.isnan(frame_consistency(turned(10)))
  scores = cosines(turned(0, 30, 90), turned(60, 30, 0))
  np.testing.assert_allclose(scores, [0.5, 1, 0], atol=1e-15)
  assert cosines(np.zeros((1, 2)), turned(5)) == [0]


def test_an_edit_along_the_captions_is_1_and_one_against_them_is_less():
  source, target = np.eye(4)[:1], np.eye(4)[1:2]
  there = directional_similarity(source[:, None], target[:, None], source, target)
  back = directional_similarity(target[:, None], source[:, None], source, target)
  assert there.direction == pytest.approx(1) and there.output == pytest.approx(1)
  assert back.direction == pytest.approx(-1) and back.output == pytest.approx(0)
  half = directional_similarity(source[:, None], 3 * (source + target)[:, None], source, target)
  # From e_1 to (e_1 + e_2) / sqrt(2), of any length, beside the way from e_1 to e_2.
  assert half.direction == pytest.approx(np.cos(np.pi / 8))
  assert half.output == pytest.approx(0.5**0.5)


def test_a_clip_that_stayed_goes_no_way_and_captions_that_agree_name_none():
  generator = np.random.default_rng(0)
  before, after = generator.normal(size=(2, 5, 3, 8))
  source, target = generator.normal(size=(2, 5, 8))
  after[0] = before[0]
  target[1] = source[1]
  similarity = directional_similarity(before, after, source, target)
  assert similarity.direction[0] == 0 and np.isnan(similarity.direction[1])
  assert np.isfinite(similarity.direction[2:]).all() and np.isfinite(similarity.output).all()
