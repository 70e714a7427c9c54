"""Larger steps are learnt from smaller ones, the finest from a teacher's guided ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.flow.distillation.few_steps import STEP_SIZE, FewSteps, make_few_steps

EPS = np.finfo(np.float32).eps
FIELDS = {
  'teacher': 'runs/teacher',
  'guidance': (('text', 3.0),),
  'schedule': {'name': 'linear', 'shift_factor': 3.0},
  'steps': 8,
}
FEW = FewSteps(**FIELDS)
TIMES = FEW.times
ROWS, SHAPE = 16, (2, 3)
TEACHER = 0.7  # the only parameter of the teacher


def batch(rows=ROWS):
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
  return {'latents': draw(rows, *SHAPE), 'text': draw(rows)}


def velocity(x, time, text, size, scale=1.0):
  """Depends on everything that a model is told; numpy or JAX."""
  ones = (-1, *[1] * (x.ndim - 1))
  return scale * (0.3 * x * time.reshape(ones) + (text * (1 + size)).reshape(ones))


def model(scale=1.0, calls=None):
  def predict(x, time, given, drop):
    size = given.get(STEP_SIZE, jnp.zeros(len(x)))
    text = jnp.where(drop.get('text', jnp.zeros(len(x), bool)), 0.0, given['text'])
    if calls is not None:
      calls.append((x, time, size))
    return velocity(x, time, text, size, scale)

  return predict


def run(predict, given=None):
  objective = make_few_steps(FEW, lambda frozen: model(frozen))
  return objective(predict, given or batch(), jax.random.key(0), teacher=TEACHER)


def test_targets_are_two_steps_of_half_the_size():
  calls, text = [], np.asarray(batch()['text'], np.float64)
  loss, metrics = run(model(calls=calls))
  x, time, size = (np.asarray(each, np.float64) for each in calls[-1])
  errors = []
  for row in range(ROWS):
    at, say, half = x[row : row + 1], text[row : row + 1], size[row : row + 1] / 2
    place = int(np.argmin(np.abs(TIMES - time[row])))
    assert abs(TIMES[place] - time[row]) < EPS
    width = round(8 * size[row])
    assert width in ((4, 8) if row % 2 else (2,)) and place % width == 0
    start, middle, end = TIMES[place], TIMES[place + width // 2], TIMES[place + width]

    def step(at, when, own=row % 2, say=say, half=half):
      when, none = np.array([when]), np.zeros(1)
      if own:
        return velocity(at, when, say, half)
      plain = velocity(at, when, none, none, TEACHER)
      return plain + 3.0 * (velocity(at, when, say, none, TEACHER) - plain)

    first = step(at, start)
    second = step(at + (middle - start) * first, middle)
    target = ((middle - start) * first + (end - middle) * second) / (end - start)
    answer = velocity(at, time[row : row + 1], say, size[row : row + 1])
    errors.append(np.mean((answer - target) ** 2))
  # Some ten roundings of numbers below 20, squared.
  np.testing.assert_allclose(metrics['loss/teachers_steps'], np.mean(errors[::2]), rtol=400 * EPS)
  np.testing.assert_allclose(metrics['loss/own_steps'], np.mean(errors[1::2]), rtol=400 * EPS)
  np.testing.assert_allclose(loss, np.mean(errors), rtol=400 * EPS)


def test_targets_have_no_gradient():
  def held(scale):  # the answer alone moves
    def predict(x, time, given, drop):
      return model()(x, time, given, drop) * (scale if len(x) == ROWS else 1.0)

    return run(predict)[1]['loss/own_steps']

  whole = jax.grad(lambda scale: run(model(scale))[1]['loss/own_steps'])(1.0)
  np.testing.assert_allclose(whole, jax.grad(held)(1.0), rtol=64 * EPS)
  assert whole != 0


def test_of_a_velocity_that_nothing_bends_every_step_is_the_same():
  straight = lambda x, time, given, drop: jnp.ones_like(x)  # noqa: E731
  objective = make_few_steps(FEW, lambda frozen: straight)
  loss, _ = objective(straight, batch(), jax.random.key(0), teacher=TEACHER)
  assert loss < 16 * EPS


def test_grids_that_cannot_be_halved_are_errors():
  for changes, said in (
    ({'steps': 12}, 'a power of two, as in 32'),
    ({'schedule': {'name': 'linear_quadratic'}}, 'is no time of half as many'),
    ({'steps': 2}, 'steps'),
    ({'guidance': (('a', 2.0), ('a', 3.0))}, 'twice'),
  ):
    with pytest.raises(ConfigError, match=said):
      FewSteps(**FIELDS | changes)
  for steps in (1, 2, 4):
    np.testing.assert_array_equal(FEW.grid(steps), TIMES[:: 8 // steps])
  with pytest.raises(ConfigError, match='8 steps of a model that learned to take 1, 2, 4; take'):
    FEW.grid(8)
  with pytest.raises(DataError, match='a batch of 15 rows, of which every other one'):
    run(model(), batch(15))
