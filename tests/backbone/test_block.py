"""One layer against the same layer written in float64 numpy, cross-attention and mask included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.backbone.block import Block
from tests.oracles.backbone import layer
from tests.random_parameters import random_parameters

ROWS, TOKENS, CONTEXT, DIM, HEADS, HIDDEN = 2, 6, 5, 32, 4, 48
EPSILON = 1e-5
EPS = np.finfo(np.float32).eps
# The longest chain of roundings: three norms over d, four products over d and one over f in a row,
# two attentions over n and m of heads of d / g.
ROUNDINGS = 3 * DIM + 4 * DIM + HIDDEN + TOKENS + CONTEXT + 4 * DIM // HEADS

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], bool)


def data():
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
  return {
    'x': draw(ROWS, TOKENS, DIM),
    'modulation': draw(ROWS, 6, DIM),
    'positions': draw(1, TOKENS, DIM),
    'context': draw(ROWS, CONTEXT, DIM),
    'context_mask': MASK,
  }


def parameters(inputs):
  init = lambda key, inputs: Block(HEADS, HIDDEN).init(key, **inputs)  # noqa: E731
  return random_parameters(init, inputs)


@functools.partial(jax.jit, static_argnames=('attention', 'dtype'))
def apply(params, inputs, attention='auto', dtype=jnp.float32):
  block = Block(HEADS, HIDDEN, EPSILON, attention, dtype=dtype)
  return block.apply({'params': params}, **inputs)[0]


def twin(params, **inputs):
  """The layer as the report describes it."""
  double = lambda leaf: np.asarray(leaf, np.float64)  # noqa: E731
  some = {name: double(array) for name, array in inputs.items() if array is not None}
  given = {'context': None, 'context_mask': None, **some}
  return layer(jax.tree.map(double, params), **given, heads=HEADS, epsilon=EPSILON)


@pytest.mark.parametrize('attention', ['xla', 'blockwise'])
def test_layer_is_its_formula(attention):
  inputs = data()
  params = parameters(inputs)
  exact = twin(params, **inputs)
  y = apply(params, inputs, attention)
  np.testing.assert_allclose(y, exact, atol=ROUNDINGS * EPS * np.abs(exact).max())


def test_layer_without_context_has_no_cross_attention():
  inputs = data() | {'context': None, 'context_mask': None}
  params = parameters(inputs)
  assert not [name for name in params if name.startswith('cross')]
  exact = twin(params, **inputs)
  y = apply(params, inputs)
  np.testing.assert_allclose(y, exact, atol=ROUNDINGS * EPS * np.abs(exact).max())


def test_bfloat16_stays_near_float32():
  """Four inputs, eleven matrices and about two dozen results are rounded to 8 bits, either way.

  Forty errors of at most 2^-8 each add like their square root.
  """
  inputs = data()
  params = parameters(inputs)
  exact = apply(params, inputs)
  low = {name: a if name == 'context_mask' else jnp.bfloat16(a) for name, a in inputs.items()}
  y = apply(params, low, dtype=jnp.bfloat16)
  assert y.dtype == jnp.bfloat16
  error = np.asarray(y, np.float32) - exact
  assert 0 < rms(error) < np.sqrt(40) * 2**-8 * rms(exact)


def rms(a):
  return np.sqrt(np.mean(np.square(a)))


def test_masked_context_is_not_read():
  inputs = data()
  params = parameters(inputs)
  other = np.where(MASK[..., None], inputs['context'], np.float32(1e3))
  again = apply(params, inputs | {'context': other})
  np.testing.assert_array_equal(again, apply(params, inputs))


def test_zero_context_without_a_mask_is_not_neutral():
  """Why ports have masks: a zero key takes its share of the softmax."""
  inputs = data()
  params = parameters(inputs)
  context = np.pad(inputs['context'], ((0, 0), (0, 3), (0, 0)))
  y, masked, unmasked = (
    apply(params, inputs | case)
    for case in (
      {},
      {'context': context, 'context_mask': np.pad(MASK, ((0, 0), (0, 3)))},
      {'context': context, 'context_mask': np.pad(MASK, ((0, 0), (0, 3)), constant_values=True)},
    )
  )
  np.testing.assert_allclose(masked, y, atol=ROUNDINGS * EPS * np.abs(y).max())
  assert np.abs(unmasked - y).max() > 1e-2
