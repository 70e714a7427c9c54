"""One layer of the backbone (Movie Gen §3.1.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.backbone.modulation import modulate
from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.linear import ZEROS, parameter
from mgjax.nn.mlp import FEED_FORWARD
from mgjax.nn.multihead import MultiHeadAttention
from mgjax.nn.norm import RMSNorm
from mgjax.parallel.rules import place_tokens


class Block(nn.Module):
  """The Llama 3 block with three changes: cross-attention, adaptive norms, no causal mask.

  x <- x + phi
  x <- x + gate_a * SelfAttention(modulate(RMSNorm(x), shift_a, scale_a))
  x <- x + CrossAttention(RMSNorm(x), context)
  x <- x + gate_f * SwiGLU(modulate(RMSNorm(x), shift_f, scale_f))

  where phi are the positions and shift, scale, gate = shared modulation + this layer's table. With
  `feed_forward` 'gelu' the last line has the two matrices of a DiT instead (Movie Gen §6).
  """

  heads: int
  mlp_dim: int
  epsilon: float = 1e-5
  attention: str = 'auto'
  exchange: str = 'auto'
  feed_forward: str = 'swiglu'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    modulation: Float[Array, 'b 6 d'],
    positions: Float[Array, '_b n d'],
    context: Float[Array, 'b m d'] | None,
    context_mask: Bool[Array, 'b m'] | None,
    valid: Bool[Array, 'b n'] | None = None,
  ) -> tuple[Float[Array, 'b n d'], None]:
    dim = x.shape[-1]
    table = parameter(self, 'modulation', ZEROS, ('modulation', 'embed'), (6, dim))
    modulation = modulation + table[None].astype(self.dtype)
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = jnp.split(modulation, 6, axis=1)

    def norm(name: str) -> nn.Module:
      return RMSNorm(self.epsilon, self.dtype, name=name)

    def multihead(name: str) -> nn.Module:
      fields = (self.attention, self.exchange, self.dtype)
      return MultiHeadAttention(self.heads, dim // self.heads, *fields, name=name)

    x = checkpoint_name(x, 'inputs') + positions.astype(x.dtype)
    y = modulate(norm('self_norm')(x), shift_a, scale_a)
    x = x + gate_a * multihead('self_attention')(y, mask=valid)
    if context is not None:
      y = norm('cross_norm')(x)
      x = x + multihead('cross_attention')(y, context, context_mask)
    y = modulate(norm('feed_norm')(x), shift_f, scale_f)
    feed = FEED_FORWARD[self.feed_forward]
    x = x + gate_f * feed(self.mlp_dim, self.dtype, name='feed_forward')(y)
    return place_tokens(x), None
