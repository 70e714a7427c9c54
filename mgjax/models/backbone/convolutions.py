"""A network of 2.5D convolutions that judges latents under conditions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Float
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.conv import SpatialConv, TemporalConv
from mgjax.nn.linear import Linear


class Convolutions(nn.Module):
  """D(x, ports): a number for each of latents x (b t h w c), from the tokens around it.

  Residual blocks of a spatial and a temporal convolution; the mean of what conditions give to
  cross-attention is added within each, with the vector that they add to the embedding of the time.
  It stands where `Transformer` stands in a `FlowModel`, as the discriminator of
  `flow/distillation/adversarial.py`: that a solid's outline does not close shows in few tokens.

  Attributes:
    dim: channels.
    depth: blocks; a number sees `depth` tokens to each side.
  """

  dim: Positive = 128
  depth: Positive = 4
  patch: tuple[Positive, Positive, Positive] = (1, 1, 1)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t h w c'], time: Float[Array, ' b'], ports: Ports, tap: None = None
  ) -> Float[Array, 'b t h w c']:
    """Returns the logits; `time` and `tap` are ignored."""
    del time, tap
    condition = jnp.zeros((len(x), self.dim), self.dtype)
    if ports.context is not None:
      mask = jnp.ones(ports.context.shape[:2]) if ports.context_mask is None else ports.context_mask
      share = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
      condition += jnp.einsum(
        'bm,bmd->bd', share.astype(self.dtype), ports.context.astype(self.dtype)
      )
    if ports.vector is not None:
      condition += ports.vector.astype(self.dtype)
    h = SpatialConv(self.dim, window=1, dtype=self.dtype, name='into')(x)
    for block in range(self.depth):
      block_condition = Linear(
        self.dim, ('embed', 'channels'), dtype=self.dtype, name=f'said_{block}'
      )(condition)
      r = SpatialConv(self.dim, dtype=self.dtype, name=f'spatial_{block}')(jax.nn.silu(h))
      r = TemporalConv(self.dim, dtype=self.dtype, name=f'temporal_{block}')(r)
      r = jax.nn.silu(r + block_condition[:, None, None, None])
      h += SpatialConv(self.dim, window=1, dtype=self.dtype, name=f'out_{block}')(r)
    return SpatialConv(x.shape[-1], window=1, name='logits')(jax.nn.silu(h))
