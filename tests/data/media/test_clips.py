"""Clips are arrays that know how fast they play."""

import jax.numpy as jnp
import numpy as np

from mgjax.data.media.clips import Clips, fps_of

VIDEOS = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 3), np.uint8)


def test_parts_and_results_keep_the_rate():
  clips = Clips.of(VIDEOS, fps=8.0)
  assert {each.fps for each in (clips, clips[0], clips[:, ::2], clips / 255, clips == clips)} == {8}
  assert [each.fps for each in clips] == [8] * 3
  np.testing.assert_array_equal(clips, VIDEOS)
  np.testing.assert_array_equal(jnp.asarray(clips), VIDEOS)


def test_each_may_have_its_own_rate():
  clips = Clips.of(VIDEOS, fps=[8, 12, 8])
  assert [each.fps for each in clips] == [clips[0].fps, clips[1].fps, clips[-1].fps] == [8, 12, 8]
  assert clips[1:].fps == (12, 8) and clips[1, 2].fps == 12
  assert clips[VIDEOS > 3].fps is None
  assert Clips.of(VIDEOS, fps=[8, 8, 8]).fps == 8
  assert fps_of(clips, 3, 16) == [8, 12, 8] and fps_of(VIDEOS, 3, 16) == [16] * 3


def test_a_mean_is_a_number():
  assert type(Clips.of(VIDEOS, fps=8).mean()) is np.float64
