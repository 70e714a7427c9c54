"""Guidance equals its formula, whichever terms it leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow import guidance

ROWS, EPS = 3, np.finfo(np.float32).eps
NAMES = ('source', 'text')


def _inputs():
  random = np.random.default_rng(0)
  x = jnp.asarray(random.normal(size=(ROWS, 2, 4)), jnp.float32)
  time = jnp.array([0.1, 0.5, 0.9])
  batch = {name: jnp.asarray(random.normal(size=(ROWS, 4)), jnp.float32) for name in NAMES}
  return x, time, batch


def _model(calls):
  """Returns a model with interacting conditions that keeps the shapes and masks of its calls."""

  def predict(x, time, batch, drop):
    calls.append((x.shape, dict(drop)))
    rows = jnp.zeros(x.shape[0], bool)
    seen = {
      name: jnp.where(drop.get(name, rows)[:, None], 0.0, batch[name])[:, None] for name in NAMES
    }
    return jnp.sin(x + time[:, None, None] + 2 * seen['source'] + seen['source'] * seen['text'])

  return predict


def _one(x, time, batch, **dropped):
  """Returns a velocity of the model in a call of its own."""
  drop = {name: jnp.full(ROWS, dropped.get(name, False)) for name in NAMES}
  return np.asarray(_model([])(x, time, batch, drop), np.float64)


def _close(actual, expected, scales):
  # |v| <= 1: each term is a difference of two, times its scale, and a sine rounds a few times.
  np.testing.assert_allclose(actual, expected, atol=8 * EPS * (1 + 2 * sum(map(abs, scales))))


def _combined(x, time, batch, *terms):
  """sum_i weight_i v(the conditions that are kept), each velocity in a call of its own.

  `terms` are pairs of a weight, a number or one a row, and the names that are kept.
  """
  total = 0.0
  for weight, kept in terms:
    value = _one(x, time, batch, **{name: name not in kept for name in NAMES})
    total += np.reshape(np.broadcast_to(weight, ROWS), (ROWS, 1, 1)) * value
  return total


@pytest.mark.parametrize('scale', [0.0, 0.5, 1.0, 7.5])
def test_one_condition_is_classifier_free_guidance(scale):
  x, time, batch = _inputs()
  velocity = guidance.make_guided(_model([]), batch, (('text', scale),))
  both = ('source', 'text')  # what is not guided is never dropped
  expected = _combined(x, time, batch, (1 - scale, ['source']), (scale, both))
  _close(velocity(x, time), expected, [scale])


@pytest.mark.parametrize('first', [1.0, 1.5, 3.0])
@pytest.mark.parametrize('second', [0.0, 1.0, 1.5, 7.5])
@pytest.mark.parametrize('names', [NAMES, NAMES[::-1]])
def test_two_conditions_are_nested_in_order(first, second, names):
  x, time, batch = _inputs()
  pairs = tuple(zip(names, (first, second), strict=True))
  actual = guidance.make_guided(_model([]), batch, pairs)(x, time)
  terms = (1 - first, []), (first - second, names[:1]), (second, names)
  _close(actual, _combined(x, time, batch, *terms), [first, second])


def test_emu_edit_never_drops_its_task():
  # arXiv 2311.10089 guides the picture and the instruction; the task is seen in every term.
  x, time, batch = _inputs()
  batch['task'] = jnp.linspace(-1, 1, ROWS * 4).reshape(ROWS, 4)
  plain = _model([])

  def predict(x, time, batch, drop):
    assert set(drop) == {'source', 'text'}
    return plain(x, time, batch, drop) + jnp.cos(batch['task'])[:, None]

  actual = guidance.make_guided(predict, batch, (('source', 1.5), ('text', 7.5)))(x, time)
  task = np.cos(np.asarray(batch['task'], np.float64))[:, None]
  terms = (1 - 1.5, []), (1.5 - 7.5, ['source']), (7.5, NAMES)
  _close(actual, _combined(x, time, batch, *terms) + task, [3.0, 15.0])


@pytest.mark.parametrize('source', [1.5, (2.0, (0.0, 0.5))])
def test_a_scale_may_hold_in_an_interval_of_time_alone(source):
  # arXiv 2404.07724: the scale inside [low, high), 1 outside; rows may stand at other times.
  x, time, batch = _inputs()  # at .1, .5 and .9
  pairs = (('source', source), ('text', (7.5, (0.3, 0.9))))
  velocity = guidance.make_guided(_model([]), batch, pairs)
  first = np.array([source[0], 1, 1]) if isinstance(source, tuple) else np.full(ROWS, source)
  second = np.array([1, 7.5, 1])
  terms = (1 - first, []), (first - second, ['source']), (second, NAMES)
  _close(velocity(x, time), _combined(x, time, batch, *terms), [1.5, 7.5])
  np.testing.assert_allclose(
    jax.jit(velocity)(x, time), velocity(x, time), atol=8 * EPS * (1 + 2 * 9.0)
  )


def test_each_of_two_experts_may_have_a_scale_of_its_own():
  x, time, batch = _inputs()  # at .1, .5 and .9
  scale = (4.0, (0.0, 0.5)), (3.0, (0.5, 1.0))
  velocity = guidance.make_guided(_model([]), batch, (('text', scale),))
  scales = np.array([4.0, 3.0, 3.0])
  terms = (1 - scales, ['source']), (scales, NAMES)
  _close(jax.jit(velocity)(x, time), _combined(x, time, batch, *terms), [4.0])
  with pytest.raises(ConfigError, match=r'two scales from 0\.4 to 0\.5'):
    guidance.check_guidance((('text', ((4.0, (0.0, 0.5)), (3.0, (0.4, 1.0)))),))


def test_outside_of_an_interval_only_the_conditional_pass_is_computed():
  x, _, batch = _inputs()
  calls = []
  velocity = guidance.make_guided(_model(calls), batch, (('text', (7.5, (0.25, 0.75))),))
  with jax.disable_jit():  # so that `cond` calls the branch that it takes
    for time, passes in ((0.0, 1), (0.25, 2), (0.5, 2), (0.75, 1), (1.0, 1)):
      calls.clear()
      velocity(x, jnp.full(ROWS, time))
      assert [shape for shape, _ in calls] == [(passes * ROWS, 2, 4)], time


def test_scale_one_is_conditional_and_scale_zero_unconditional():
  x, time, batch = _inputs()
  for scale in (0.0, 1.0):
    velocity = guidance.make_guided(_model([]), batch, (('text', scale),))
    expected = _one(x, time, batch, text=scale == 0)
    np.testing.assert_array_equal(velocity(x, time), expected.astype(np.float32))


def test_a_zero_at_the_end_drops_its_condition_from_every_term():
  x, time, batch = _inputs()
  batch['source'] = jnp.full((ROWS, 4), jnp.nan)
  velocity = guidance.make_guided(_model([]), batch, (('text', 3.0), ('source', 0.0)))
  assert np.isfinite(velocity(x, time)).all()


@pytest.mark.parametrize(
  ('pairs', 'said'),
  [
    ((('source', 0.0), ('text', 1.0)), "'source' is 0, but 'text' .* put 'source' last to drop it"),
    ((('source', (0.0, (0.2, 0.4))), ('text', 2.0)), "'source' is 0, but 'text' after it has 2"),
    ((('text', 1.0), ('text', 2.0)), "names 'text' twice"),
    ((('text', (2.0, (0.6, 0.2))),), r'holds from 0\.6 to 0\.2, at no time'),
  ],
)
def test_scales_that_do_not_go_together_are_refused(pairs, said):
  with pytest.raises(ConfigError, match=said):
    guidance.make_guided(_model([]), {}, pairs)


ONE, OTHER = (jnp.full(ROWS, 3.0) for _ in range(2))  # scales that a program does not know


@pytest.mark.parametrize(
  ('pairs', 'passes'),
  [
    ((('source', ONE), ('text', OTHER)), 3),
    ((('source', ONE), ('text', ONE)), 2),
    ((), 1),
    ((('text', 1.0),), 1),
    ((('text', 0.0),), 1),
    ((('text', 7.5),), 2),
    ((('source', 1.0), ('text', 1.0)), 1),
    ((('source', 1.5), ('text', 7.5)), 3),
    ((('source', 3.0), ('text', 3.0)), 2),
    ((('source', 1.0), ('text', 7.5)), 2),
    ((('source', 4.0), ('text', 0.0)), 2),
  ],
)
def test_one_call_computes_only_the_terms_that_count(pairs, passes):
  x, time, batch = _inputs()
  calls = []
  guidance.make_guided(_model(calls), batch, pairs)(x, time)
  assert len(calls) == 1
  shape, drop = calls[0]
  assert shape == (passes * ROWS, 2, 4)
  assert set(drop) == {name for name, _ in pairs}
  assert all(mask.shape == (passes * ROWS,) for mask in drop.values())


def test_bfloat16_terms_are_combined_in_float32():
  x, time, batch = _inputs()
  terms = {}

  def predict(x, time, batch, drop):
    value = jnp.where(drop['text'], 1.0, 1.0078125)[:, None, None]  # neighbours in bfloat16
    terms['dtype'] = x.dtype
    return jnp.broadcast_to(value, x.shape).astype(jnp.bfloat16)

  guided = guidance.make_guided(predict, batch, (('text', 7.5),))(x, time)
  assert guided.dtype == jnp.float32 and terms['dtype'] == jnp.float32
  np.testing.assert_array_equal(guided, np.full(x.shape, 1 + 7.5 * 2**-7, np.float32))


def test_stacking_moves_no_row_to_another_device():
  kinds = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((8,), ('data',), axis_types=kinds, devices=jax.devices('cpu')[:8])
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))

  def predict(x, time, batch, drop):
    condition = jnp.where(drop['text'][:, None], 0.0, batch['text'])
    return (x + time[:, None]) * condition

  def run(x, time, batch):
    return guidance.make_guided(predict, batch, (('text', 7.5),))(x, time)

  inputs = (jnp.ones((16, 4)), jnp.ones(16), {'text': jnp.ones((16, 4))})
  program = jax.jit(run, in_shardings=rows, out_shardings=rows).lower(*inputs).compile().as_text()
  moves = ('all-gather', 'all-to-all', 'all-reduce', 'collective-permute')
  assert not [move for move in moves if move in program]


@pytest.mark.parametrize('scale', [0.0, 2.0, 7.5, (3.0, (0.2, 0.8))])
def test_guidance_leads_away_from_a_negative_condition(scale):
  x, time, batch = _inputs()
  negative = {'text': {'text': -batch['text'] + 0.5}}
  calls = []
  velocity = guidance.make_guided(
    _model(calls), batch, (('source', 1.0), ('text', scale)), negative=negative
  )
  away = _one(x, time, batch | negative['text'])
  value = np.reshape([guidance._scale_at(scale, t) for t in (0.1, 0.5, 0.9)], (ROWS, 1, 1))
  expected = away + value * (_one(x, time, batch) - away)
  _close(velocity(x, time), expected, [7.5])
