"""Feed-forward networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import Kernel, Linear, products


class SwiGLU(nn.Module):
  """y = (silu(x W_gate) * (x W_up)) W_down, no biases (Movie Gen §3.1.3, as Llama 3)."""

  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    axes, shape = ('embed', 'hidden'), (x.shape[-1], self.hidden)
    kernels = [Kernel(shape, axes, name=name)() for name in ('gate', 'up')]
    gate, up = (checkpoint_name(y, 'projections') for y in products(x, kernels, axes, self.dtype))
    down = Linear(x.shape[-1], ('hidden', 'embed'), dtype=self.dtype, name='down')
    return down(jax.nn.silu(gate) * up)


class GeluMLP(nn.Module):
  """y = gelu(x W_up) W_down, no biases: the feed-forward network of a DiT (Movie Gen §6)."""

  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    up = Linear(self.hidden, ('embed', 'hidden'), dtype=self.dtype, name='up')
    down = Linear(x.shape[-1], ('hidden', 'embed'), dtype=self.dtype, name='down')
    return down(jax.nn.gelu(checkpoint_name(up(x), 'projections')))


FEED_FORWARD: dict[str, type[nn.Module]] = {'swiglu': SwiGLU, 'gelu': GeluMLP}
