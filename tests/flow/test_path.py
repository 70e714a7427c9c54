"""The path starts at noise, ends at data, and its velocity is its derivative."""

import jax.numpy as jnp
import numpy as np

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


def test_interpolate_is_the_papers_formula():
  data, noise, time = _draw()
  t = time.astype(np.float64)[:, None, None, None, None]
  for sigma_min in (1e-5, 0.1):
    expected = t * data + (1 - (1 - sigma_min) * t) * noise
    arrays = map(jnp.asarray, (data, noise, time))
    _close(path.interpolate(*arrays, sigma_min), expected, data, noise)


def test_velocity_target_is_the_papers_formula():
  data, noise, _ = _draw()
  for sigma_min in (1e-5, 0.1):
    expected = data - (1 - sigma_min) * noise.astype(np.float64)
    target = path.velocity_target(jnp.asarray(data), jnp.asarray(noise), sigma_min)
    _close(target, expected, data, noise)


def test_time_zero_is_noise():
  data, noise, _ = map(jnp.asarray, _draw())
  np.testing.assert_array_equal(path.interpolate(data, noise, jnp.zeros(4)), noise)


def test_time_one_is_data_and_sigma_min_of_noise():
  data, noise, _ = map(jnp.asarray, _draw())
  end = np.asarray(path.interpolate(data, noise, jnp.ones(4)), np.float64)
  np.testing.assert_allclose(end - data, 1e-5 * noise, atol=EPS * np.abs(data).max())
