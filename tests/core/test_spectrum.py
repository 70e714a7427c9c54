"""The transform of numpy arrays against a sum of waves and against scipy's; bands of triangles."""

import numpy as np
import pytest
from scipy import signal

from mgjax.core.spectrum import magnitudes, triangles


@pytest.mark.parametrize('channels', [(), (2,)])
@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_windows_are_a_sum_of_waves_in_the_precision_of_the_sound(channels, kind):
  rng, size = np.random.default_rng(0), 32
  sound = rng.uniform(-1, 1, (99, *channels)).astype(kind)
  window, starts = np.hanning(size).astype(kind), np.array([0, 5, 5, 67])
  waves = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size // 2 + 1)) / size)
  cut = np.stack([sound[start : start + size] for start in starts]).astype(np.float64)
  exact = np.abs(np.moveaxis(cut, 1, -1) * window.astype(np.float64) @ waves)
  found = magnitudes(sound, window, starts)
  assert found.dtype == kind and found.shape == (4, *channels, size // 2 + 1)
  # Sums of 32 products below 1, of which each is rounded once or twice.
  np.testing.assert_allclose(found, exact, rtol=0, atol=32 * 2 * np.finfo(kind).eps)


def test_even_windows_are_those_of_scipy():
  sound, window, hop = np.random.default_rng(1).normal(size=960), np.hanning(64), 16
  twin = signal.ShortTimeFFT(window, hop, 48_000, fft_mode='onesided')
  exact = np.abs(twin.stft(sound, p0=2, p1=59)).T  # those that lie within the sound
  found = magnitudes(sound, window, np.arange(0, 960 - 63, hop))
  # 64 products of size 3 or less.
  np.testing.assert_allclose(found, exact, rtol=0, atol=64 * 3 * np.finfo(float).eps)


def test_bands_rise_to_one_and_fall_to_nothing_at_their_neighbours():
  edges = np.array([0.0, 1.0, 3.0, 4.0])
  found = triangles(np.array([0.0, 0.5, 1.0, 2.0, 3.0, 3.5, 9.0]), edges)
  expected = [[0, 0], [0.5, 0], [1, 0], [0.5, 0.5], [0, 1], [0, 0.5], [0, 0]]
  np.testing.assert_array_equal(found, expected)
