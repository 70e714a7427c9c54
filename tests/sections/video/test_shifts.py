"""A finished video is sampled again with its tokens half a block further, and lies where it lay."""

import jax.numpy as jnp
import numpy as np
import pytest

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.flow.path import SIGMA_MIN
from mgjax.models.flow_model.build import make_sampler_of
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.sections.video.shifts import half_a_block, moved, put_back, since_on

PROMPTS, SHAPE = ['the red digit 7 moves up', 'a'], (4, 16, 16)


def test_what_is_made_of_a_moved_video_goes_where_it_came_from():
  video = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 7, 3), np.uint8)
  there = moved(video, (2, 3, 1))
  np.testing.assert_array_equal(there[:, :4, :5, :6], video[:, 2:, 3:, 1:])
  # What it lacks is as its ends are.
  np.testing.assert_array_equal(there[:, 4:, :5, :6], video[:, [5, 5], 3:, 1:])
  np.testing.assert_array_equal(there[:, :4, 5:, 6], video[:, 2:, [7, 7, 7], 6])
  np.testing.assert_array_equal(put_back(video, there, (2, 3, 1)), video)
  found = put_back(video, 255 - there, (2, 3, 1))
  np.testing.assert_array_equal(found[:, 2:, 3:, 1:], 255 - video[:, 2:, 3:, 1:])
  np.testing.assert_array_equal(found[:, :2], video[:, :2])
  np.testing.assert_array_equal(moved(video, (0, 0, 0)), video)
  assert half_a_block((8, 8, 4), 16) == (4, 4, 2) and half_a_block((8, 8, 8), 1) == (0, 4, 4)


def test_it_goes_on_from_a_time_of_the_grid():
  times = np.array([0.0, 0.1, 0.4, 1.0])
  assert list(since_on(times, 0.0)) == list(times) and list(since_on(times, 0.4)) == [0.4, 1.0]
  assert list(since_on(times, 0.2)) == [0.4, 1.0] == list(since_on(times, 0.9))


def test_each_time_is_sdedit_of_the_video_where_it_lies(tiny_runs):
  """Decoded, moved, encoded, noised, sampled, put back; the noise is each video's own."""
  options = {'steps': 4, 'schedule': {'name': 'linear'}, 'known_steps': 0}
  plain = VideoPipeline(tiny_runs / 'video', **options)
  twice = plain.changed(shifts=2, shift_time=0.5)
  made, first = (each.generate(PROMPTS, shape=SHAPE) for each in (twice, plain))
  samples = plain._samples(PROMPTS, {}, {}, plain.frame_rates(PROMPTS))
  batch = plain._batch([sample | {'frames': SHAPE[0]} for sample in samples])
  rest = make_sampler_of(plain._settings, plain._objective, plain._model, times=[0.5, 0.75, 1.0])
  video = first
  for turn, by in ((1, (1, 4, 4)), (2, (0, 0, 0))):  # half a token of 2 x 8 x 8 pixels
    latents = plain._codec.encode(jnp.asarray(moved(video, by)))
    noise = draw_noise(0, np.arange(2) + turn * 2**24, latents.shape[1:])
    x = 0.5 * latents + (0.5 + SIGMA_MIN * 0.5) * noise
    again = np.asarray(plain._codec.decode(rest(plain._params, batch, x), SHAPE[0]))
    video = put_back(video, again, by)
  assert np.any(made != first)
  assert np.abs(np.int32(made) - video).max() <= 1  # a rounding that meets a half
  alone = twice.generate(PROMPTS[1:], shape=SHAPE, first=1)
  assert np.abs(np.int32(alone[0]) - made[1]).max() <= 1
  np.testing.assert_array_equal(twice.changed(shifts=0).generate(PROMPTS, shape=SHAPE), first)
  assert twice.generate(PROMPTS, shape=(1, 16, 16)).shape == (2, 1, 16, 16, 3)


def test_what_cannot_be_shifted_is_refused(tiny_runs):
  with pytest.raises(ConfigError, match='shifts = 3; expected an even number'):
    VideoPipeline(tiny_runs / 'video', shifts=3)
  with pytest.raises(ConfigError, match=r'sample\.shifts = 2 of an audio model'):
    mgjax.load('digits/audio', shifts=2)
  with pytest.raises(ConfigError, match=r"sample\.strength = 0\.9 of a video model; .* 'editing'"):
    VideoPipeline(tiny_runs / 'video', strength=0.9)
