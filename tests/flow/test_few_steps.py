"""Larger steps are learnt from smaller ones, guided at the finest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.flow.few_steps import STEP, FewSteps, with_few_steps
from mgjax.flow.objective import make_objective

EPS = np.finfo(np.float32).eps
FEW = FewSteps(guidance=(('text', 3.0),), schedule={'name': 'linear', 'shift_factor': 3.0}, steps=8)
TIMES = FEW.times
ROWS, SHAPE = 32, (2, 3)


def batch():
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
  return {'latents': draw(ROWS, *SHAPE), 'text': draw(ROWS)}


def velocity(x, time, text, size):
  """A velocity that depends on everything that a model is told; numpy or JAX."""
  ones = (-1, *[1] * (x.ndim - 1))
  return np.sin(1.0) * x * time.reshape(ones) + (text * (1 + size)).reshape(ones)


def model(calls, scale=1.0):
  def predict(x, time, batch, drop):
    size = batch.get(STEP, jnp.zeros(len(x)))
    text = jnp.where(drop.get('text', jnp.zeros(len(x), bool)), 0.0, batch['text'])
    calls.append((x, time, size, text))
    return scale * velocity(x, time, text, size)

  return predict


def run(calls, scale=1.0, key=0):
  base = make_objective(dropout={'text': 0.0})
  return with_few_steps(base, FEW)(model(calls, scale), batch(), jax.random.key(key))


def learning():
  """What the last call was asked, and the target by numpy in float64, row by row."""
  calls, given = [], batch()
  _, metrics = run(calls)
  x, time, size, _ = (np.asarray(each, np.float64) for each in calls[-1])
  text = np.asarray(given['text'], np.float64).reshape(-1, 4)[:, :2].reshape(-1)
  errors = []
  for row in range(len(x)):
    at, say = x[row : row + 1], text[row : row + 1]
    place = int(np.argmin(np.abs(TIMES - time[row])))
    assert abs(TIMES[place] - time[row]) < EPS
    width = round(8 * size[row])
    assert width in ((2,) if row % 2 == 0 else (4, 8)) and place % width == 0
    middle, end = TIMES[place + width // 2], TIMES[place + width]

    def step(at, when, guided=row % 2 == 0, say=say, half=size[row] / 2):
      when, none = np.array([when]), np.zeros(1)
      if not guided:
        return velocity(at, when, say, np.array([half]))
      plain = velocity(at, when, none, none)
      return plain + 3.0 * (velocity(at, when, say, none) - plain)

    first = step(at, TIMES[place])
    second = step(at + (middle - TIMES[place]) * first, middle)
    target = (middle - TIMES[place]) * first + (end - middle) * second
    answer = velocity(at, time[row : row + 1], say, size[row : row + 1])
    errors.append(np.mean((answer - target / (end - TIMES[place])) ** 2))
  return np.array(errors), metrics


def test_targets_are_two_steps_of_half_the_size():
  errors, metrics = learning()
  # Some ten roundings of numbers below 20, squared.
  np.testing.assert_allclose(metrics['loss/guided_steps'], errors[::2].mean(), rtol=400 * EPS)
  np.testing.assert_allclose(metrics['loss/own_steps'], errors[1::2].mean(), rtol=400 * EPS)


def test_the_other_half_of_the_rows_trains_the_velocity():
  calls = []
  loss, metrics = run(calls)
  np.testing.assert_array_equal(calls[0][2], 0)  # no step
  assert len(calls[0][0]) == ROWS // 2
  part = batch()
  part = {name: part[name].reshape(-1, 4, *part[name].shape[1:])[:, 2:] for name in part}
  part = {name: array.reshape(-1, *array.shape[2:]) for name, array in part.items()}
  base = make_objective(dropout={'text': 0.0})
  alone, _ = base(model([]), part, jax.random.split(jax.random.key(0), 4)[0])
  both = metrics['loss/guided_steps'] + metrics['loss/own_steps']
  np.testing.assert_allclose(loss, alone + both / 2, rtol=4 * EPS)


def test_targets_have_no_gradient():
  def with_scale(scale):
    return run([], scale)[1]['loss/own_steps']

  def held(scale):  # the answer alone moves
    def predict(x, time, given, drop):
      answer = model([])(x, time, given, drop)
      return scale * answer if len(x) == ROWS // 2 and STEP in given else answer

    base = make_objective(dropout={'text': 0.0})
    return with_few_steps(base, FEW)(predict, batch(), jax.random.key(0))[1]['loss/own_steps']

  np.testing.assert_allclose(jax.grad(with_scale)(1.0), jax.grad(held)(1.0), rtol=64 * EPS)
  assert jax.grad(held)(1.0) != 0


def test_a_velocity_that_nothing_bends_is_its_own_step():
  straight = lambda x, time, given, drop: jnp.ones_like(x)  # noqa: E731
  base = make_objective(dropout={})
  _, metrics = with_few_steps(base, FEW)(straight, batch(), jax.random.key(0))
  assert metrics['loss/guided_steps'] < 16 * EPS and metrics['loss/own_steps'] < 16 * EPS


def test_grids_that_cannot_be_halved_are_errors():
  for changes, said in (
    ({'steps': 12}, 'a power of two, as in 32'),
    ({'schedule': {'name': 'linear_quadratic'}}, 'is no time of half as many'),
    ({'steps': 2}, 'steps'),
    ({'guidance': (('a', 2.0), ('a', 3.0))}, 'twice'),
  ):
    fields = {'guidance': (), 'schedule': {'name': 'linear'}, 'steps': 8} | changes
    with pytest.raises(ConfigError, match=said):
      FewSteps(**fields)
  assert [FEW.share(steps) for steps in (1, 2, 4)] == [1, 0.5, 0.25]
  with pytest.raises(ConfigError, match='8 steps of a model that learnt to take 1, 2, 4; take'):
    FEW.share(8)
  with pytest.raises(DataError, match='a batch of 30 rows; of every 4'):
    part = {name: array[:30] for name, array in batch().items()}
    with_few_steps(make_objective(dropout={}), FEW)(model([]), part, jax.random.key(0))
