"""Multi-head attention with its four projections, no biases."""

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.attention import attend
from mgjax.nn.linear import Kernel, Linear, products

FEW_KEYS = {'exchange': 'gather', 'saved_as': 'projections'}


class MultiHeadAttention(nn.Module):
  """softmax(Q K^T / sqrt(k)) V over full, bidirectional sequences (Movie Gen §3.1.3).

  Reads from `x` itself, or from `context` when it is given. Multi-head, not grouped-query: the
  report keeps one key and value a head.
  """

  heads: int
  head_size: int
  impl: str = 'auto'
  exchange: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    context: Float[Array, 'b m e'] | None = None,
    mask: Bool[Array, 'b m'] | None = None,
  ) -> Float[Array, 'b n d']:
    width = self.heads * self.head_size
    if context is None:
      query, key, value = self._project(x, 'query', 'key', 'value')
    else:
      (query,) = self._project(x, 'query')
      key, value = self._project(context, 'key', 'value')
    # Few keys: text is gathered whole, queries stay where they are, and the result is as cheap to
    # compute again as a projection.
    how = {'exchange': self.exchange} if context is None else FEW_KEYS
    y = attend(query, key, value, mask=mask, impl=self.impl, **how)
    y = y.reshape(*y.shape[:2], width)
    return Linear(x.shape[-1], ('heads', 'embed'), dtype=self.dtype, name='out')(y)

  def _project(self, x: Float[Array, 'b n d'], *names: str) -> list[Float[Array, 'b n g k']]:
    axes, shape = ('embed', 'heads'), (x.shape[-1], self.heads * self.head_size)
    kernels = [Kernel(shape, axes, name=name)() for name in names]
    ys = products(x, kernels, axes, self.dtype)  # `attend` names them
    return [y.reshape(*y.shape[:2], self.heads, self.head_size) for y in ys]
