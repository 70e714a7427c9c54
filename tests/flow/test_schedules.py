"""Schedules run from noise to data, and linear-quadratic is the paper's."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow import schedules


def _noise_levels(steps, threshold, linear_steps):
  """Returns the noise levels of a public implementation, from its published formula.

  In the denoised fraction f: f_i = i threshold / L up to L, then a i^2 + b i + c with
  a = D / (L Q^2), b = threshold / L - 2 D / Q^2, c = a L^2, D = L - threshold S, Q = S - L.
  """
  deficit = linear_steps - threshold * steps
  rest = steps - linear_steps
  a = deficit / (linear_steps * rest**2)
  b = threshold / linear_steps - 2 * deficit / rest**2
  c = a * linear_steps**2
  fractions = [index * threshold / linear_steps for index in range(linear_steps)]
  fractions += [a * index**2 + b * index + c for index in range(linear_steps, steps)]
  return 1 - np.array(fractions)


def test_linear_quadratic_has_the_published_noise_levels():
  noise = 1 - schedules.linear_quadratic(50)
  np.testing.assert_allclose(noise[:3], [1, 0.999, 0.998], atol=1e-12)
  # Five digits were published.
  np.testing.assert_allclose(noise[24:27], [0.976, 0.975, 0.97248], atol=5e-6)
  np.testing.assert_allclose(noise[48:], [0.14792, 0.07548, 0], atol=5e-6)


@pytest.mark.parametrize(
  ('steps', 'emulated', 'linear_steps'), [(50, 1000, 25), (50, 250, 25), (10, 64, 3), (7, 500, 3)]
)
def test_linear_quadratic_is_the_formula_of_other_implementations(steps, emulated, linear_steps):
  times = schedules.linear_quadratic(steps, emulated=emulated, linear_steps=linear_steps)
  expected = _noise_levels(steps, linear_steps / emulated, linear_steps)
  np.testing.assert_allclose(1 - times[:-1], expected, atol=1e-13)


@pytest.mark.parametrize('name', schedules.SCHEDULES)
@pytest.mark.parametrize('steps', [1, 2, 3, 50, 77])
@pytest.mark.parametrize('factor', [1.0, 7.0, 0.2])
def test_every_schedule_rises_from_noise_to_data(name, steps, factor):
  times = schedules.make_time_grid(name, steps, shift_factor=factor)
  assert times.shape == (steps + 1,) and times.dtype == np.float64
  # Wan's own sampler starts at a noise level of 0.999.
  first = schedules.shift(np.array([0.001]), factor)[0] if name == 'wan' else 0
  assert times[0] == pytest.approx(first, abs=1e-15) and times[-1] == 1
  assert np.all(np.diff(times) > 0)


def test_shift_is_the_noise_level_formula_of_other_implementations():
  times = schedules.linear(20)
  level, factor = 1 - times, 7.0
  expected = 1 - factor * level / (1 + (factor - 1) * level)
  np.testing.assert_allclose(schedules.shift(times, factor), expected, atol=1e-15)
  assert np.all(schedules.shift(times, factor)[1:-1] < times[1:-1])  # more steps near noise


def test_errors_say_what_to_do():
  with pytest.raises(ConfigError, match="'cosine'; choose one of linear, linear_quadratic"):
    schedules.make_time_grid('cosine', 50)
  with pytest.raises(ConfigError, match=r'schedule\.emulate; did you mean .*\.emulated'):
    schedules.make_time_grid('linear_quadratic', 50, emulate=250)
  with pytest.raises(ConfigError, match='take emulated >= 50'):
    schedules.make_time_grid('linear_quadratic', 50, emulated=40)
  with pytest.raises(ConfigError, match='linear_steps is 50'):
    schedules.make_time_grid('linear_quadratic', 50, linear_steps=50)
  with pytest.raises(ConfigError, match='0 steps'):
    schedules.make_time_grid('linear', 0)
  with pytest.raises(ConfigError, match=r'shift_factor = 0\.0; expected more than 0'):
    schedules.make_time_grid('linear', 5, shift_factor=0.0)
