"""Feed-forward networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import Linear


class SwiGLU(nn.Module):
  """y = (silu(x W_gate) * (x W_up)) W_down, no biases (Movie Gen §3.1.3, as Llama 3)."""

  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    gate = Linear(self.hidden, ('embed', 'hidden'), dtype=self.dtype, name='gate')(x)
    up = Linear(self.hidden, ('embed', 'hidden'), dtype=self.dtype, name='up')(x)
    gate, up = checkpoint_name(gate, 'projections'), checkpoint_name(up, 'projections')
    down = Linear(x.shape[-1], ('hidden', 'embed'), dtype=self.dtype, name='down')
    return down(jax.nn.silu(gate) * up)
