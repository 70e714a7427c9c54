"""Multi-head attention with its four projections."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.attention import attend
from mgjax.nn.kernels.tiles import Tiles, attend_to_means
from mgjax.nn.linear import ZEROS, Linear, Map, Weights, linears

FEW_KEYS = {'exchange': 'gather', 'saved_as': 'projections'}
_AXES: tuple[str, str] = ('embed', 'heads')
# Variable collection that caches keys and values of contexts.
READ = 'read'
Keys = tuple[Array, Array, Array | None]  # keys, values and their mask
# Gated context: tokens, their mask, and the gate, of one or more numbers a row.
Gated = tuple[Float[Array, 'b _m e'], Bool[Array, 'b _m'], Float[Array, 'b _d']]


class MultiHeadAttention(nn.Module):
  """softmax(Q K^T / sqrt(k)) V over full, bidirectional sequences (Movie Gen §3.1.3).

  Attends to `x` itself, or to `context` if it is given. Multi-head, not grouped-query: the paper
  keeps one key and value a head.

  Let o(C) be the output of attention to the context C (zero without C). Groups G_i with gates g_i
  give o(C) + sum_i g_i (o([C; G_i]) - o(C)): g = 0 ignores a group, and g = 1 appends it to C.

  With `tiles`, self-attention is block-sparse; contexts are read completely. If heads choose tiles,
  attention to the means of all tiles is added, through a gate that is initialised to 0.

  Keys and values of contexts are the same in every sampling step. A call with the collection READ
  mutable caches them there, and a call with that collection reuses them.
  """

  heads: int
  head_size: int
  impl: str = 'auto'
  exchange: str = 'auto'
  dtype: jnp.dtype = jnp.float32
  use_bias: bool = False
  tiles: Tiles | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    context: Float[Array, 'b m e'] | None = None,
    mask: Bool[Array, 'b m'] | None = None,
    gated: Sequence[Gated] = (),
  ) -> Float[Array, 'b n d']:
    sources = [] if context is None else [(context, mask)]
    sources += [(tokens, token_mask) for tokens, token_mask, _ in gated]
    width = sources[0][0].shape[-1] if sources else x.shape[-1]
    query, key, value = (
      Map((size, self.heads * self.head_size), _AXES, self.use_bias, name=name)()
      for name, size in (('query', x.shape[-1]), ('key', width), ('value', width))
    )
    out = Linear(x.shape[-1], (_AXES[1], _AXES[0]), self.use_bias, dtype=self.dtype, name='out')

    def read(q, k, v, mask, tiles: Tiles | None, **options: str) -> Float[Array, 'b n d']:
      y = attend(q, k, v, mask=mask, impl=self.impl, tiles=tiles, **options)
      if tiles is not None and tiles.chosen:
        gate = Linear(self.heads, _AXES, initializer=ZEROS, dtype=self.dtype, name='means_gate')(x)
        y = y + gate[..., None] * attend_to_means(q, k, v, tiles)
      return out(y.reshape(*y.shape[:2], -1))

    if not sources:
      q, k, v = self._project(x, query, key, value)
      return read(q, k, v, mask, self.tiles, exchange=self.exchange)
    # Text has few keys, so they are gathered and queries stay sharded. Recomputing the result costs
    # as little as a projection.
    (q,) = self._project(x, query)
    keys: list[Keys] = [
      (*self._read(f'keys_{n}', tokens, key, value), token_mask)
      for n, (tokens, token_mask) in enumerate(sources)
    ]
    own = [] if context is None else [keys.pop(0)]
    y = without_groups = (
      read(q, *own[0], None, **FEW_KEYS) if own else jnp.zeros(x.shape, self.dtype)
    )
    for group, (_, _, gate) in zip(keys, gated, strict=True):
      y = y + gate[:, None] * (read(q, *_joined([*own, group]), None, **FEW_KEYS) - without_groups)
    return y

  def _read(self, name: str, tokens: Array, *maps: Weights) -> tuple[Array, Array]:
    """Returns keys and values of a context, from the cache if they are there."""
    if self.has_variable(READ, name):
      return self.get_variable(READ, name)
    k, v = self._project(tokens, *maps)
    if self.is_mutable_collection(READ) and not self.is_initializing():
      self.put_variable(READ, name, (k, v))
    return k, v

  def _project(self, x: Float[Array, 'b n d'], *maps: Weights) -> list[Float[Array, 'b n g k']]:
    ys = linears(x, maps, _AXES, self.dtype)  # `attend` names them
    return [y.reshape(*y.shape[:2], self.heads, self.head_size) for y in ys]


def _joined(keys: Sequence[Keys]) -> Keys:
  """Concatenates keys, values and masks of several contexts along tokens."""
  masks = [jnp.ones(k.shape[:2], bool) if mask is None else mask for k, _, mask in keys]
  k, v, _ = zip(*keys, strict=True)
  k, v, mask = (jnp.concatenate(parts, axis=1) for parts in (k, v, masks))
  return k, v, mask
