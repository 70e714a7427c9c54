"""Flicker and seams are measured: a step in time or space is seen, motion and noise are not."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.optical_flow import flows
from mgjax.lab.evaluation.metrics.stability import (
  IN_WARPING_ERROR,
  at_seams,
  second_difference,
  spatial_seams,
  warping_error,
)
from tests.data.media.test_optical_flow import frame, moved, picture

SEAMS = (10, 20, 30)


def drift(frames=40, side=64):
  """A textured picture that moves by (.6, -.9) pixels a frame, with noise of 2 grey levels."""
  noise, plane = np.random.default_rng(0), picture(side)
  places = [moved(plane, (0.6 * t, -0.9 * t)) for t in range(frames)]
  return np.stack(
    [frame(position + 2 * noise.standard_normal(position.shape)) for position in places]
  )


def stepped(video, by=20):
  """Each second window of time is brighter."""
  odd = np.searchsorted(SEAMS, np.arange(len(video)), side='right') % 2 == 1
  return np.clip(video.astype(np.int16) + by * odd[:, None, None, None], 0, 255).astype(np.uint8)


def test_second_differences_are_those_of_numpy():
  video = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), np.uint8)
  expected = np.abs(np.diff(video.astype(float), n=2, axis=0)).mean((1, 2, 3))
  np.testing.assert_allclose(second_difference(iter(video)), expected)
  ramp = np.uint8(np.arange(5) * 9)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
  np.testing.assert_array_equal(second_difference(ramp), 0)
  with pytest.raises(DataError, match='3 frames'):
    second_difference(video[:2])


def test_a_step_at_window_seams_is_seen_and_a_smooth_clip_has_none():
  smooth = at_seams([(second_difference(drift()), SEAMS)])
  assert smooth.ratio == pytest.approx(1, abs=0.05) and smooth.low < 1 < smooth.high
  assert smooth.seams == 3
  seen = at_seams([(second_difference(stepped(drift())), SEAMS)])
  assert seen.ratio > 1.5 and seen.low > 1.5 and seen.at > seen.near


def test_the_warping_error_sees_the_step_and_not_the_motion():
  video = drift(24)
  motion = list(flows(video))
  smooth, rough = warping_error(video, motion), warping_error(stepped(video), motion)
  assert smooth.shape == (23,)
  # Noise of 2 levels in both frames, less in the one that is warped: 4 + 1.8 levels squared.
  assert np.sqrt(smooth.mean()) * 255 < 4
  still = np.mean(np.square(np.diff(video / 255, axis=0)))
  assert smooth.mean() < still / 10
  assert at_seams([(smooth, SEAMS[:2])], IN_WARPING_ERROR).ratio == pytest.approx(1, abs=0.1)
  assert at_seams([(rough, SEAMS[:2])], IN_WARPING_ERROR).ratio > 1.5
  np.testing.assert_allclose(warping_error(iter(video[:3])), smooth[:2])


def test_a_cut_is_no_error_and_no_warning():
  ((back, there),) = flows([frame(picture(seed=1)), frame(picture(seed=2))])
  nothing = back * 0 + 500  # leads out of the frame everywhere
  values = warping_error(np.zeros((2, 96, 96, 3), np.uint8), [(nothing, there)])
  assert np.isnan(values).all()
  with pytest.raises(DataError, match='flows'):
    warping_error(np.zeros((3, 96, 96, 3), np.uint8), [(back, there)])
  with pytest.raises(DataError, match='two or more'):
    warping_error(np.zeros((1, 96, 96, 3), np.uint8))


def test_tiles_of_another_brightness_are_seen_and_noise_is_not():
  generator = np.random.default_rng(0)
  noise = generator.integers(100, 140, (12, 96, 96, 3)).astype(np.uint8)
  for video in (noise, drift(12, 96)):
    clean = spatial_seams(video, rows=(32, 64), columns=(48,))
    assert clean.ratio == pytest.approx(1, abs=0.05)
  offset = drift(12, 96).astype(np.int16)
  offset[:, 32:64] += 20
  offset[:, :, 48:] -= 20
  seen = spatial_seams(np.clip(offset, 0, 255).astype(np.uint8), rows=(32, 64), columns=(48,))
  assert seen.ratio > 1.5 and seen.seams == 3
  with pytest.raises(DataError, match='no frame'):
    spatial_seams([], (1,), (1,))


def test_what_changes_along_a_clip_is_no_seam():
  # Twice as much everywhere behind frame 20, where most seams are.
  values = np.where(np.arange(60) < 20, 1.0, 2.0)
  assert at_seams([(values, (10, 30, 40, 50))], reach=4).ratio == 1
  # A clip with more flicker and more seams than another.
  clips = [(np.full(30, 1.0), (15,)), (np.full(30, 9.0), (8, 16, 24))]
  comparison = at_seams(clips)
  assert (comparison.ratio, comparison.low, comparison.high) == (1, 1, 1)
  assert at_seams([(np.zeros(30), (15,))]).ratio == 1
  for seams in ((), (50,)):
    with pytest.raises(DataError, match='no seam'):
      at_seams([(np.ones(10), seams)])


def test_the_interval_covers_the_ratio_that_was_put_in():
  hits = []
  for trial in range(60):
    generator = np.random.default_rng(trial)
    clips = []
    for _ in range(12):
      values = np.exp(generator.normal(0, 0.5)) * generator.gamma(8, 1 / 8, 42)
      for seam in SEAMS:
        values[seam - 2 : seam] *= 1.3  # the values that take in both sides
      clips.append((values, SEAMS))
    ratio = at_seams(clips)
    hits.append(ratio.low <= 1.3 <= ratio.high)
  # 95% asked; 12 clips give a little less, and 60 trials spread by .03.
  assert np.mean(hits) > 0.84
