"""Solvers of fixed steps have the order they claim and keep their precision."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.flow import solvers

EPS = np.finfo(np.float32).eps


def pulse(x, time):
  """A linear equation whose coefficient depends on time: x' = 2 cos(t) x."""
  return 2 * jnp.cos(time)[:, None] * x


def _solve(step, velocity, x, steps):
  times = np.arange(steps + 1) / steps
  for time, next_time in itertools.pairwise(times):
    x = step(velocity, x, time, next_time)
  return x


@pytest.mark.parametrize(('name', 'order'), [('euler', 1), ('midpoint', 2), ('heun', 2)])
def test_the_order_of_convergence_and_as_many_evaluations_a_step(name, order):
  with jax.enable_x64(True):
    start = jnp.array([[1.0, -2.0]])
    ends = [np.asarray(_solve(solvers.SOLVERS[name], pulse, start, n)) for n in (64, 128)]
  exact = np.asarray(start) * np.exp(2 * np.sin(1.0))
  errors = [np.abs(end - exact).max() for end in ends]
  # The next term of the expansion is of relative size h = 1/64, with a constant of a few.
  assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1
  seen = []
  solvers.SOLVERS[name](lambda x, time: seen.append(time) or x, jnp.ones((3, 2)), 0.5, 0.75)
  assert len(seen) == order
  assert all(time.shape == (3,) and time.dtype == jnp.float32 for time in seen)
  np.testing.assert_array_equal(seen[0], np.full(3, 0.5))


@pytest.mark.parametrize('name', solvers.SOLVERS)
def test_state_keeps_its_precision_under_a_bfloat16_model(name):
  x = jnp.ones((1, 2))
  step = solvers.SOLVERS[name](lambda x, time: x.astype(jnp.bfloat16), x, 0.0, 1e-3)
  assert step.dtype == jnp.float32
  np.testing.assert_allclose(step, x * np.exp(1e-3), atol=1e-5)  # bfloat16 would answer 1
