"""Scores of pairs of vectors and probabilities: closed forms, scipy's divergence, known lags."""

import functools

import numpy as np
import pytest
import scipy.stats

from mgjax.core.errors import ConfigError, DataError
from mgjax.evaluation.metrics.embeddings import (
  class_divergence,
  clip_score,
  cosines,
  desynchronisation,
  embedding_offset,
  frame_consistency,
)


def turned(*degrees):
  """Vectors of the plane at these angles, of various lengths."""
  angles = np.radians(degrees)
  lengths = np.arange(1, len(degrees) + 1)[:, None]
  return lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_the_clip_score_is_the_mean_cosine_without_what_is_below_zero():
  text = turned(0)[0]
  assert clip_score(turned(60, 0, 120), text) == pytest.approx(100 * (0.5 + 1 + 0) / 3, rel=1e-14)
  assert clip_score(turned(180), text) == 0


def test_frames_are_compared_with_the_next():
  assert frame_consistency(turned(0, 60, 60, 150)) == pytest.approx((0.5 + 1 + 0) / 3, rel=1e-14)
  assert np.isnan(frame_consistency(turned(10)))


def test_cosines_are_of_partners_and_zero_of_nothing():
  found = cosines(turned(0, 30, 90), turned(60, 30, 0))
  np.testing.assert_allclose(found, [0.5, 1, 0], atol=1e-15)
  assert cosines(np.zeros((1, 2)), turned(5)) == [0]
  with pytest.raises(DataError, match='do not pair'):
    cosines(turned(0), turned(0, 1))


def test_the_divergence_of_classes_is_scipys():
  p, q = np.random.default_rng(0).dirichlet(np.ones(7), (2, 12))
  np.testing.assert_allclose(
    class_divergence(p, q), [scipy.stats.entropy(a, b) for a, b in zip(p, q, strict=True)], 1e-12
  )
  assert (class_divergence(p, p) == 0).all()
  certain = np.eye(3)[[0, 1]]
  np.testing.assert_array_equal(class_divergence(certain, certain[::-1]), np.inf)
  half = np.array([[0.5, 0.5]])
  assert class_divergence(half, np.array([[0.9, 0.1]])) == pytest.approx(0.5 * np.log(0.25 / 0.09))


@pytest.mark.parametrize(
  ('p', 'q', 'said'),
  [
    (np.full((2, 4), 0.25), np.full((2, 5), 0.2), 'do not pair'),
    (np.full((1, 4), 0.5), np.full((1, 4), 0.25), 'does not sum to 1'),
    (np.array([[1.5, -0.5]]), np.full((1, 2), 0.5), 'does not sum to 1'),
  ],
)
def test_what_are_no_probabilities_are_refused(p, q, said):
  with pytest.raises(DataError, match=said):
    class_divergence(p, q)


@pytest.mark.parametrize('lag', [-6, 0, 1, 9])
def test_vectors_that_are_late_are_found_late(lag):
  """Sound that shows what the video showed `lag` vectors ago, and noise of half its size."""
  generator = np.random.default_rng(abs(lag))
  scene = generator.normal(size=(80, 16))
  video = scene[20:60]
  sound = scene[20 - lag : 60 - lag] + 0.5 * generator.normal(size=(40, 16))
  assert embedding_offset(sound, video, 8) == lag / 8


def test_lags_are_no_further_than_asked_and_none_of_equal_vectors():
  still = np.ones((10, 4))
  assert embedding_offset(still, still, 4) == 0
  scene = np.random.default_rng(0).normal(size=(60, 16))
  assert abs(embedding_offset(scene[:40], scene[12:52], 8, furthest=0.5)) <= 0.5
  with pytest.raises(DataError, match='as many of both'):
    embedding_offset(scene, scene[1:], 8)
  with pytest.raises(ConfigError, match='rate'):
    embedding_offset(scene, scene, 0)


def test_desynchronisation_asks_any_function_for_the_offset():
  scene = np.random.default_rng(1).normal(size=(60, 16))
  sounds, videos = [scene[8:48], scene[4:44]], [scene[4:44], scene[8:48]]
  offset = functools.partial(embedding_offset, rate=8)
  assert offset(sounds[0], videos[0]) == -0.5 and offset(sounds[1], videos[1]) == 0.5
  np.testing.assert_array_equal(desynchronisation(sounds, videos, offset), [0.5, 0.5])
  with pytest.raises(DataError, match='2 sounds and 1 videos'):
    desynchronisation(sounds, videos[:1], offset)
