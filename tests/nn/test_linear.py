"""Linear maps: the product, its type, and where the parameters stay."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.derivatives import forward_mode
from mgjax.nn.linear import Linear, lower_products, products
from mgjax.parallel.mesh import make_mesh

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


def lower(kind, x, kernel, axes=('embed', 'hidden')):
  with lower_products(kind):
    return products(x, (kernel,), axes, jnp.float32)[0]


def check_rounding(kind, y, x, kernel):
  """Of y = sum_i x_i w_i with x_i off by e_i and w_i by f_i: sum_i |x_i| f_i + |w_i| e_i + e_i f_i.

  Integers are off by half a step, of which the largest has 127. A float of 3 bits behind the first
  is off by 2^-4 of itself, below 2^-6 by 2^-10; the largest is 448.
  """

  def off(array, axis):
    most = np.abs(array).max(axis, keepdims=True)
    steps = most / 254 if kind == 'int8' else np.abs(array) / 16 + most / 448 / 2**10
    return steps + 4 * EPS * most + 0 * array  # of the scale, the quotient, and both back

  x, kernel = (np.asarray(each, np.float64).reshape(-1, each.shape[-1]) for each in (x, kernel))
  e, f = off(x, 1), off(kernel, 0)
  most = np.abs(x) @ f + e @ np.abs(kernel) + e @ f
  error = np.abs(np.asarray(y, np.float64).reshape(most.shape) - x @ kernel)
  assert (error <= most).all() and error.max() > 0.01 * most.max()


@pytest.mark.parametrize('kind', ['int8', 'fp8'])
def test_products_of_one_byte_a_number_are_off_by_no_more_than_their_rounding(kind):
  numbers = np.random.default_rng(0)
  x = numbers.normal(size=(16, 64)) * 10.0 ** numbers.integers(-6, 6, (16, 1))
  x[0], kernel = 0, numbers.normal(size=(64, 32)) * 10.0 ** numbers.integers(-3, 3, 32)
  x, kernel, dy = jnp.float32(x), jnp.float32(kernel), jnp.float32(numbers.normal(size=(16, 32)))
  check_rounding(kind, lower(kind, x, kernel), x, kernel)
  pull = lambda kind: jax.vjp(functools.partial(lower, kind), x, kernel)[1](dy)  # noqa: E731
  for ours, theirs in zip(pull(kind), pull('dtype'), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  dx, gradient = pull(f'{kind}_both')
  check_rounding(kind, dx, dy, kernel.T)
  check_rounding(kind, gradient, x.T, dy)


@pytest.mark.parametrize('kind', ['int8', 'fp8_both'])
def test_large_maps_alone_are_lower_not_forward_mode_and_the_same_bits_on_a_mesh(kind):
  x, kernel = jax.random.normal(jax.random.key(0), (8, 16, 64)), jnp.eye(64, 128)
  usual, alone = lower('dtype', x, kernel), jax.jit(functools.partial(lower, kind))(x, kernel)
  assert (alone != usual).any()
  np.testing.assert_array_equal(lower(kind, x, kernel, ('frequencies', 'embed')), usual)
  with forward_mode():
    np.testing.assert_array_equal(lower(kind, x, kernel), usual)
  with jax.set_mesh(make_mesh({'fsdp': 4, 'context': 2})):
    np.testing.assert_array_equal(jax.jit(functools.partial(lower, kind))(x, kernel), alone)
