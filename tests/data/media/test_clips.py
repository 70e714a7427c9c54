"""Clips are arrays that know how fast they play."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
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
  assert [clips[i].fps for i in ([1, 0], np.array([False, True, False]), ..., np.int64(1))] == [
    (12, 8),
    (12,),
    (8, 12, 8),
    12,
  ]
  assert (
    clips[..., 0].fps == clips[:, 1].fps == (clips / 2).fps == (clips + clips).fps == (8, 12, 8)
  )
  assert (clips + Clips.of(VIDEOS, fps=24)).fps is None and (clips[0] + clips[1]).fps is None
  assert Clips.of(VIDEOS, fps=[8, 8, 8]).fps == 8
  assert fps_of(clips, 3, 16) == [8, 12, 8] and fps_of(VIDEOS, 3, 16) == [16] * 3


def test_a_mean_is_a_number():
  assert type(Clips.of(VIDEOS, fps=8).mean()) is np.float64


@pytest.mark.parametrize(
  'change',
  [
    lambda m: np.roll(m, 1, 0),
    lambda m: m.take([2, 0], 0),
    lambda m: np.delete(m, 0, axis=0),
    lambda m: m.mean(axis=0),
    lambda m: m.reshape(-1, 8, 8, 3),
    lambda m: m.swapaxes(0, 1),
    lambda m: np.sort(m, axis=0),
  ],
)
def test_rates_are_dropped_where_nobody_could_say_whose_they_are(change):
  changed = change(Clips.of(VIDEOS, fps=[8, 12, 24]))
  assert changed.fps is None
  assert len(list(changed)) == len(changed)
  assert change(Clips.of(VIDEOS, fps=8)).fps == 8


def test_a_pickle_keeps_the_rates():
  for fps in (8, [8, 12, 8]):
    clips = Clips.of(VIDEOS, fps=fps)
    again = pickle.loads(pickle.dumps(clips))
    assert again.fps == clips.fps and again.rate is None
    np.testing.assert_array_equal(again, clips)


@pytest.mark.parametrize('fps', ['x', [1, 2], float('nan'), -1, [8, 0, 8], np.zeros(3)])
def test_what_is_no_rate_is_refused(fps):
  with pytest.raises(ConfigError, match='fps'):
    Clips.of(VIDEOS, fps=fps)
