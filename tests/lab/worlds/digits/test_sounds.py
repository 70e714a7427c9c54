"""Sounds of moving digits: heard when something is hit, in the tone of the digit."""

import pickle

import numpy as np
import pytest

from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.scene import AUDIBLE, MOTIONS
from mgjax.lab.worlds.digits.sounds import DECAY, PEAK, RATE, TONES, digit_sound, impact

AUDIBLE_WORLD = {'motions': AUDIBLE, 'captions': 'all', 'sound': True, 'fps': 25}


def _turns(video):
  """Times in frames at which the digit turns, of its centroids: between two frames as a rule."""
  mass = video.astype(np.float64).sum(-1)
  rows = (mass * np.arange(mass.shape[1])[:, None]).sum((1, 2)) / mass.sum((1, 2))
  columns = (mass * np.arange(mass.shape[2])).sum((1, 2)) / mass.sum((1, 2))
  turns = []
  for place in (rows, columns):
    step = np.diff(place)
    for turn in np.flatnonzero(np.sign(step[:-1]) != np.sign(step[1:])) + 1:
      # Two straight lines of opposite slopes, one through each neighbour of the turn, meet there.
      slope = np.abs(step).max()
      turns.append(
        turn + (place[turn + 1] - place[turn - 1]) / (2 * slope) * np.sign(step[turn - 2])
      )
  return np.sort(turns)


def test_sound_lasts_as_long_as_the_pictures_and_leaves_them_as_they_are():
  for frames, fps in ((16, 8), (50, 25), (10, 25)):
    world = {'motions': tuple(MOTIONS), 'captions': 'all', 'frames': frames, 'fps': fps}
    silent, sounding = Digits(**world), Digits(**world, sound=True)
    for index in range(12):
      with_sound, without = sounding[index], silent[index]
      assert with_sound['audio'].shape == (frames * RATE // fps, 1)
      assert with_sound['audio'].dtype == np.float32
      np.testing.assert_array_equal(with_sound['video'], without['video'])
      assert with_sound.keys() - without.keys() == {'audio', 'events'}
      assert with_sound['caption'] == without['caption']


def test_a_sound_is_a_function_of_seed_split_and_index():
  source = Digits(**AUDIBLE_WORLD)
  copy = pickle.loads(pickle.dumps(source))
  for index in (7, 3, 7):
    whole, heard = source[index], copy.listen(index)
    np.testing.assert_array_equal(whole['audio'], heard['audio'])
    np.testing.assert_array_equal(whole['events'], heard['events'])
    assert whole.keys() - heard.keys() == {'video'}
  assert not np.array_equal(source[3]['events'], source[4]['events'])
  with pytest.raises(IndexError):
    source.listen(len(source))


def test_events_are_when_the_pictures_turn():
  # In a large frame centroids are exact to a few hundredths of a pixel, a step is several pixels.
  world = {**AUDIBLE_WORLD, 'motions': ('bounce',), 'frames': 50, 'size': (128, 128)}
  for sample in Digits(**world, length=8):
    events = sample['events'] * 25
    inside = events[(events > 2) & (events < 47)]
    turns = _turns(sample['video'])
    turns = turns[(turns > 2) & (turns < 47)]
    assert 2 <= len(inside) == len(turns)
    np.testing.assert_allclose(inside, turns, atol=0.1)  # of a frame


def test_what_falls_is_heard_when_it_lands():
  for sample in Digits(**{**AUDIBLE_WORLD, 'motions': ('fall',), 'frames': 50}, length=20):
    (landing,) = sample['events'] * 25
    assert 0.3 * 49 <= landing <= 0.8 * 49
    at_rest = (sample['video'] == sample['video'][-1]).all((1, 2, 3))
    assert at_rest[int(np.ceil(landing)) :].all() and not at_rest[: int(landing) - 2].any()


def test_the_same_clip_at_another_frame_rate_sounds_at_the_same_place_of_its_course():
  slow = Digits(**{**AUDIBLE_WORLD, 'fps': 8}, frames=16)
  fast = Digits(**AUDIBLE_WORLD, frames=50)
  for index in range(10):
    shares = slow[index]['events'] * 8 / 15, fast[index]['events'] * 25 / 49
    np.testing.assert_allclose(*shares, atol=1e-9)


def test_nothing_is_heard_before_the_first_event_or_without_one():
  quiet = tuple(set(MOTIONS) - set(AUDIBLE))
  for sample in Digits(**{**AUDIBLE_WORLD, 'motions': quiet}, length=20):
    assert not sample['audio'].any() and not sample['events'].size
  for sample in Digits(**AUDIBLE_WORLD, frames=50, length=30):
    first = round(sample['events'][0] * RATE)
    assert not sample['audio'][:first].any()
    assert abs(sample['audio'][first, 0]) > 0.1
    assert np.abs(sample['audio']).max() <= PEAK


@pytest.mark.parametrize('digit', range(10))
def test_the_tone_tells_the_digit(digit):
  rest = impact(digit)[round(0.01 * RATE) :]  # after the click
  spectrum = np.abs(np.fft.rfft(rest, 2 * RATE))
  assert spectrum.argmax() / 2 == pytest.approx(TONES[digit], abs=2)
  early, late = rest[:2400], rest[2400 : 2 * 2400]
  decay = 0.05 / np.log(np.sqrt((early**2).mean() / (late**2).mean()))
  # A window that is no whole number of half periods errs by 1 / (4 pi f 0.05) = 0.5% at 300 Hz.
  assert decay == pytest.approx(DECAY, rel=0.02)


def test_the_click_is_the_same_for_all_and_reaches_every_band():
  tails = [impact(digit).copy() for digit in (2, 7)]
  time = np.arange(len(tails[0])) / RATE
  for tail, digit in zip(tails, (2, 7), strict=True):
    tail -= (0.2 * np.sin(2 * np.pi * TONES[digit] * time) * np.exp(-time / DECAY)).astype('f4')
  np.testing.assert_allclose(tails[0], tails[1], atol=1e-7)
  power = np.abs(np.fft.rfft(tails[0][:192])) ** 2
  bands = power[:96].reshape(8, 12).mean(1)  # of 3 kHz
  assert bands.min() > 0.05 * bands.max()


def test_near_events_add_up_and_stay_below_full_scale():
  events = np.array([0.1, 0.103])
  both = digit_sound(3, events, RATE)
  apart = sum(digit_sound(3, event[None], RATE) for event in events)
  np.testing.assert_allclose(both, apart, atol=1e-6)
  many = digit_sound(3, np.full(5, 0.1), RATE)
  alone = digit_sound(3, events[:1], RATE)
  np.testing.assert_allclose(many, alone * (PEAK / np.abs(alone).max()), atol=1e-6)


def test_an_event_at_the_end_is_cut_there():
  assert digit_sound(0, np.array([0.9999]), RATE)[-1] != 0
  assert not digit_sound(0, np.array([1.5]), RATE).any()
