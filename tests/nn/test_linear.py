"""Linear maps: the product, its type, and where the parameters stay."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.nn.linear import Linear

EPS = np.finfo(np.float32).eps


def test_product_with_bias_is_numpys():
  x = jax.random.normal(jax.random.key(0), (2, 3, 32))
  model = Linear(16, ('embed', 'hidden'), use_bias=True)
  params = nn.unbox(model.init_with_output(jax.random.key(1), x)[1])['params']
  params['bias'] = jnp.arange(16.0)
  exact = np.asarray(x, np.float64) @ np.asarray(params['kernel'], np.float64) + np.arange(16)
  # One rounding a term of the sum, of numbers below 16.
  np.testing.assert_allclose(model.apply({'params': params}, x), exact, atol=33 * EPS * 16)


@pytest.mark.parametrize(('inputs', 'outputs'), [(8, 24), (24, 8)])
def test_gradients_of_a_product_are_those_of_float64(inputs, outputs):
  """The narrower of x and dy is transposed, which of both depends on their widths."""
  keys = jax.random.split(jax.random.key(0), 3)
  x, dy = (jax.random.normal(k, (2, 5, n)) for k, n in zip(keys, (inputs, outputs), strict=False))
  model = Linear(outputs, ('embed', 'hidden'))
  params = nn.unbox(model.init_with_output(keys[2], x)[1])['params']
  _, pull = jax.vjp(lambda params, x: model.apply({'params': params}, x), params, x)
  (gradient, dx), kernel = pull(dy), np.asarray(params['kernel'], np.float64)
  wide, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
  # One rounding a term of at most 24, of numbers below 4 x 4.
  close = functools.partial(np.testing.assert_allclose, atol=25 * EPS * 16)
  close(gradient['kernel'], np.einsum('bni,bno->io', wide, dy))
  close(dx, dy @ kernel.T)


def test_computes_in_its_type_and_keeps_float32_parameters():
  x = jnp.ones((2, 8))
  model = Linear(4, ('embed', 'hidden'), dtype=jnp.bfloat16)
  y, variables = model.init_with_output(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16
  box = variables['params']['kernel']
  assert box.value.dtype == jnp.float32
  assert box.names == ('embed', 'hidden')
  assert set(variables['params']) == {'kernel'}  # no bias unless asked for


def test_start_keeps_the_size_of_activations_at_every_width():
  for width in (64, 1024):
    x = jax.random.normal(jax.random.key(0), (512, width))
    y, _ = Linear(64, ('embed', 'hidden')).init_with_output(jax.random.key(1), x)
    assert 0.9 < float(jnp.std(y)) < 1.1
