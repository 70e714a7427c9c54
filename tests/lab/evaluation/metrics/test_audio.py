"""Numbers of sounds against formulas in float64, closed forms and planted events."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgjax.core.errors import DataError
from mgjax.lab.evaluation.metrics.audio import (
  onset_envelope,
  onset_times,
  signal_to_distortion,
  synchrony,
)
from mgjax.models.codec.spectrum import mel_filters

RATE = 16_000
STEP = 1 / 200  # seconds between values of the flux
EARLY = 2 * STEP  # half a window: how soon a window can see what begins
TIMES = (0.3, 0.711, 1.2034, 1.55)


def noise(samples, seed=0, channels=1, volume=0.1):
  sound = volume * np.random.default_rng(seed).normal(size=(samples, channels))
  return sound.astype(np.float32)


def struck(times, kind='tone', hiss=0.0, seconds=2.0, seed=0):
  """Something that begins suddenly at each time and fades, over a hiss."""
  now = np.arange(round(seconds * RATE)) / RATE
  sound = hiss * np.random.default_rng(seed).normal(size=len(now))
  for number, time in enumerate(times, start=1):
    after = np.maximum(now - time, 0)
    wave = {
      'tone': np.sin(2 * np.pi * 440 * number * after),
      'noise': np.random.default_rng(number).normal(size=len(now)) / 3,
      'slow': np.sin(2 * np.pi * 440 * number * after) * (1 - np.exp(-after / 0.005)),
    }[kind]
    sound += 0.3 * (now >= time) * np.exp(-after / 0.1) * wave
  return sound.astype(np.float32)[:, None]


def test_the_distortion_is_the_angle_between_the_sounds():
  x, y = noise(1000), noise(1000, 1)
  a, b = (z[:, 0].astype(np.float64) - z.mean(dtype=np.float64) for z in (x, y))
  cosine = np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
  expected = 10 * np.log10(cosine**2 / (1 - cosine**2))
  assert signal_to_distortion(x, y) == pytest.approx(expected, abs=1e-9)  # float64, sums of 1000


@given(st.floats(1e-3, 1e3), st.booleans(), st.floats(-1, 1))
def test_loudness_sign_and_a_constant_are_no_distortion(scale, turned, constant):
  x = noise(500, channels=2).astype(np.float64)
  y = x + noise(500, 1, channels=2, volume=0.03)
  changed = (-scale if turned else scale) * y + constant
  # A constant 1e4 times the sound costs four of sixteen digits.
  assert signal_to_distortion(x, changed) == pytest.approx(signal_to_distortion(x, y), abs=1e-6)


def test_distortion_lies_within_a_hundred_decibels():
  x = noise(500)
  assert signal_to_distortion(x, x) == signal_to_distortion(x, -2 * x) == 100
  for silence in (np.zeros_like(x), np.full_like(x, 0.1)):
    assert signal_to_distortion(x, silence) == -100
    with pytest.raises(DataError, match='no meaning beside silence; leave silent references'):
      signal_to_distortion(silence, x)
  other = np.repeat([[1.0], [-1.0]], 2, axis=0)
  assert signal_to_distortion(other, np.tile([[1.0], [-1.0]], (2, 1))) == -100


@pytest.mark.parametrize('kind', ['tone', 'noise', 'slow'])
@pytest.mark.parametrize('hiss', [0.0, 1e-3, 1e-2])
def test_what_begins_is_heard_once_and_in_time(kind, hiss):
  onsets = onset_times(struck(TIMES, kind, hiss), RATE)
  assert len(onsets) == len(TIMES)
  late = onsets - np.array(TIMES)
  assert (late >= -EARLY).all() and (late <= STEP).all()


@pytest.mark.parametrize(
  'sound',
  [
    np.zeros((RATE, 1), np.float32),
    noise(2 * RATE),
    noise(2 * RATE, channels=2, volume=1e-4),
    struck((-1.0,)),  # only fades
    np.sin(np.arange(RATE) / 7).astype(np.float32)[:, None],
  ],
  ids=['silence', 'noise', 'stereo', 'fading', 'sine'],
)
def test_where_nothing_begins_nothing_is_heard(sound):
  assert len(onset_times(sound, RATE)) == 0


def test_the_flux_is_the_formula():
  sound = struck((0.1,), 'noise', 1e-2, seconds=0.2)
  flux = onset_envelope(sound, RATE)
  hop, window = 80, 320
  shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
  padded = np.pad(sound[:, 0].astype(np.float64), window // 2, mode='reflect')
  starts = range(0, len(padded) - window + 1, hop)
  spectra = np.abs([np.fft.rfft(padded[start : start + window] * shape) for start in starts])
  bands = spectra @ mel_filters(RATE, window, 40)
  levels = np.log10(1 + 100 * bands / bands.max())
  expected = [np.mean(np.maximum(b - a, 0)) for a, b in itertools.pairwise(levels)]
  # float32 spectra, of which differences are taken.
  np.testing.assert_allclose(flux[2:-2], expected[1:-2], atol=1e-5)
  assert not flux[:2].any() and not flux[-2:].any()


@pytest.mark.parametrize('late', [0.0, 0.1, -0.25])
@pytest.mark.parametrize('kind', ['tone', 'noise'])
def test_a_planted_delay_is_found(late, kind):
  x, y = struck(TIMES), struck([time + late for time in TIMES], kind, 1e-3)
  result = synchrony(x, y, RATE)
  assert result.lag == pytest.approx(late, abs=1.5 * STEP)  # both are on the grid of the flux
  assert result.correlation > 0.5


@pytest.mark.parametrize(
  ('other', 'error'),
  [
    (struck(TIMES), 0),
    (-3 * struck(TIMES), 0),  # however loud
    (struck((0.3, 1.55)), 0),  # the nearest are 0, .411, .3466 and 0 away, and 0 and 0: the median
    (0 * struck(TIMES), None),
    (noise(2 * RATE), None),
  ],
  ids=['same', 'loud', 'missing', 'silence', 'noise'],
)
def test_the_error_of_onsets_counts_what_is_missing_and_is_none_beside_silence(other, error):
  actual_error = synchrony(struck(TIMES), other, RATE).onset_error
  assert actual_error == (None if error is None else pytest.approx(error, abs=STEP))


def test_the_same_sound_is_in_time_and_silence_in_none():
  x = struck(TIMES, 'noise', 1e-2)
  assert synchrony(x, x, RATE) == (0, pytest.approx(1, abs=1e-6), 0)  # float32
  assert synchrony(x, np.zeros_like(x), RATE) == (None, None, None)
