"""Sampling is the solver's loop in one compiled scan, and it turns noise into data."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow import path, schedules, solvers
from mgjax.flow.sample import sample

EPS = np.finfo(np.float32).eps
SHAPE = (2, 3, 4)


def _field(x, time):
  return jnp.sin(x) + time[:, None, None]


def _noise():
  return jax.random.normal(jax.random.key(0), SHAPE)


@pytest.mark.parametrize('solver', solvers.SOLVERS)
def test_jitted_sample_is_the_python_loop(solver):
  times = schedules.linear_quadratic(20)
  compiled = jax.jit(functools.partial(sample, _field, solver=solver))(_noise(), times)
  x = _noise()
  for time, next_time in itertools.pairwise(np.float32(times)):
    x = solvers.SOLVERS[solver](_field, x, time, next_time)
  # Fused multiply-adds: a rounding or two a step, of numbers below 5, growing by at most e.
  np.testing.assert_allclose(compiled, x, atol=20 * 2 * 5 * np.e * EPS)


def test_one_compilation_for_a_shape():
  traced = []

  def velocity(x, time):
    traced.append(x.shape)
    return -x

  run = jax.jit(functools.partial(sample, velocity))
  run(_noise(), schedules.linear(8))
  once = len(traced)
  run(2 * _noise(), schedules.linear_quadratic(8))
  assert len(traced) == once  # other numbers, the same program
  run(_noise()[:1], schedules.linear(8))
  assert len(traced) == 2 * once
  assert once <= 2  # whatever the number of steps


@pytest.mark.parametrize('solver', [*solvers.SOLVERS, 'dormand_prince'])
def test_true_velocity_of_one_clip_leads_to_the_clip(solver):
  """With one clip in the world, the best model points from wherever it stands to the clip."""
  clip = jnp.broadcast_to(jnp.linspace(-2.0, 2.0, 12).reshape(3, 4), SHAPE)

  def velocity(x, time):
    time = time[:, None, None]
    noise = (x - time * clip) / (1 - (1 - path.SIGMA_MIN) * time)
    return path.velocity_target(clip, noise)

  made = sample(velocity, _noise(), schedules.linear(10), solver)
  tolerance = path.SIGMA_MIN * np.abs(_noise()).max() + 10 * 3 * 5 * EPS
  if solver == 'heun':  # its last slope divides roundings by sigma_min, its last half step is 0.05
    tolerance += 0.05 * 5 * EPS / path.SIGMA_MIN
  if solver == 'dormand_prince':  # atol + rtol |x| for each of some 20 steps
    tolerance += 20 * 1e-5 * (1 + 2)
  np.testing.assert_allclose(made, clip, atol=tolerance)


def test_gaussian_world_is_reproduced():
  """Data N(2, 0.5^2) has a velocity in closed form; its samples have that mean and deviation."""
  mean, deviation = 2.0, 0.5

  def velocity(x, time):
    level = 1 - (1 - path.SIGMA_MIN) * time[:, None]
    time = time[:, None]
    variance = (time * deviation) ** 2 + level**2
    covariance = time * deviation**2 - (1 - path.SIGMA_MIN) * level
    return mean + covariance / variance * (x - time * mean)

  noise = jax.random.normal(jax.random.key(1), (64, 256))
  for solver in [*solvers.SOLVERS, 'dormand_prince']:
    made = sample(velocity, noise, schedules.linear(200), solver)
    # The flow is linear, so that the noise's own mean and deviation are carried over; Euler's
    # error is of the order of its step, 1/200.
    tolerance = 0.01 if solver == 'euler' else 0.001
    expected = mean + deviation * np.asarray(noise)
    np.testing.assert_allclose(made.mean(), expected.mean(), atol=tolerance)
    np.testing.assert_allclose(made.std(), expected.std(), atol=tolerance)


def test_sampling_is_float32_from_bfloat16_noise():
  made = sample(_field, _noise().astype(jnp.bfloat16), schedules.linear(4))
  assert made.dtype == jnp.float32


def test_part_of_the_path_can_be_walked():
  made = sample(lambda x, time: jnp.ones_like(x), _noise(), np.linspace(0.25, 0.75, 5))
  np.testing.assert_allclose(made, _noise() + 0.5, atol=20 * EPS)


def test_an_adaptive_solution_that_does_not_arrive_is_nan():
  made = sample(lambda x, time: x * jnp.nan, _noise(), schedules.linear(1), 'dormand_prince')
  assert np.isnan(made).all()


def test_unknown_solver_names_the_choices():
  with pytest.raises(ConfigError, match="'rk4'; choose one of euler, midpoint, heun, dormand"):
    sample(_field, _noise(), schedules.linear(4), 'rk4')
