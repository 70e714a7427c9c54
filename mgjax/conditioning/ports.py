"""The three ports through which every condition reaches a backbone.

A conditioning (`contract.py`) returns `Ports`. A backbone knows ports, never conditions.
"""

from collections.abc import Sequence

import flax.struct
import jax.numpy as jnp

from mgjax.core.typing import Array, Bool, Float


@flax.struct.dataclass
class Ports:
  """What a conditioning adds to the model, `None` where it adds nothing.

  `tokens` (b n d) is added to the patch tokens; it comes from a projection that starts at zero, so
  that a concatenation of channels (a linear map of a concatenation is a sum of linear maps) leaves
  a base checkpoint and its output untouched. `context` (b m d) is appended to what cross-attention
  reads, `context_mask` (b m) marks its valid entries: zeros are *not* neutral in a softmax, a mask
  is. `vector` (b d) is added to the embedding of the flow time.
  """

  tokens: Float[Array, 'b n d'] | None = None
  context: Float[Array, 'b m d'] | None = None
  context_mask: Bool[Array, 'b m'] | None = None
  vector: Float[Array, 'b d'] | None = None


def combine(ports: Sequence[Ports]) -> Ports:
  """Adds tokens and vectors, concatenates contexts and their masks along m, in the given order."""
  contexts = [port for port in ports if port.context is not None]
  masks = [
    jnp.ones(port.context.shape[:2], bool) if port.context_mask is None else port.context_mask
    for port in contexts
  ]
  return Ports(
    tokens=_total([port.tokens for port in ports]),
    context=jnp.concatenate([port.context for port in contexts], axis=1) if contexts else None,
    context_mask=jnp.concatenate(masks, axis=1) if contexts else None,
    vector=_total([port.vector for port in ports]),
  )


def _total(arrays):
  arrays = [array for array in arrays if array is not None]
  return sum(arrays[1:], start=arrays[0]) if arrays else None
