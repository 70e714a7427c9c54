"""Guidance equals its formula, whichever terms it leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    calls.append((x.shape, {name: np.asarray(mask) for name, mask in drop.items()}))
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


@pytest.mark.parametrize('scale', [0.0, 0.5, 1.0, 7.5])
def test_one_condition_is_classifier_free_guidance(scale):
  x, time, batch = _inputs()
  null, conditional = _one(x, time, batch, text=True), _one(x, time, batch)
  velocity = guidance.make_guided(_model([]), batch, {'text': scale})
  _close(velocity(x, time), null + scale * (conditional - null), [scale])


@pytest.mark.parametrize('first', [0.0, 1.0, 1.5, 3.0])
@pytest.mark.parametrize('second', [0.0, 1.0, 1.5, 7.5])
def test_two_conditions_are_nested_in_order(first, second):
  x, time, batch = _inputs()
  for names in (NAMES, NAMES[::-1]):
    null = _one(x, time, batch, **{names[0]: True, names[1]: True})
    outer = _one(x, time, batch, **{names[1]: True})
    both = _one(x, time, batch)
    scales = dict(zip(names, (first, second), strict=True))
    actual = guidance.make_guided(_model([]), batch, scales)(x, time)
    expected = null + first * (outer - null) + second * (both - outer)
    _close(actual, expected, scales.values())
    pairs = guidance.make_guided(_model([]), batch, scales.items())(x, time)
    np.testing.assert_array_equal(actual, pairs)


def test_scale_one_is_conditional_and_scale_zero_unconditional():
  x, time, batch = _inputs()
  for scale in (0.0, 1.0):
    velocity = guidance.make_guided(_model([]), batch, {'text': scale})
    expected = _one(x, time, batch, text=scale == 0)
    np.testing.assert_array_equal(velocity(x, time), expected.astype(np.float32))


@pytest.mark.parametrize(
  ('scales', 'passes'),
  [
    ({}, 1),
    ({'text': 1.0}, 1),
    ({'text': 0.0}, 1),
    ({'text': 7.5}, 2),
    ({'source': 1.0, 'text': 1.0}, 1),
    ({'source': 1.5, 'text': 7.5}, 3),
    ({'source': 3.0, 'text': 3.0}, 2),
    ({'source': 1.0, 'text': 7.5}, 2),
  ],
)
def test_one_call_computes_only_the_terms_that_count(scales, passes):
  x, time, batch = _inputs()
  calls = []
  guidance.make_guided(_model(calls), batch, scales)(x, time)
  assert len(calls) == 1
  shape, drop = calls[0]
  assert shape == (passes * ROWS, 2, 4)
  assert set(drop) == set(scales)
  assert all(mask.shape == (passes * ROWS,) for mask in drop.values())


def test_bfloat16_terms_are_combined_in_float32():
  x, time, batch = _inputs()
  terms = {}

  def predict(x, time, batch, drop):
    value = jnp.where(drop['text'], 1.0, 1.0078125)[:, None, None]  # neighbours in bfloat16
    terms['dtype'] = x.dtype
    return jnp.broadcast_to(value, x.shape).astype(jnp.bfloat16)

  guided = guidance.make_guided(predict, batch, {'text': 7.5})(x, time)
  assert guided.dtype == jnp.float32 and terms['dtype'] == jnp.float32
  np.testing.assert_array_equal(guided, np.full(x.shape, 1 + 7.5 * 2**-7, np.float32))


def test_guided_velocity_compiles():
  x, time, batch = _inputs()

  def run(x, time, batch):
    return guidance.make_guided(predict, batch, {'source': 1.5, 'text': 7.5})(x, time)

  def predict(x, time, batch, drop):
    return x + time[:, None, None] * jnp.where(drop['text'][:, None], 0.0, batch['text'])[:, None]

  np.testing.assert_allclose(
    jax.jit(run)(x, time, batch), run(x, time, batch), atol=8 * EPS * 20 * np.abs(x).max()
  )


def test_stacking_moves_no_row_to_another_device():
  kinds = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((8,), ('data',), axis_types=kinds, devices=jax.devices('cpu')[:8])
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))

  def predict(x, time, batch, drop):
    condition = jnp.where(drop['text'][:, None], 0.0, batch['text'])
    return (x + time[:, None]) * condition

  def run(x, time, batch):
    return guidance.make_guided(predict, batch, {'text': 7.5})(x, time)

  inputs = (jnp.ones((16, 4)), jnp.ones(16), {'text': jnp.ones((16, 4))})
  program = jax.jit(run, in_shardings=rows, out_shardings=rows).lower(*inputs).compile().as_text()
  moves = ('all-gather', 'all-to-all', 'all-reduce', 'collective-permute')
  assert not [move for move in moves if move in program]
