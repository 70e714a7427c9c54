"""The path starts at noise, ends at data, and its velocity is its derivative."""

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.flow import path

EPS = np.finfo(np.float32).eps
SHAPE = (4, 3, 2, 2, 5)


def _draw():
  random = np.random.default_rng(0)
  data, noise = random.normal(size=(2, *SHAPE)).astype(np.float32)
  time = np.array([0.0, 0.3, 0.999, 1.0], np.float32)
  return data, noise, time


def _close(actual, expected, data, noise):
  # Four roundings, none of a number larger than both ends together.
  np.testing.assert_array_less(np.abs(actual - expected), 4 * EPS * (abs(data) + abs(noise)))


@pytest.mark.parametrize('sigma_min', [1e-5, 0.1])
def test_path_and_velocity_are_the_papers_formulas(sigma_min):
  data, noise, time = _draw()
  t = time.astype(np.float64)[:, None, None, None, None]
  x, z, times = map(jnp.asarray, (data, noise, time))
  expected = t * data + (1 - (1 - sigma_min) * t) * noise
  _close(path.interpolate(x, z, times, sigma_min), expected, data, noise)
  expected = data - (1 - sigma_min) * noise.astype(np.float64)
  _close(path.velocity_target(x, z, sigma_min), expected, data, noise)


def test_time_zero_is_noise_and_time_one_is_data_and_sigma_min_of_noise():
  data, noise, _ = map(jnp.asarray, _draw())
  np.testing.assert_array_equal(path.interpolate(data, noise, jnp.zeros(4)), noise)
  end = np.asarray(path.interpolate(data, noise, jnp.ones(4)), np.float64)
  np.testing.assert_allclose(end - data, 1e-5 * noise, atol=EPS * np.abs(data).max())
