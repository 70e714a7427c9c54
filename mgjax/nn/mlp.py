"""Feed-forward networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import Kernel, Linear, products

# 'gelu' is the approximation by tanh, as in T5 and DiT; 'quick_gelu' that of OpenAI's CLIP.
ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu': jax.nn.gelu,
  'relu': jax.nn.relu,
  'exact_gelu': functools.partial(jax.nn.gelu, approximate=False),
  'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
}


class GatedMLP(nn.Module):
  """y = (act(x W_gate) * (x W_up)) W_down, no biases; `activation` is one of `ACTIVATIONS`."""

  mlp_dim: int
  dtype: jnp.dtype = jnp.float32
  activation: str = 'silu'

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    axes, shape = ('embed', 'hidden'), (x.shape[-1], self.mlp_dim)
    kernels = [Kernel(shape, axes, name=name)() for name in ('gate', 'up')]
    gate, up = (checkpoint_name(y, 'projections') for y in products(x, kernels, axes, self.dtype))
    down = Linear(x.shape[-1], ('hidden', 'embed'), dtype=self.dtype, name='down')
    return down(ACTIVATIONS[self.activation](gate) * up)


class SwiGLU(GatedMLP):
  """y = (silu(x W_gate) * (x W_up)) W_down, no biases (Movie Gen §3.1.3, as Llama 3)."""


class MLP(nn.Module):
  """y = act(x W_up (+ b)) W_down (+ b); `activation` is one of `ACTIVATIONS`."""

  mlp_dim: int
  dtype: jnp.dtype = jnp.float32
  activation: str = 'gelu'
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    how = {'use_bias': self.use_bias, 'dtype': self.dtype}
    up = Linear(self.mlp_dim, ('embed', 'hidden'), name='up', **how)
    down = Linear(x.shape[-1], ('hidden', 'embed'), name='down', **how)
    return down(ACTIVATIONS[self.activation](checkpoint_name(up(x), 'projections')))


class GeluMLP(MLP):
  """y = gelu(x W_up) W_down, no biases: the feed-forward network of a DiT (Movie Gen §6)."""


FEED_FORWARD: dict[str, type[nn.Module]] = {'swiglu': SwiGLU, 'gelu': GeluMLP}
