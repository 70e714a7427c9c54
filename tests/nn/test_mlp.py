"""SwiGLU is its formula."""

import flax.linen as nn
import jax
import numpy as np

from mgjax.nn.mlp import SwiGLU

EPS = np.finfo(np.float32).eps


def test_values_are_the_formula():
  x = jax.random.normal(jax.random.key(0), (2, 5, 32))
  model = SwiGLU(48)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(1), x))['params']
  gate, up, down = (np.asarray(params[k]['kernel'], np.float64) for k in ('gate', 'up', 'down'))
  z = np.asarray(x, np.float64)
  exact = (z @ gate / (1 + np.exp(-(z @ gate))) * (z @ up)) @ down
  # 32 + 48 additions and a few products of numbers below 8.
  np.testing.assert_allclose(model.apply({'params': params}, x), exact, atol=100 * EPS * 8)
  assert {name: set(leaves) for name, leaves in params.items()} == {
    name: {'kernel'} for name in ('gate', 'up', 'down')
  }  # no biases
