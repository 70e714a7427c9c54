"""A finished video is sampled again with its tokens half a block further, and lies where it lay."""

import numpy as np
import pytest

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.flow_models.build import since_on
from mgjax.video.pipeline import VideoPipeline
from mgjax.video.shifts import half_a_block, moved

PROMPTS, SHAPE = ['the red digit 7 moves up', 'a'], (4, 16, 16)


def clip(rows=8, columns=6):
  return np.arange(rows * columns, dtype=np.uint8).reshape(1, 1, rows, columns, 1).repeat(3, -1)


def test_there_and_back_is_the_same_but_for_the_edges():
  found = moved(moved(clip(), (2, 1)), (-2, -1))
  np.testing.assert_array_equal(found[:, :, 2:, 1:], clip()[:, :, 2:, 1:])
  # What left the clip is as the edge that it left behind.
  np.testing.assert_array_equal(found[0, 0, :2, 1:, 0], clip()[0, 0, [2, 2], 1:, 0])
  np.testing.assert_array_equal(moved(clip(), (2, 1))[0, 0, 0, :-1, 0], clip()[0, 0, 2, 1:, 0])
  assert half_a_block((8, 8, 4)) == (4, 2)


def test_it_goes_on_from_a_time_of_the_grid():
  times = np.array([0.0, 0.1, 0.4, 1.0])
  assert list(since_on(times, 0.0)) == list(times) and list(since_on(times, 0.4)) == [0.4, 1.0]
  assert list(since_on(times, 0.2)) == [0.4, 1.0] == list(since_on(times, 0.9))


def test_a_shift_is_sdedit_of_the_moved_video(tiny_runs):
  """As by hand: decoded, moved, encoded, noised, sampled; and what is drawn is each video's own."""
  plain = VideoPipeline(tiny_runs / 'video', steps=4)
  twice = VideoPipeline(tiny_runs / 'video', steps=4, shifts=2, shift_time=0.5)
  made = twice.generate(PROMPTS, shape=SHAPE)
  assert np.any(made != plain.generate(PROMPTS, shape=SHAPE))
  assert mgjax.load(tiny_runs / 'video', steps=4).generate(PROMPTS, shape=SHAPE).shape == made.shape
  again = twice.generate(PROMPTS[1:], shape=SHAPE, first=1)
  assert np.abs(np.int32(again[0]) - made[1]).max() <= 1  # a rounding that meets a half
  np.testing.assert_array_equal(
    twice.changed(shifts=0).generate(PROMPTS, shape=SHAPE), plain.generate(PROMPTS, shape=SHAPE)
  )


def test_what_cannot_be_shifted_is_refused(tiny_runs):
  with pytest.raises(ConfigError, match='shifts = 3; expected an even number, there and back'):
    VideoPipeline(tiny_runs / 'video', shifts=3)
  with pytest.raises(ConfigError, match='sample.shifts = 2 of an audio model'):
    mgjax.load('digits/audio', shifts=2)
