"""The adaptive solver keeps its tolerance, takes SciPy's steps and says what it did."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from mgjax.flow import adaptive
from tests.flow.test_solvers import pulse

EPS = np.finfo(np.float32).eps


def _forced(x, time):
  """Fast decay to a moving target, which makes an adaptive solver reject steps."""
  time = time[:, None]
  return -60 * (x - jnp.cos(20 * time)) * (1 + time)


def _forced_alone(time, x):
  """The same for SciPy."""
  return -60 * (x - np.cos(20 * time)) * (1 + time)


@pytest.mark.parametrize('rtol', [1e-3, 1e-6, 1e-8])
def test_dormand_prince_takes_scipys_steps(rtol):
  start = np.array([2.0, -1.0, 0.3])
  expected = scipy.integrate.solve_ivp(
    _forced_alone, (0, 1), start, 'RK45', rtol=rtol, atol=1e-8, first_step=adaptive.FIRST_STEP
  )
  with jax.enable_x64(True):
    end, statistics = jax.jit(lambda x: adaptive.dormand_prince(_forced, x, rtol=rtol, atol=1e-8))(
      jnp.asarray(start)[None]
    )
  np.testing.assert_allclose(end[0], expected.y[:, -1], rtol=1e-11)
  assert statistics.accepted == len(expected.t) - 1
  assert statistics.evaluations == expected.nfev
  assert statistics.rejected > 0


def test_easy_rows_do_not_loosen_the_tolerance_of_a_hard_one():
  hard = jnp.array([[2.0, -1.0]])
  rows = jnp.concatenate([hard, jnp.zeros((15, 2))])
  weights = jnp.zeros((16, 1)).at[0].set(1)
  alone, few = adaptive.dormand_prince(_forced, hard)
  together, many = adaptive.dormand_prince(lambda x, t: weights * _forced(x, t), rows)
  np.testing.assert_allclose(together[0], alone[0], rtol=1e-5)
  assert abs(int(few.accepted) - int(many.accepted)) <= 1


def test_dormand_prince_starts_and_ends_where_it_is_told():
  start = jnp.ones((1, 1))
  end, statistics = adaptive.dormand_prince(pulse, start, start=0.25, end=0.5)
  assert statistics.finished
  expected = np.exp(2 * (np.sin(0.5) - np.sin(0.25)))
  np.testing.assert_allclose(end[0, 0], expected, rtol=1e-4)


def test_dormand_prince_says_when_it_did_not_finish():
  _, statistics = adaptive.dormand_prince(_forced, jnp.ones((1, 1)), max_steps=5)
  assert not statistics.finished
  assert statistics.accepted + statistics.rejected == 5
  assert statistics.evaluations == 31
  x, statistics = adaptive.dormand_prince(lambda x, time: x * jnp.nan, jnp.ones((1, 1)))
  assert not statistics.finished and statistics.accepted == 0
  np.testing.assert_array_equal(x, 1)


def test_dormand_prince_steps_back_from_a_velocity_that_is_not_finite():
  """x' = -200 sqrt(x) from 1 is (1 - 100 t)^2; a step that is too long looks below zero."""
  x = jnp.ones((1, 1))
  end, statistics = adaptive.dormand_prince(lambda x, time: -200 * jnp.sqrt(x), x, end=0.0096)
  assert statistics.finished and statistics.rejected > 0
  np.testing.assert_allclose(end, (1 - 0.96) ** 2, atol=1e-5 * int(statistics.accepted))


def test_dormand_prince_traces_the_velocity_twice():
  seen = []
  jax.jit(lambda x: adaptive.dormand_prince(lambda x, t: seen.append(1) or x, x))(jnp.ones((1, 1)))
  assert len(seen) <= 2  # the first slope and the loop, not once for each stage
