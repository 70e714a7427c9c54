"""Softmax attention behind one signature (Movie Gen §3.1.3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Bool, Float

# Finite: a row of -inf alone would make the softmax 0 / 0.
MASKED = -1e30

# Below, XLA's batched products win on a CPU, because the scores stay in its caches; above, the
# loop of `blockwise` wins, because its scores do. `docs/performance.md` has the measurements.
FEW_SCORES = 2**22
BLOCK_SCORES = 2**19
SMALLEST_BLOCK = 256


def attend(
  q: Float[Array, 'b n g k'],
  k: Float[Array, 'b m g k'],
  v: Float[Array, 'b m g k'],
  *,
  mask: Bool[Array, 'b m'] | None = None,
  impl: str = 'auto',
) -> Float[Array, 'b n g k']:
  """Returns softmax(Q K^T / sqrt(k)) V for every head, in the type of `q`.

  Scores and softmax are float32 whatever the inputs are. All implementations give the same numbers
  (float32: within 5e-6, `test_values_and_gradients_are_softmax_attention`). The result is named
  'attention' for rematerialisation, and with it all that the backward pass of 'blockwise' needs.

  Args:
    q: queries.
    k: keys.
    v: values.
    mask: True where a key may be read. A row that may read nothing returns zeros.
    impl: 'xla' stores all scores; 'blockwise' computes them again in the backward pass, its memory
      is linear in n; 'auto' chooses between them by shape and platform.

  Raises:
    ConfigError: `impl` has no implementation.
  """
  if impl not in IMPLEMENTATIONS:
    raise ConfigError(
      f'unknown attention implementation {impl!r}; expected one of {", ".join(IMPLEMENTATIONS)}'
    )
  y = IMPLEMENTATIONS[impl](q, k, v, mask)
  if mask is not None:
    y = jnp.where(mask.any(axis=-1)[:, None, None, None], y, 0)
  return checkpoint_name(y, 'attention')


def xla(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
  """Computes attention as written, all scores (b g n m) at once: the reference."""
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
  scores = jnp.einsum('bgnk,bgmk->bgnm', q, k, preferred_element_type=jnp.float32)
  if mask is not None:
    scores = jnp.where(mask[:, None, None], scores, MASKED)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  y = jnp.einsum('bgnm,bgmk->bgnk', weights, v, preferred_element_type=jnp.float32)
  return jnp.swapaxes(y, 1, 2).astype(q.dtype)


def auto(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
  """Chooses by static shape: a loop over heads suits few cores and caches, not accelerators."""
  b, n, g, _ = q.shape
  many = b * g * n * k.shape[1] >= FEW_SCORES
  return (blockwise if many and jax.default_backend() == 'cpu' else xla)(q, k, v, mask)


@jax.custom_vjp
def blockwise(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
  """Computes attention head by head and block of queries by block of queries.

  A block sees all keys, so its softmax needs no running maximum. The backward pass computes P
  again from the saved log-sum-exp L: P = exp(S - L), dV = P^T dO, dS = P * (dO V^T - rowsum(dO O)),
  dQ = dS K, dK = dS^T Q.
  """
  return _forward(q, k, v, mask)[0]


def _forward(q: Array, k: Array, v: Array, mask: Array | None):
  scale = q.shape[-1] ** -0.5

  def head(inputs):
    queries, keys, values, valid = inputs

    def block(query):
      scores = _scores(query, keys, valid)
      top = scores.max(axis=-1, keepdims=True)
      weights = jnp.exp(scores - top)
      total = weights.sum(axis=-1, keepdims=True)
      y = _product(weights.astype(values.dtype), values) / total
      return y.astype(q.dtype), top + jnp.log(total)

    return lax.map(block, queries)

  keys = _transposed(_heads(k))
  y, logsum = lax.map(head, (_blocks(q * scale, k), keys, _heads(v), _per_head(mask, q)))
  y = checkpoint_name(_unblock(y, q), 'attention')
  return y, (q, k, v, mask, y, checkpoint_name(logsum, 'attention'))


def _backward(saved, dy: Array):
  q, k, v, mask, y, logsum = saved
  scale = q.shape[-1] ** -0.5
  delta = jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), axis=-1, keepdims=True)
  queries, dys = _blocks(q * scale, k), _blocks(dy, k)
  keys, values = _heads(k), _heads(v)

  # XLA's A^T B is several times slower than A B on a CPU when A is large and B narrow. So dK and dV
  # are computed as their transposes, (narrow) x (large), from narrow transposes made out here.
  def head(inputs):
    queries, keys, keys_t, values_t, valid = inputs

    def block(total, inputs):
      query, query_t, dy, dy_t, delta, logsum = inputs
      weights = jnp.exp(_scores(query, keys_t, valid) - logsum)
      dscores = (weights * (_product(dy, values_t) - delta)).astype(q.dtype)
      dk_t = total[0] + _product(query_t, dscores)
      dv_t = total[1] + _product(dy_t, weights.astype(q.dtype))
      return (dk_t, dv_t), _product(dscores, keys)

    zeros = jnp.zeros(keys_t.shape, jnp.float32)
    return lax.scan(block, (zeros, zeros), queries)

  queries = (queries, _transposed(queries), dys, _transposed(dys), _blocks(delta, k), logsum)
  inputs = (queries, keys, _transposed(keys), _transposed(values), _per_head(mask, q))
  (dk, dv), dq = lax.map(head, inputs)

  def per_key(x, like):
    x = x.reshape(q.shape[0], q.shape[2], *x.shape[1:])  # b g k m
    return jnp.transpose(x, (0, 3, 1, 2)).astype(like.dtype)

  return (_unblock(dq, q) * scale).astype(q.dtype), per_key(dk, k), per_key(dv, v), None


blockwise.defvjp(_forward, _backward)


def _product(x: Array, y: Array) -> Array:
  return jnp.dot(x, y, preferred_element_type=jnp.float32)


def _scores(query: Array, keys_t: Array, valid: Array | None) -> Array:
  scores = _product(query, keys_t)
  return scores if valid is None else jnp.where(valid[None], scores, MASKED)


def _transposed(x: Array) -> Array:
  return jnp.swapaxes(x, -1, -2)


def _heads(x: Float[Array, 'b n g k']) -> Float[Array, 'bg n k']:
  return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], x.shape[3])


def _per_head(mask: Array | None, q: Array) -> Array | None:
  return None if mask is None else jnp.repeat(mask, q.shape[2], axis=0)


def _blocks(x: Float[Array, 'b n g k'], k: Array) -> Float[Array, 'bg blocks block k']:
  """Cuts queries into equal blocks of about `BLOCK_SCORES` scores, with at most one padding each.

  Padding takes no part in any gradient: its dO is zero.
  """
  length = x.shape[1]
  count = -(-length // max(SMALLEST_BLOCK, BLOCK_SCORES // k.shape[1]))
  block = -(-length // count)
  x = jnp.pad(_heads(x), ((0, 0), (0, count * block - length), (0, 0)))
  return x.reshape(-1, count, block, x.shape[-1])


def _unblock(x: Float[Array, 'bg blocks block k'], q: Array) -> Float[Array, 'b n g k']:
  b, n, g, size = q.shape
  return jnp.swapaxes(x.reshape(b, g, -1, size)[:, :, :n], 1, 2)


IMPLEMENTATIONS: dict[str, Callable[..., Array]] = {
  'auto': auto,
  'xla': xla,
  'blockwise': blockwise,
}
