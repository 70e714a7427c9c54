"""Features of frames: averages of pixels, brought to the rate of latents."""

import numpy as np
import pytest

from mgjax.audio.frame_features import PIXELS, pixel_features, resample, see_samples


def test_features_are_mean_colours_of_a_16_by_16_grid():
  video = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
  cells = video.astype(np.float64).reshape(3, 16, 2, 16, 3, 3).mean((2, 4))
  found = pixel_features(video)
  assert found.shape == (3, PIXELS) and found.dtype == np.float32
  # float32 sums of at most six bytes.
  np.testing.assert_allclose(found, cells.reshape(3, PIXELS) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize('side', [(16, 16), (17, 23), (100, 40)])
def test_a_plain_frame_stays_plain(side):
  found = pixel_features(np.full((2, *side, 3), 255, np.uint8))
  np.testing.assert_allclose(found, 1, atol=1e-5)


def test_at_the_rate_of_the_latents_features_stay_as_they_are():
  features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
  np.testing.assert_array_equal(resample(features, 25, 7, 25), features)


def test_a_line_in_time_stays_a_line():
  """A frame is on show around (i + 1/2) / fps; beyond the ends it is held."""
  fps, rate = 8, 25
  seconds = (np.arange(16) + 0.5) / fps
  found = resample(seconds[:, None].astype(np.float32), fps, 50, rate)[:, 0]
  expected = np.clip((np.arange(50) + 0.5) / rate, seconds[0], seconds[-1])
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_samples_are_seen_together_each_as_if_alone():
  rng = np.random.default_rng(0)
  clips = [rng.integers(0, 256, (frames, 16, 16, 3), np.uint8) for frames in (4, 9)]
  samples = [{'video': clips[0]}, {'caption': 'no pictures'}, {'video': clips[1]}]
  asked = []

  def see(frames):
    asked.append(len(frames))
    return pixel_features(frames)

  found = see_samples(samples, see, PIXELS, 8.0, 10, 25.0)
  assert asked == [13] and [each.keys() - {'caption'} for each in found] == [{'frame_features'}] * 3
  for clip, row in zip(clips, (0, 2), strict=True):
    alone = resample(pixel_features(clip), 8.0, 10, 25.0)
    np.testing.assert_allclose(found[row]['frame_features'], alone, atol=1e-6)
  assert found[1]['frame_features'].shape == (10, PIXELS) and not found[1]['frame_features'].any()
  assert 'video' in samples[0]
