"""Norms against float64, and whom their statistics see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.nn.norm import FrameGroupNorm, LayerNorm, RMSNorm

EPS = np.finfo(np.float32).eps


def apply(model, x, seed=1):
  """Applies a norm with random scale and bias, and returns them too."""
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), x))['params']
  rng = np.random.default_rng(seed)
  params = {name: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for name, p in params.items()}
  exact = {name: np.asarray(p, np.float64) for name, p in params.items()}
  return np.asarray(model.apply({'params': params}, x)), np.asarray(x, np.float64), exact


def close(y, exact, count):
  # The sum of `count` squares rounds as often; the result is a few times that of normals.
  np.testing.assert_allclose(y, exact, atol=(count + 8) * EPS * np.abs(exact).max())


def test_rms_norm_is_its_formula():
  y, x, params = apply(RMSNorm(1e-3), jax.random.normal(jax.random.key(0), (2, 5, 48)))
  exact = params['scale'] * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3)
  close(y, exact, 48)


def test_layer_norm_is_its_formula():
  x = 3 + jax.random.normal(jax.random.key(0), (2, 5, 48))
  y, x, params = apply(LayerNorm(1e-3), x)
  z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
  close(y, params['scale'] * z + params['bias'], 4 * 48)  # the mean of 3 costs two more bits


def test_group_norm_is_its_formula_on_every_frame():
  x = 3 + jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 12))
  y, x, params = apply(FrameGroupNorm(4, 1e-3), x)
  groups = x.reshape(2, 3, 4, 5, 4, 3)
  axes = (2, 3, 5)
  z = (groups - groups.mean(axes, keepdims=True)) / np.sqrt(groups.var(axes, keepdims=True) + 1e-3)
  close(y, params['scale'] * z.reshape(x.shape) + params['bias'], 4 * 4 * 5 * 3)


def test_group_norm_survives_a_large_mean():
  """The variance is a sum of squared differences, not a difference of two large sums."""
  noise = jax.random.normal(jax.random.key(0), (1, 1, 16, 16, 8))
  y, x, params = apply(FrameGroupNorm(2, 0.0), 1000 + noise)
  groups = x.reshape(1, 1, 16, 16, 2, 4)
  z = (groups - groups.mean((2, 3, 5), keepdims=True)) / groups.std((2, 3, 5), keepdims=True)
  # The inputs lie 6e-5 apart, and the mean of 1024 of them is a few such steps off.
  exact = params['scale'] * z.reshape(x.shape) + params['bias']
  np.testing.assert_allclose(y, exact, atol=8 * 1000 * EPS * np.abs(params['scale']).max())


def test_statistics_are_float32_whatever_goes_in():
  x = jnp.full((1, 256), 300.0, jnp.bfloat16)  # squares of it overflow nothing, sums would round
  y = RMSNorm(0.0, jnp.bfloat16).init_with_output(jax.random.key(0), x)[0]
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(y, np.float32), 1.0)
