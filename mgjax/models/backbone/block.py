"""One layer of the backbone (Movie Gen §3.1.3, Table 9)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.typing import Array, Bool, Float
from mgjax.models.backbone.modulation import modulate
from mgjax.nn.depthwise import Depthwise
from mgjax.nn.kernels.tiles import Tiles
from mgjax.nn.linear import ZEROS, parameter
from mgjax.nn.mlp import FEED_FORWARD
from mgjax.nn.multihead import Gated, MultiHeadAttention
from mgjax.nn.norm import NORMS
from mgjax.nn.patch import Patch
from mgjax.parallel.rules import place_tokens


class Block(nn.Module):
  """The Llama 3 block with three changes: cross-attention, adaptive norms, no causal mask.

  x <- x + phi
  x <- x + gate_a * SelfAttention(modulate(RMSNorm(x), shift_a, scale_a))
  x <- x + CrossAttention(RMSNorm(x), context)
  x <- x + gate_f * SwiGLU(modulate(RMSNorm(x), shift_f, scale_f))

  where phi are the positions and shift, scale, gate = shared modulation + this layer's table.

  The DiT block is the paper's other arm (Table 9) and its audio model (§6). It differs in four
  fields: `norm` is 'layer' and not `affine`, `bias` is in every linear map of attention and
  feed-forward network, and `feed_forward` has two matrices, with 'silu' or 'gelu'.

  With `depthwise` what self-attention and the feed-forward network read is first convolved.

  Attributes:
    mlp_dim: FFN width f.
    feed_forward: a name in `nn.mlp.FEED_FORWARD`.
    norm: a name in `nn.norm.NORMS`.
    affine: whether norms have weights (and biases) of their own beside the modulation's.
    bias: whether the linear maps of attention and feed-forward network have biases.
    depthwise: the grid of tokens along t, h, w that is convolved; None convolves nothing.
    tiles: of the tokens, of which each reads a window alone; None reads all.
  """

  heads: int
  mlp_dim: int
  epsilon: float = 1e-5
  attention: str = 'auto'
  exchange: str = 'auto'
  feed_forward: str = 'swiglu'
  norm: str = 'rms'
  affine: bool = True
  bias: bool = False
  depthwise: Patch | None = None
  tiles: Tiles | None = None
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
    gated: Sequence[Gated] = (),
  ) -> tuple[Float[Array, 'b n d'], None]:
    dim = x.shape[-1]
    table = parameter(self, 'modulation', ZEROS, ('modulation', 'embed'), (6, dim))
    modulation = modulation + table[None].astype(self.dtype)
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = jnp.split(modulation, 6, axis=1)

    def near(y: Array, name: str) -> Array:
      return Depthwise(self.depthwise, self.dtype, name=name)(y) if self.depthwise else y

    x = checkpoint_name(x, 'inputs') + positions.astype(x.dtype)
    y = near(modulate(norm(self, 'self_norm')(x), shift_a, scale_a), 'self_depthwise')
    x = x + gate_a * multihead(self, 'self_attention', dim, self.tiles)(y, mask=valid)
    if context is not None or gated:
      y = norm(self, 'cross_norm')(x)
      x = x + multihead(self, 'cross_attention', dim)(y, context, context_mask, gated)
    y = near(modulate(norm(self, 'feed_norm')(x), shift_f, scale_f), 'feed_depthwise')
    x = x + gate_f * feed_forward(self)(y)
    return place_tokens(x), None


# Parts of a block, by its fields and their own names; docs/how_to/add_a_block.md makes another of
# them.


def norm(block: Block, name: str) -> nn.Module:
  """Makes one of the block's norms."""
  return NORMS[block.norm](block.epsilon, block.dtype, block.affine, name=name)


def multihead(block: Block, name: str, dim: int, tiles: Tiles | None = None) -> nn.Module:
  """Makes an attention of the block to tokens of width `dim`, in self-attention with its tiles."""
  fields = (block.attention, block.exchange, block.dtype, block.bias, tiles)
  return MultiHeadAttention(block.heads, dim // block.heads, *fields, name=name)


def feed_forward(block: Block) -> nn.Module:
  """Makes the feed-forward network of the block."""
  make = FEED_FORWARD[block.feed_forward]
  return make(block.mlp_dim, block.dtype, use_bias=block.bias, name='feed_forward')
