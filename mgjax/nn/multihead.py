"""Multi-head attention with its four projections, no biases."""

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.attention import attend
from mgjax.nn.linear import Linear


class MultiHeadAttention(nn.Module):
  """softmax(Q K^T / sqrt(k)) V over full, bidirectional sequences (Movie Gen §3.1.3).

  Reads from `x` itself, or from `context` when it is given. Multi-head, not grouped-query: the
  report keeps one key and value a head.
  """

  heads: int
  head_size: int
  impl: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    context: Float[Array, 'b m e'] | None = None,
    mask: Bool[Array, 'b m'] | None = None,
  ) -> Float[Array, 'b n d']:
    width = self.heads * self.head_size
    source = x if context is None else context

    def project(name: str, value: Array) -> Array:
      y = Linear(width, ('embed', 'heads'), dtype=self.dtype, name=name)(value)
      y = checkpoint_name(y, 'projections')
      return y.reshape(*y.shape[:2], self.heads, self.head_size)

    query, key, value = project('query', x), project('key', source), project('value', source)
    y = attend(query, key, value, mask=mask, impl=self.impl)
    y = y.reshape(*y.shape[:2], width)
    return Linear(x.shape[-1], ('heads', 'embed'), dtype=self.dtype, name='out')(y)
