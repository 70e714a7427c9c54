"""One layer against the same layer written in float64 numpy, cross-attention and mask included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.backbone.block import Block
from tests.oracles.backbone import layer
from tests.random_parameters import random_parameters

ROWS, TOKENS, CONTEXT, DIM, HEADS, HIDDEN = 2, 6, 5, 32, 4, 48
EPSILON = 1e-5
EPS = np.finfo(np.float32).eps
# The longest chain of roundings: three norms over d, four products over d and one over f in a row,
# two attentions over n and m of heads of d / g.
ROUNDINGS = 3 * DIM + 4 * DIM + HIDDEN + TOKENS + CONTEXT + 4 * DIM // HEADS

DIT = {'norm': 'layer', 'bias': True, 'feed_forward': 'silu'}

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


def parameters(inputs, **fields):
  init = lambda key, inputs: Block(HEADS, HIDDEN, **fields).init(key, **inputs)  # noqa: E731
  return random_parameters(init, inputs)


@functools.cache
def program(**fields):
  block = Block(HEADS, HIDDEN, EPSILON, **fields)
  return jax.jit(lambda params, inputs: block.apply({'params': params}, **inputs)[0])


def apply(params, inputs, **fields):
  return program(**fields)(params, inputs)


def twin(params, inputs, **fields):
  """The layer as the report describes it."""
  double = lambda leaf: np.asarray(leaf, np.float64)  # noqa: E731
  params, inputs = jax.tree.map(double, (params, inputs))
  return layer(params, **inputs, fields={'heads': HEADS, 'epsilon': EPSILON, **fields})


def close(ours, exact):
  np.testing.assert_allclose(ours, exact, atol=ROUNDINGS * EPS * np.abs(exact).max())


@pytest.mark.parametrize('attention', ['xla', 'blockwise'])
def test_layer_is_its_formula(attention):
  inputs = data()
  params = parameters(inputs)
  close(apply(params, inputs, attention=attention), twin(params, inputs))


@pytest.mark.parametrize('affine', [True, False])
def test_dit_layer_is_its_formula(affine):
  inputs, fields = data(), DIT | {'affine': affine}
  params = parameters(inputs, **fields)
  exact = twin(params, inputs, **fields)
  close(apply(params, inputs, **fields), exact)
  # The norm is seen; every bias and weight is below.
  assert np.abs(twin(params, inputs, **fields | {'norm': 'rms'}) - exact).max() > 1e-2


def test_a_layer_without_affine_norms_declares_none():
  params = parameters(data(), **DIT, affine=False)
  assert sorted(params) == ['cross_attention', 'feed_forward', 'modulation', 'self_attention']


GATES = {'closed': 0.0, 'half': 0.5, 'open': 1.0}


def gated_group(gate, length=3, seed=5, channels=1):
  rng = np.random.default_rng(seed)
  tokens = rng.normal(size=(ROWS, length, DIM)).astype(np.float32)
  there = np.arange(length)[None] < np.array([[length], [length - 1]])
  return tokens, there, np.full((ROWS, channels), gate, np.float32)


def without_context():
  return data() | {'context': None, 'context_mask': None}


@pytest.mark.parametrize('start', [data, without_context], ids=['context', 'no_context'])
@pytest.mark.parametrize('gate', GATES.values(), ids=GATES)
def test_gated_context_is_its_formula(start, gate):
  groups = [gated_group(gate), gated_group(-0.3, length=2, seed=6, channels=DIM)]
  inputs = start() | {'gated': groups}
  params = parameters(inputs, **DIT)
  close(apply(params, inputs, **DIT), twin(params, inputs, **DIT))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_a_closed_gate_is_no_group_bit_for_bit(dtype):
  inputs = data()
  params = parameters(inputs)
  y = apply(params, inputs, dtype=dtype)
  np.testing.assert_array_equal(
    apply(params, inputs | {'gated': [gated_group(0.0)]}, dtype=dtype), y
  )
  assert (apply(params, inputs | {'gated': [gated_group(0.1)]}, dtype=dtype) != y).any()


@pytest.mark.parametrize('start', [data, without_context], ids=['context', 'no_context'])
def test_a_closed_gate_learns(start):
  """Its gradient is <dy, o([C; G]) - o(C)>, by finite differences of the twin."""
  inputs, step = start(), 1e-4
  params = parameters(inputs | {'gated': [gated_group(0.0)]})

  def total(gate):
    given = jax.tree.map(jnp.asarray, inputs | {'gated': [(*gated_group(0.0)[:2], gate)]})
    return jnp.sum(apply(params, given))

  gradient = np.asarray(jax.jit(jax.grad(total))(jnp.zeros((ROWS, 1))))[:, 0]
  # A row's output depends on its own gate alone; the error of a central difference is of step^2.
  ends = [twin(params, inputs | {'gated': [gated_group(g)]}).sum((1, 2)) for g in (step, -step)]
  difference = (ends[0] - ends[1]) / (2 * step)
  assert np.abs(difference).min() > 1e-2
  np.testing.assert_allclose(gradient, difference, rtol=1e-3)


def test_layer_without_context_has_no_cross_attention():
  inputs = data() | {'context': None, 'context_mask': None}
  params = parameters(inputs)
  assert not [name for name in params if name.startswith('cross')]
  close(apply(params, inputs), twin(params, inputs))


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
