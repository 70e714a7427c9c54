"""A regression net answers the mean, and sampling ends at it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.flow.objective import make_objective
from mgjax.flow.prediction import make_prediction
from mgjax.flow.sample import sample
from mgjax.flow.schedules import make_time_grid

REGRESSION = make_prediction({'name': 'regression'})
EPS = np.finfo(np.float32).eps
SHAPE = (4, 3)


def test_the_loss_is_the_squared_error_of_an_answer_that_saw_conditions_alone():
  data = jax.random.normal(jax.random.key(0), (8, 5))
  seen = []

  def predict(x, time, batch, drop):
    seen.append(x)
    return batch['guess']

  objective = make_objective(dropout={}, prediction=REGRESSION)
  guess = data + 0.5
  loss, _ = objective(predict, {'latents': data, 'guess': guess}, jax.random.key(1))
  assert not np.asarray(seen[0]).any()
  np.testing.assert_allclose(loss, 0.25, rtol=8 * EPS)


@pytest.mark.parametrize('solver', ['euler', 'midpoint'])
@pytest.mark.parametrize('steps', [1, 2, 7])
def test_any_number_of_steps_ends_at_the_mean(solver, steps):
  mean = jnp.linspace(-2, 2, 12).reshape(SHAPE)
  predict = REGRESSION.as_velocity(lambda x, time, batch, drop: mean)
  noise = jax.random.normal(jax.random.key(0), SHAPE)
  times = make_time_grid(steps=steps, name='linear')
  made = sample(lambda x, time: predict(x, time, {}, {}), noise, times, solver)
  # Of numbers up to 4: each step rounds, and a velocity rounds what 1 / (1 - t) makes of it.
  np.testing.assert_allclose(made, mean, atol=8 * steps * EPS * 4)
