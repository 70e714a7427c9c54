"""How many floating point operations the backbone takes (Movie Gen §3.1.6)."""

import dataclasses
import math
from collections.abc import Sequence

from mgjax.models.backbone.transformer import Transformer
from mgjax.models.wan.transformer import WanTransformer
from mgjax.nn.patch import grid
from mgjax.nn.sinusoidal_embedding import FREQUENCIES

# The backward pass multiplies each matrix twice: for the input's gradient and for the weight's.
FORWARD_AND_BACKWARD = 3
MATRICES = {'swiglu': 3, 'gelu': 2, 'silu': 2}  # of a feed-forward network


@dataclasses.dataclass(frozen=True)
class Flops:
  """Operations of the matrix products of one forward pass; a multiply-add counts as two.

  What is computed again in a backward pass to save memory is no part of the model's work, and does
  not count: utilisation is `training` over time and peak.
  """

  linear: int
  self_attention: int
  cross_attention: int

  def times(self, count: int) -> 'Flops':
    """Returns the operations of `count` passes."""
    return Flops(*(count * operations for operations in dataclasses.astuple(self)))

  @property
  def forward(self) -> int:
    """All operations of a forward pass."""
    return self.linear + self.self_attention + self.cross_attention

  @property
  def training(self) -> int:
    """All operations of a forward and a backward pass."""
    return FORWARD_AND_BACKWARD * self.forward


def backbone_flops(
  model: Transformer | WanTransformer,
  latents: tuple[int, ...],
  context: int,
  gated: Sequence[int] = (),
) -> Flops:
  """Counts the operations of one forward pass over latents of shape (b t h w c).

  A row of n tokens that reads m context tokens, with L layers, width d, FFN width f, p numbers a
  patch and s sinusoids of the flow time:

    linear           L (2 n (6 d^2 + w d f) + 4 m d^2) + 4 n d p + 2 (s d + 7 d^2)
    self-attention   4 L n^2 d
    cross-attention  4 L n m d

  The 6 d^2 are four projections of self-attention and two of cross-attention, whose keys and
  values, 2 d^2, see the context alone. The number of matrices of the feed-forward network, w, is 3
  for SwiGLU and 2 for a DiT. No causal mask halves attention: for the 30B model, n = 73,728 and
  m = 512 it is 63% of 10.2 PFLOP. The rule 6 x parameters x tokens would miss it
  (`test_a_sample_of_the_30b_model_takes_30_6_pflop`). Biases are no products, and do not count.

  With tiles a token reads the keys of some of them, not n, and where heads choose, means of all.

  A group of m_i tokens behind a gate is read beside the context: m + m_i tokens once more, its own
  keys and values, and the map of the result.

  Args:
    latents: shape of a batch.
    context: m, tokens that cross-attention reads; 0 where there is none.
    gated: m_i, tokens of every group behind a gate.

  Raises:
    ValueError: the latents do not divide into patches.
  """
  rows = latents[0]
  sizes = grid(latents, model.patch)
  tokens, tiles = math.prod(sizes), model.tiles(sizes)
  patch = math.prod(model.patch) * latents[-1]
  square = model.dim**2
  d = model.dim
  context_lengths = ([context] if context else []) + [context + length for length in gated]
  # Cross-attention projects queries once, and results for each context.
  contexts = len(context_lengths)
  attending = (4 + (1 + contexts if contexts else 0)) * square
  layer = (
    2 * tokens * (attending + MATRICES[model.feed_forward] * d * model.mlp_dim)
    + 4 * (context + sum(gated)) * square
  )
  once = 4 * tokens * d * patch + 2 * (FREQUENCIES * d + 7 * square)
  return Flops(
    linear=rows * (model.depth * layer + once),
    self_attention=rows * model.depth * 4 * tokens * (tiles.work if tiles else tokens) * d,
    cross_attention=rows * model.depth * 4 * tokens * sum(context_lengths) * d,
  )
