"""Feed-forward networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import Linear, Map, linears

# 'gelu' is the approximation by tanh, as in T5 and DiT; 'quick_gelu' that of OpenAI's CLIP.
ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu': jax.nn.gelu,
  'relu': jax.nn.relu,
  'exact_gelu': functools.partial(jax.nn.gelu, approximate=False),
  'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
}


class GatedMLP(nn.Module):
  """y = (act(x W_gate) * (x W_up)) W_down, each product (+ b); `activation` of `ACTIVATIONS`."""

  mlp_dim: int
  dtype: jnp.dtype = jnp.float32
  activation: str = 'silu'
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    axes = ('embed', 'hidden')
    shape = (x.shape[-1], self.mlp_dim)
    maps = [Map(shape, axes, self.use_bias, name=name)() for name in ('gate', 'up')]
    gate, up = (checkpoint_name(y, 'projections') for y in linears(x, maps, axes, self.dtype))
    down = Linear(x.shape[-1], ('hidden', 'embed'), self.use_bias, dtype=self.dtype, name='down')
    return down(ACTIVATIONS[self.activation](gate) * up)


class SwiGLU(GatedMLP):
  """y = (silu(x W_gate) * (x W_up)) W_down (Movie Gen §3.1.3, as Llama 3)."""


class MLP(nn.Module):
  """y = act(x W_up (+ b)) W_down (+ b); `activation` is one of `ACTIVATIONS`."""

  mlp_dim: int
  dtype: jnp.dtype = jnp.float32
  activation: str = 'gelu'
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    options = {'use_bias': self.use_bias, 'dtype': self.dtype}
    up = Linear(self.mlp_dim, ('embed', 'hidden'), name='up', **options)
    down = Linear(x.shape[-1], ('hidden', 'embed'), name='down', **options)
    return down(ACTIVATIONS[self.activation](checkpoint_name(up(x), 'projections')))


class GeluMLP(MLP):
  """y = gelu(x W_up (+ b)) W_down (+ b), as the published DiT."""


class SiluMLP(MLP):
  """y = silu(x W_up (+ b)) W_down (+ b), as the DiT that the Movie Gen paper ablates (Table 9)."""

  activation: str = 'silu'


FEED_FORWARD: dict[str, type[nn.Module]] = {'swiglu': SwiGLU, 'gelu': GeluMLP, 'silu': SiluMLP}
