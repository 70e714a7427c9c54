"""Loudness as the standard measures it, and sounds that are brought to it without clipping."""

import math

import numpy as np
import pytest

from mgjax.data.media.loudness import Level, loudness, measure_loudness, normalise
from tests.data.media.audio_files import noise

# FFmpeg counts blocks in steps of 0.01 LU and rounds down: two measurements are that far apart.
STEP = 0.011


def sine(frequency, seconds, rate=48_000, peak=1.0, channels=1):
  time = np.arange(round(seconds * rate)) / rate
  return np.tile(peak * np.sin(2 * np.pi * frequency * time)[:, None], channels)


# K-weighting is defined at 48 kHz; what other rates make of it is within 0.05 LU at 997 Hz.
@pytest.mark.parametrize('rate', [48_000, 44_100, 96_000, 16_000, 11_025, 8000])
def test_a_sine_of_full_scale_has_the_loudness_that_the_standard_says(rate):
  assert loudness(sine(997, 5, rate), rate) == pytest.approx(-3.01, abs=0.05)
  assert loudness(sine(997, 5, rate, peak=0.1), rate) == pytest.approx(-23.01, abs=0.05)
  # In both channels there is twice the power.
  assert loudness(sine(997, 5, rate, channels=2), rate) == pytest.approx(0.0, abs=0.05)


def test_silence_between_sounds_does_not_count():
  loud = sine(997, 5)
  gap = np.zeros((480_000, 1))
  # The blocks that overlap an end hold between 1/4 and 3/4 of the power; six of them in 53.
  mean = (47 + 2 * (0.25 + 0.5 + 0.75)) / 53
  expected = -3.01 + 10 * math.log10(mean)
  assert loudness(np.concatenate([gap, loud, gap]), 48_000) == pytest.approx(expected, abs=0.02)
  assert loudness(np.zeros((48_000, 1)), 48_000) == -math.inf
  assert loudness(sine(997, 2, peak=1e-4), 48_000) == -math.inf  # -83 LUFS


def test_what_is_much_softer_than_the_rest_does_not_count():
  # By hand: 5 s at -23.01 and 5 s at -41.01 LUFS. The mean of all blocks is 3 dB below the louder
  # part, the gate 10 LU below that, so only the louder blocks and those with a part of it count:
  # 47 whole, and at the border 3 with 3/4, 2/4 and 1/4 of its power (the softer adds 1/63).
  sound = np.concatenate([sine(997, 5, peak=0.1), sine(997, 5, peak=0.1 * 10 ** (-18 / 20))])
  soft = 10**-1.8
  mean = (47 + 0.75 + 0.5 + 0.25 + (0.25 + 0.5 + 0.75) * soft) / 50
  expected = -23.01 + 10 * math.log10(mean)
  assert loudness(sound, 48_000) == pytest.approx(expected, abs=0.02)


def test_pieces_measure_as_the_whole():
  sound = noise(3.3, 44_100, 2)
  whole = measure_loudness([sound], 44_100)
  pieces = np.split(sound, [1, 5, 5, 30_000, 99_999])
  parts = measure_loudness(pieces, 44_100)
  assert parts.loudness == whole.loudness
  assert parts.peak == whole.peak == np.abs(sound).max()


def test_a_sound_shorter_than_a_block_is_one():
  assert loudness(sine(997, 0.25), 48_000) == pytest.approx(-3.01, abs=0.1)
  # Beside 10 ms of sound what the filters add after its end is 0.5 LU at most.
  assert loudness(sine(997, 0.01), 48_000) == pytest.approx(-3.01, abs=0.5)
  pieces = measure_loudness(np.split(sine(997, 0.25), [1, 700]), 48_000)
  assert pieces == measure_loudness([sine(997, 0.25)], 48_000)


@pytest.mark.parametrize('channels', [1, 2])
def test_sounds_are_brought_to_the_target(channels):
  sound = noise(2.0, channels=channels) * np.float32(0.05)
  same = normalise(sound, 48_000)
  assert same.dtype == np.float32
  assert loudness(same, 48_000) == pytest.approx(-16, abs=2 * STEP)
  factor = same / np.where(sound, sound, 1)
  np.testing.assert_allclose(factor[sound != 0], factor.max(), rtol=1e-5)


def test_a_peak_is_never_clipped_but_lowers_the_whole():
  sound = sine(997, 2, peak=0.01).astype(np.float32)
  sound[1000] = 0.9
  normal = normalise(sound, 48_000, target=-16, ceiling=-1)
  assert np.abs(normal).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)
  np.testing.assert_allclose(
    normal / sound.max(), sound / sound.max() * normal.max() / sound.max(), rtol=1e-4, atol=1e-7
  )
  assert loudness(normal, 48_000) < -16


def test_silence_stays_silence():
  assert not normalise(np.zeros((4800, 2), np.float32), 48_000).any()
  assert Level(-math.inf, 0.0).gain() == 1.0


@pytest.mark.parametrize('level', [-25, -36, -45, -59, -61, -69, -90])
@pytest.mark.parametrize('channels', [1, 2])
def test_a_soft_sound_is_amplified_up_to_the_limit_and_silence_not_at_all(level, channels):
  random = np.random.default_rng(0).normal(size=(96_000, channels))
  sound = random * 10 ** ((level - loudness(0.1 * random, 48_000) - 20) / 20)
  for limit in (10.0, 20.0, math.inf):
    gain = np.abs(normalise(sound, 48_000, limit=limit)).max() / np.abs(sound).max()
    wanted = 0 if level < -60 else min(-16 - level, limit)
    assert 20 * math.log10(gain) == pytest.approx(wanted, abs=3 * STEP)


def test_a_click_in_silence_is_lowered_to_the_ceiling():
  sound = np.zeros((480_000, 1), np.float32)
  sound[7] = 1.5
  assert Level(-65.0, 1.5).gain() == pytest.approx(10 ** (-1 / 20) / 1.5)
  assert np.abs(normalise(sound, 48_000)).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)
