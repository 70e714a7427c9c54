"""A student learns the guided velocity of a teacher, told of the scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.distillation.guidance import (
  SCALES,
  GuidanceDistillation,
  make_guidance_distillation,
)
from mgjax.flow.times import make_sampler

EPS = np.finfo(np.float32).eps
ROWS, SHAPE = 64, (2, 3)
TEACHER = 0.7  # the only parameter of the teacher
RANGES = (('source', (1.0, 3.0)), ('text', (0.5, 8.0)))


def batch():
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
  return {'latents': draw(ROWS, *SHAPE), 'source': draw(ROWS), 'text': draw(ROWS)}


def velocity(x, time, source, text, scale):
  """A velocity in which conditions meet each other, the time and x; numpy or JAX."""
  time, source, text = (array.reshape(-1, 1, 1) for array in (time, source, text))
  return scale * x * time + source * (1 + text) + text**2


def model(calls, scale):
  def predict(x, time, given, drop):
    none = jnp.zeros(len(x), bool)
    seen = [jnp.where(drop.get(name, none), 0.0, given[name]) for name, _ in RANGES]
    calls.append((x, time, given))
    return velocity(x, time, *seen, scale)

  return predict


def run(ranges=RANGES, student=None, key=0):
  distilled = GuidanceDistillation('runs/teacher', ranges)
  objective = make_guidance_distillation(
    distilled, lambda frozen: model([], frozen), sample_time=make_sampler('uniform')
  )
  calls = []
  loss, metrics = objective(student or model(calls, 1.0), batch(), jax.random.key(key), TEACHER)
  return loss, metrics, calls


def test_the_target_is_the_teachers_velocity_guided_by_what_the_student_is_told():
  loss, metrics, calls = run()
  ((x, time, given),) = calls
  x, time = np.asarray(x, np.float64), np.asarray(time, np.float64)
  source, text = (np.asarray(batch()[name], np.float64) for name, _ in RANGES)
  scales = np.asarray(given[SCALES], np.float64)
  none = np.zeros(ROWS)
  passes = [
    velocity(x, time, *seen, TEACHER) for seen in ((none, none), (source, none), (source, text))
  ]
  target = passes[0]
  for place in range(2):
    target = target + scales[:, place, None, None] * (passes[place + 1] - passes[place])
  errors = np.mean((velocity(x, time, source, text, 1.0) - target) ** 2, axis=(1, 2))
  # Some ten roundings of numbers below 100, squared.
  np.testing.assert_allclose(loss, np.mean(errors), rtol=400 * EPS)
  total, count = metrics['loss/time_0_0.25']
  early = time < 0.25
  np.testing.assert_allclose((total, count), (errors[early].sum(), early.sum()), rtol=400 * EPS)


def test_scales_fill_their_ranges_each_by_itself():
  told = np.concatenate([np.asarray(run(key=key)[2][0][2][SCALES]) for key in range(8)])
  assert told.shape == (8 * ROWS, 2)
  for column, (_, (low, high)) in zip(told.T, RANGES, strict=True):
    assert low <= column.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < column.max() <= high
  # 512 pairs of independent draws: four standard errors.
  assert abs(np.corrcoef(told.T)[0, 1]) < 4 / np.sqrt(len(told))


def test_a_student_that_is_the_guided_teacher_has_nothing_to_learn_and_the_teacher_no_gradient():
  def guided(x, time, given, drop):
    del drop
    none = jnp.zeros(len(x))
    seen = lambda *each: velocity(x, time, *each, TEACHER)  # noqa: E731
    first, text = seen(none, none), given['text']
    inner = seen(given['source'], none)
    source, words = (scale.reshape(-1, 1, 1) for scale in given[SCALES].T)
    return first + source * (inner - first) + words * (seen(given['source'], text) - inner)

  loss, *_ = run(student=guided)
  assert loss < 1e4 * EPS**2  # errors are roundings of numbers below 100

  distilled = GuidanceDistillation('runs/teacher', RANGES)
  objective = make_guidance_distillation(
    distilled, lambda frozen: model([], frozen), sample_time=make_sampler('uniform')
  )
  of_the_teacher = jax.grad(
    lambda frozen: objective(model([], 1.0), batch(), jax.random.key(0), frozen)[0]
  )
  assert of_the_teacher(TEACHER) == 0


def test_a_sampler_tells_a_scale_of_every_condition():
  distilled = GuidanceDistillation('runs/teacher', RANGES)
  assert distilled.told((('source', 2.0), ('text', 8.0))) == (2.0, 8.0)
  assert distilled.told((('text', 0.5),)) == (1.0, 0.5)
  assert distilled.told(()) == (1.0, 1.0)


@pytest.mark.parametrize(
  ('guidance', 'said'),
  [
    ((('text', 9.0),), r"guidance of 'text' is 9.0 of a model that learned scales from 0.5 to 8"),
    ((('text', 0.0),), r'learned scales from 0.5 to 8'),
    ((('text', (4.0, (0.0, 0.3))),), r'from 0.5 to 8, each at all times; give one of these'),
    ((('text', 2.0), ('source', 2.0)), r"learned that of \['source', 'text'\] in one pass"),
    ((('identity', 2.0),), r"names \['identity'\] of a model that learned"),
  ],
  ids=['above', 'below', 'interval', 'order', 'name'],
)
def test_scales_that_were_not_learnt_are_one_sentence(guidance, said):
  with pytest.raises(ConfigError, match=said):
    GuidanceDistillation('runs/teacher', RANGES).told(guidance)


def test_ranges_that_hold_nothing_are_errors():
  for ranges, said in (
    ((), 'names no condition'),
    ((('text', (3.0, 6.0)),), 'go from 3 to 6; expected from above 0 and at most 1'),
    ((('text', (0.0, 6.0)),), 'above 0'),
    ((('text', (1.0, 1.0)),), 'to above 1'),
    ((('text', (1.0, 3.0)), ('text', (1.0, 2.0))), 'twice'),
  ):
    with pytest.raises(ConfigError, match=said):
      GuidanceDistillation('runs/teacher', ranges)
