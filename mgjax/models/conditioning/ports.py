"""The ports through which every condition reaches a backbone: tokens, context, a vector and more.

A conditioning (`contract.py`) returns `Ports`. A backbone knows ports, never conditions.
"""

from collections.abc import Sequence

import flax.struct
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Bool, Float, Int


@flax.struct.dataclass
class GatedContext:
  """Context behind a gate, so that a model to which it is added begins as it was.

  With base context C, its tokens G and the gate g cross-attention reads
  o(C) + g (o([C; G]) - o(C)): at g = 0 what it read before, bit for bit, at g = 1 what appended
  tokens give. Nor is there a gate for rows of which nothing may be read: to drop one, mask it. g is
  a number a row or one a channel; a parameter that starts at zero.
  """

  tokens: Float[Array, 'b m d']
  mask: Bool[Array, 'b m']
  gate: Float[Array, 'b _d']

  def opened(self, dtype: jnp.dtype) -> tuple[Array, Array, Array]:
    """Returns tokens and gate in the compute type, and the mask; the gate of empty rows is zero."""
    gate = jnp.where(jnp.any(self.mask, axis=1, keepdims=True), self.gate, 0)
    return self.tokens.astype(dtype), self.mask, gate.astype(dtype)


@flax.struct.dataclass
class Known:
  """Latents that are given, where the model makes the others.

  Where `mask` (b t) is True the backbone reads `latents` (b t h w c) in place of X_t, at the time
  of data, and answers the velocity that leads there: (latents - X_t) / (1 - t).
  """

  latents: Float[Array, 'b t h w c']
  mask: Bool[Array, 'b t']


@flax.struct.dataclass
class Ports:
  """What a conditioning adds to the model, `None` where it adds nothing.

  `tokens` (b n d) is added to the patch tokens. It comes from a projection that starts at zero, so
  adding it leaves a base checkpoint and its output untouched. This equals a concatenation of
  channels, of which a linear map is a sum of linear maps. `context` (b m d) is appended to what
  cross-attention reads, `context_mask` (b m) marks its valid entries: zeros are *not* neutral in a
  softmax, a mask is. `gated` are groups of context behind gates. `vector` (b d) is added to the
  embedding of the flow time. `offset` (b) is the place of each row's first frame in the table of
  temporal positions.
  `answer` (b t h w c) is added to what the backbone answers, which then learns what is missing.

  Three are for published models, whose kernels must stay as they are. `channels` (b t h w e) are
  appended to those of X_t. Cross-attention reads states of a `picture` (b n i) by maps of their
  own. `known` are latents that stand in place of those of X_t.
  """

  tokens: Float[Array, 'b n d'] | None = None
  context: Float[Array, 'b m d'] | None = None
  context_mask: Bool[Array, 'b m'] | None = None
  vector: Float[Array, 'b d'] | None = None
  gated: tuple[GatedContext, ...] = ()
  offset: Int[Array, ' b'] | None = None
  answer: Float[Array, 'b t h w c'] | None = None
  channels: Float[Array, 'b t h w e'] | None = None
  picture: Float[Array, 'b _n i'] | None = None
  known: Known | None = None


def combine(ports: Sequence[Ports]) -> Ports:
  """Adds tokens, vectors, offsets and answers; concatenates contexts and their masks along m,
  channels along e and pictures along n, in order.

  Groups behind gates stay groups: each is read beside the context, not beside the others.
  Raises ConfigError if latents are known of two.
  """
  contexts = [port for port in ports if port.context is not None]
  masks = [
    jnp.ones(port.context.shape[:2], bool) if port.context_mask is None else port.context_mask
    for port in contexts
  ]
  known = [port.known for port in ports if port.known is not None]
  if len(known) > 1:
    raise ConfigError(f'{len(known)} conditionings say which latents are known; expected one')
  return Ports(
    tokens=_total([port.tokens for port in ports]),
    context=_joined([port.context for port in ports], axis=1),
    context_mask=jnp.concatenate(masks, axis=1) if contexts else None,
    vector=_total([port.vector for port in ports]),
    gated=tuple(group for port in ports for group in port.gated),
    offset=_total([port.offset for port in ports]),
    answer=_total([port.answer for port in ports]),
    channels=_joined([port.channels for port in ports], axis=-1),
    picture=_joined([port.picture for port in ports], axis=1),
    known=next(iter(known), None),
  )


def _joined(arrays, axis):
  arrays = [array for array in arrays if array is not None]
  return jnp.concatenate(arrays, axis=axis) if arrays else None


def _total(arrays):
  arrays = [array for array in arrays if array is not None]
  return sum(arrays[1:], start=arrays[0]) if arrays else None
