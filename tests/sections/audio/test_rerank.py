"""The best candidate sounds when motion changes, and silence is right where nothing happens."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.sections.audio.rerank import (
  OnsetAlignment,
  best_of,
  motion_change,
  onset_strength,
  velocities,
)

RATE, FPS, SECONDS = 48_000, 25, 4
FRAMES = SECONDS * FPS
TURNS = (0.6, 1.7, 2.9)  # seconds


def clicks(times, channels=1, loudness=0.5, tone=1000.0):
  """A decaying tone at each time."""
  now = np.arange(SECONDS * RATE) / RATE
  sound = np.zeros(len(now), np.float32)
  for begin in times:
    past = np.maximum(now - begin, 0)
    sound += (now >= begin) * np.exp(-past / 0.05) * np.cos(2 * np.pi * tone * past) * loudness
  return np.repeat(sound[:, None], channels, axis=1).astype(np.float32)


def blob(path, size=48, noise=0):
  """A bright spot at the places (y, x) of `path`, in heights, over a gradient that stands still."""
  rows, columns = np.mgrid[:size, :size] / size
  video = np.empty((len(path), size, size, 3))
  for frame, (y, x) in enumerate(path):
    spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 0.08**2))
    video[frame] = (30 * rows + 180 * spot)[..., None] + 20
  video += np.random.default_rng(0).normal(size=video.shape) * noise
  return np.clip(video, 0, 255).astype(np.uint8)


def zigzag(fps=FPS, turns=TURNS, speed=0.5):
  """Back and forth, turning at the times."""
  now = np.arange(SECONDS * fps) / fps
  sign = 1 - 2 * (np.searchsorted(np.array(turns), now, side='right') % 2)
  x = 0.3 + np.cumsum(sign) * speed / fps
  return np.stack([np.full_like(x, 0.5), x], axis=1)


def motion_of(video, fps=FPS):
  return motion_change(velocities(video, fps), fps, SECONDS * 25)


def test_velocity_is_measured_in_heights_a_second():
  path = np.stack([np.linspace(0.3, 0.6, FRAMES), np.linspace(0.7, 0.2, FRAMES)], axis=1)
  measured = velocities(blob(path), FPS)
  expected = np.array([0.3, -0.5]) * FPS / (FRAMES - 1)
  # Linear in the displacement, a fifth of a pixel, of a spot 4 pixels wide: a few percent.
  np.testing.assert_allclose(measured.mean(0), expected, rtol=0.1)
  assert measured.shape == (FRAMES - 1, 2)


@pytest.mark.parametrize('fps', [8, 25, 50])
def test_motion_changes_where_it_turns_back(fps):
  motion = motion_of(blob(zigzag(fps)), fps)
  tall = np.flatnonzero(motion > 0.3) / 25
  assert motion.min() >= 0 and motion.max() <= 1
  for turn in TURNS:
    # Seen at a frame, within a frame of the turn, and told to a moment of 40 ms.
    assert np.abs(tall - turn).min() <= 1 / fps + 0.04
  assert all(np.abs(time - np.array(TURNS)).min() <= 1 / fps + 0.04 for time in tall)


def test_motion_changes_where_something_stops_and_not_where_it_goes_on_or_rests():
  now = np.arange(FRAMES) / FPS
  path = np.stack([0.2 + 0.25 * np.minimum(now, 2.0), np.full(FRAMES, 0.5)], axis=1)
  motion = motion_of(blob(path))
  assert abs(int(motion.argmax()) - 50) <= 1 and motion.max() > 0.5
  motion[48:53] = 0
  assert motion.max() < 0.1
  assert not motion_of(blob(path[:1].repeat(FRAMES, 0))).any()
  assert not motion_of(blob(path[:1].repeat(FRAMES, 0), noise=2.0)).any()  # of a codec, or a sensor


@pytest.mark.parametrize('channels', [1, 2])
def test_onsets_are_where_something_begins_to_sound(channels):
  strength = onset_strength(clicks(TURNS, channels)[None], RATE)
  assert strength.shape == (1, SECONDS * 25) and strength.max() < 1
  heard = np.flatnonzero(strength[0] > 0.5)
  # 20 ms are heard at once, so a beginning may be heard in the moment before.
  assert set(heard) <= {moment - early for moment in (15, 42, 72) for early in (0, 1)}
  assert len({round(moment / 25, 1) for moment in heard}) == len(TURNS)


def test_steady_sounds_and_silence_begin_nowhere():
  generator = np.random.default_rng(0)
  noise = generator.normal(size=(1, SECONDS * RATE, 1)).astype(np.float32) * 0.1
  hum = np.sin(2 * np.pi * 220 * np.arange(SECONDS * RATE) / RATE)[None, :, None] * 0.3
  loud = onset_strength(clicks([1.0])[None], RATE).max()
  # A band of one frequency of noise jumps by 6 dB over six others once in a hundred looks.
  assert onset_strength(noise, RATE).mean() < loud / 20
  assert onset_strength(hum, RATE).max() < loud / 100
  assert not onset_strength(np.zeros((1, RATE, 1), np.float32), RATE).any()
  assert not onset_strength(noise * 1e-4, RATE).any()  # 100 dB below full scale


def test_the_candidate_that_sounds_at_the_turns_is_the_best():
  motion = motion_of(blob(zigzag()))
  late = [turn + 0.3 for turn in TURNS]
  sounds = np.stack(
    [
      clicks(late),
      clicks(TURNS[:1]),
      clicks([]),
      clicks(TURNS),
      clicks([*TURNS, *late]),
    ]
  )
  best, scores = best_of(sounds, RATE, OnsetAlignment(), caption='', motion=motion)
  wrong, one, silent, right, too_many = scores
  assert best == 3
  assert right > too_many > wrong and right > one > silent > wrong
  assert 0.5 < right <= 1 and scores.min() >= 0


def test_silence_is_right_where_nothing_happens():
  still = np.zeros(SECONDS * 25)
  sounds = np.stack([clicks(TURNS), clicks([])])
  best, scores = best_of(sounds, RATE, OnsetAlignment(), motion=still)
  assert best == 1 and scores[1] == 1 and scores[0] < 0.5


def test_without_a_picture_the_first_candidate_is_taken():
  sounds = np.stack([clicks(TURNS), clicks([])])
  best, scores = best_of(sounds, RATE, OnsetAlignment(), motion=None)
  assert best == 0 and scores[0] == scores[1]


def test_a_candidate_that_is_not_finite_is_never_taken():
  sounds = np.stack([clicks(TURNS), clicks([]), clicks([1.0])])
  sounds[1, 5] = np.nan

  def likes_the_last(sounds, rate, **conditions):
    assert np.isfinite(sounds).all()
    return np.arange(len(sounds), dtype=float)

  best, scores = best_of(sounds, RATE, likes_the_last)
  assert best == 2 and scores.tolist() == [0, -np.inf, 1]
  best, _ = best_of(sounds[1:], RATE, lambda sounds, rate: np.full(len(sounds), np.nan))
  assert best == 1
  with pytest.raises(DataError, match='none of 1 candidates is finite'):
    best_of(sounds[1:2], RATE, likes_the_last)
