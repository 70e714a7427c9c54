"""A model that answers X_1 is trained by the error of its velocity, and sampled by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.objective import make_objective
from mgjax.flow.path import FlowMatching
from mgjax.flow.prediction import make_prediction
from mgjax.flow.sample import sample
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.x_prediction import XPrediction

EPS = np.finfo(np.float32).eps
DEVIATION = 0.5  # of data around 2, of which the best answer is known


def _mean(x, time):
  """E[X_1 | X_t] of independent numbers, by Bayes."""
  time = jnp.reshape(time, (-1, *[1] * (x.ndim - 1)))
  variance = (time * DEVIATION) ** 2 + (1 - time) ** 2
  return 2 + time * DEVIATION**2 / variance * (x - 2 * time)


def test_the_loss_is_that_of_the_velocity_which_follows_from_the_answer():
  data = 2 + DEVIATION * jax.random.normal(jax.random.key(0), (64, 5))

  def answer(x, time, batch, drop):
    return _mean(x, time)

  def predict(x, time, batch, drop):
    return (_mean(x, time) - x) / (1 - time)[:, None]

  early = lambda key, shape: jax.random.uniform(key, shape, maxval=0.9)  # noqa: E731
  key = jax.random.key(1)
  of_data = make_objective(dropout={}, sample_time=early, prediction=XPrediction())
  of_velocity = make_objective(dropout={}, sample_time=early, prediction=FlowMatching(0.0))
  batch = {'latents': data}
  # x - X_t cancels digits of numbers up to 4, and 1 / (1 - t) makes up to ten times as much of it.
  np.testing.assert_allclose(
    of_data(answer, batch, key)[0], of_velocity(predict, batch, key)[0], rtol=10 * 4 * 8 * EPS
  )


def test_near_the_data_the_weight_stops_growing():
  weight = XPrediction(least=0.1).weight(jnp.asarray([0.0, 0.5, 0.9, 1.0]))
  np.testing.assert_allclose(weight, [1, 4, 100, 100], rtol=16 * EPS)


def test_samples_of_the_best_answers_are_distributed_as_the_data():
  predict = XPrediction().as_velocity(lambda x, time, batch, drop: _mean(x, time))
  noise = jax.random.normal(jax.random.key(0), (4096, 4))
  times = make_time_grid(steps=100, name='linear')
  made = np.asarray(sample(lambda x, time: predict(x, time, {}, {}), noise, times, 'midpoint'))
  # The flow maps noise monotonically onto the data. A midpoint of 100 steps errs by some 1e-4.
  np.testing.assert_allclose(made, 2 + DEVIATION * np.asarray(noise), atol=2e-3)


def test_a_number_out_of_range_is_named():
  with pytest.raises(ConfigError, match=r'objective\.prediction\.least = 0'):
    make_prediction({'name': 'x_prediction', 'least': 0.0})
