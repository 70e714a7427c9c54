"""The attention of Wan's layers: queries and keys are normalised over all heads and rotated."""

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.typing import Array, Bool, Float
from mgjax.models.wan.rotary import Rotation, rotate
from mgjax.nn.attention import attend
from mgjax.nn.linear import Linear, Map, linears
from mgjax.nn.multihead import FEW_KEYS, READ
from mgjax.nn.norm import RMSNorm

_AXES: tuple[str, str] = ('embed', 'heads')


class WanAttention(nn.Module):
  """softmax(Q K^T / sqrt(k)) V, with queries and keys normalised over all heads at once.

  q = rms(x W_q) w_q and k = rms(c W_k) w_k, where rms acts on the d numbers of all heads, and c is
  x itself or a context. With the tokens p of a picture the output is
  (A(q, k, v) + A(q, rms(p P_k) w_p, p P_v)) W_o.

  Keys and values of contexts are the same in every sampling step. They are cached as in
  `nn.multihead.MultiHeadAttention`.
  """

  heads: int
  epsilon: float = 1e-6
  impl: str = 'auto'
  exchange: str = 'auto'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    *,
    rotation: Rotation | None = None,
    valid: Bool[Array, 'b n'] | None = None,
    context: Float[Array, 'b m d'] | None = None,
    picture: Float[Array, 'b _m d'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Attends to `x`, rotated by position, or to `context` and `picture` if they are given."""
    width = x.shape[-1]
    query, key, value = self._maps(width, 'query', 'key', 'value')
    query_norm, key_norm = self._norm('query_norm'), self._norm('key_norm')
    out = Linear(width, _AXES[::-1], True, dtype=self.dtype, name='out')
    if context is None:
      # The three maps together read x once.
      q, k, v = linears(x, (query, key, value), _AXES, self.dtype)
      q, k, v = self._split(query_norm(q)), self._split(key_norm(k)), self._split(v)
      if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
      y = attend(q, k, v, mask=valid, impl=self.impl, exchange=self.exchange)
      return out(y.reshape(x.shape))
    (q,) = linears(x, (query,), _AXES, self.dtype)
    q = self._split(query_norm(q))
    k, v = self._keys('keys_text', context, (key, value), key_norm)
    y = attend(q, k, v, impl=self.impl, **FEW_KEYS)
    if picture is not None:
      maps = self._maps(width, 'image_key', 'image_value')
      k, v = self._keys('keys_image', picture, maps, self._norm('image_key_norm'))
      y = y + attend(q, k, v, impl=self.impl, **FEW_KEYS)
    return out(y.reshape(x.shape))

  def _maps(self, width: int, *names: str):
    return tuple(Map((width, width), _AXES, True, name=name)() for name in names)

  def _norm(self, name: str) -> RMSNorm:
    return RMSNorm(self.epsilon, self.dtype, name=name)

  def _split(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n g k']:
    return x.reshape(*x.shape[:2], self.heads, -1)

  def _keys(self, name: str, tokens: Array, maps, key_norm: RMSNorm):
    """Returns keys and values of a context, from the cache if they are there."""
    if self.has_variable(READ, name):
      return self.get_variable(READ, name)
    k, v = linears(tokens, maps, _AXES, self.dtype)
    keys = self._split(key_norm(k)), self._split(v)
    if self.is_mutable_collection(READ) and not self.is_initializing():
      self.put_variable(READ, name, keys)
    return keys
