"""Features of frames: averages of pixels, brought to the rate of latents."""

import numpy as np
import pytest

from mgjax.sections.audio.frame_features import (
  PIXELS,
  motion_features,
  pixel_features,
  resample,
  see_samples,
)


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


@pytest.mark.parametrize('shift', [(0, 0), (1, 0), (0, -1), (1, 1)])
def test_motion_is_how_far_a_texture_went(shift):
  """Of sines, whose differences are known: 2 tan(w s / 2) / sin(w), s in pixels of 32 a frame."""
  w = 2 * np.pi / 32 * np.array((3, 2))
  down, right = np.indices((64, 64)) / 2
  waves = [(w[0] * (right - k * shift[0]), w[1] * (down - k * shift[1])) for k in range(3)]
  frames = np.uint8(128 + 60 * np.sin(waves).sum(1))
  video = np.repeat(frames[..., None], 3, -1)
  found = motion_features(video)
  np.testing.assert_array_equal(found[:, :PIXELS], pixel_features(video))
  velocity = found[:, PIXELS:].reshape(3, 2, 16, 16)
  assert not velocity[0].any()
  inner = velocity[1:, :, 2:-2, 2:-2].mean((0, 2, 3))
  # The damping is 1.3% of the smaller squared gradients; as much for bytes and what windows cut.
  wanted = 2 * np.tan(w * shift / 2) / np.sin(w)
  np.testing.assert_allclose(inner, wanted, rtol=0.026, atol=0.001)


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
