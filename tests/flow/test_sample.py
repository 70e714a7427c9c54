"""Sampling is the solver's loop in one compiled scan, and it turns noise into data."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow import path, schedules, solvers
from mgjax.flow.sample import sample, sample_reusing

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


def test_sampling_is_float32_from_bfloat16_noise():
  assert sample(_field, _noise().astype(jnp.bfloat16), schedules.linear(4)).dtype == jnp.float32


def test_part_of_the_path_can_be_walked():
  made = sample(lambda x, time: jnp.ones_like(x), _noise(), np.linspace(0.25, 0.75, 5))
  np.testing.assert_allclose(made, _noise() + 0.5, atol=20 * EPS)


def test_an_adaptive_solution_that_does_not_arrive_is_nan():
  made = sample(lambda x, time: x * jnp.nan, _noise(), schedules.linear(1), 'dormand_prince')
  assert np.isnan(made).all()


def test_unknown_solver_names_the_choices():
  with pytest.raises(
    ConfigError, match="'rk4'; choose one of euler, midpoint, heun, unipc, dormand"
  ):
    sample(_field, _noise(), schedules.linear(4), 'rk4')


def test_a_threshold_of_zero_computes_every_velocity():
  times = schedules.linear_quadratic(20)
  made, computed = jax.jit(functools.partial(sample_reusing, _field, threshold=0.0))(
    _noise(), times
  )
  assert computed.all()
  np.testing.assert_array_equal(made, jax.jit(functools.partial(sample, _field))(_noise(), times))


def test_a_velocity_is_reused_as_long_as_it_changes_little():
  """Of u = 1 + t, |u_t - u_s| / (u_t (t - s)) = 1 / (1 + t): by hand, with steps of .1."""
  grow = lambda x, time: jnp.broadcast_to(1 + time[:, None, None], x.shape)  # noqa: E731
  times = schedules.linear(10)
  made, computed = sample_reusing(grow, _noise(), times, 0.15)
  # From .1 on: .1 / 1.1 is below .15, .2 / 1.1 is not; .1 / 1.3, .2 / 1.3 = .154; .1, .2 / 1.5 and
  # .3 / 1.5; .2 / 1.8 is below, and then it ends.
  assert np.flatnonzero(computed).tolist() == [0, 1, 3, 5, 8]
  used = 1 + np.array([0, 0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 0.5, 0.8, 0.8])
  np.testing.assert_allclose(made, _noise() + 0.1 * used.sum(), atol=20 * 4 * EPS)


def test_which_velocities_are_reused_does_not_depend_on_other_rows():
  def velocity(x, time):  # rows change at very different rates
    rate = jnp.where(x[:, :1, :1] > 0, 0.1, 30.0)
    return 2 + jnp.sin(rate * time[:, None, None]) + 0 * x

  noise = jnp.stack([jnp.ones((3, 4)), -100 * jnp.ones((3, 4))])
  times = schedules.linear(20)
  both, computed = sample_reusing(velocity, noise, times, 0.1)
  alone = [sample_reusing(velocity, row[None], times, 0.1) for row in noise]
  np.testing.assert_array_equal(both, jnp.concatenate([made for made, _ in alone]))
  few, many = (int(done.sum()) for _, done in alone)
  assert few < many <= int(computed.sum())


def test_only_euler_reuses_velocities():
  with pytest.raises(ConfigError, match=r"reuse = 0\.1 with solver 'heun'"):
    sample(_field, _noise(), schedules.linear(4), 'heun', reuse=0.1)
