"""Attention by heads and blocks of queries, with memory linear in n.

A block sees all keys, so its softmax needs no running maximum. On a CPU it is faster than storing
all scores as soon as those exceed the caches (docs/experiments/cpu_optimizations.md).
"""

import jax.numpy as jnp
from jax import lax

from mgjax.core.precision import wide
from mgjax.core.typing import Array, Float
from mgjax.nn.kernels.kernel import MASKED, Saved

BLOCK_SCORES = 2**19
SMALLEST_BLOCK = 256


def forward(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
  """Returns O (b n g k) and the log-sum-exp of the scores (b g n); see `kernel.py`."""

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

  queries = _blocks(_heads(q * q.shape[-1] ** -0.5), k)
  inputs = (queries, _transposed(_heads(k)), _heads(v), _per_head(mask, q))
  y, lse = lax.map(head, inputs)
  b, n, g, _ = q.shape
  return _unblock(y, q), lse.reshape(b, g, -1)[:, :, :n]


def backward(saved: Saved, dy: Array) -> tuple[Array, Array, Array]:
  """Returns dQ, dK, dV; see `kernel.py`."""
  q, k, v, mask, delta, lse = saved
  scale = q.shape[-1] ** -0.5
  queries = _blocks(_heads(q * scale), k)
  dys = _blocks(_heads(dy), k)
  rows = [_blocks(x.reshape(-1, x.shape[-1], 1), k) for x in (delta, lse)]
  keys, values = _heads(k), _heads(v)

  # On a CPU XLA's A^T B is several times slower than A B if A is large and B narrow. So dK and dV
  # are computed as their transposes, (narrow) x (large), from narrow transposes made outside.
  def head(inputs):
    queries, keys, keys_t, values_t, valid = inputs

    def block(total, inputs):
      query, query_t, dy, dy_t, delta, lse = inputs
      weights = jnp.exp(_scores(query, keys_t, valid) - lse)
      dscores = (weights * (_product(dy, values_t) - delta)).astype(q.dtype)
      dk_t = total[0] + _product(query_t, dscores)
      dv_t = total[1] + _product(dy_t, weights.astype(q.dtype))
      return (dk_t, dv_t), _product(dscores, keys)

    zeros = jnp.zeros(keys_t.shape, jnp.float32)
    return lax.scan(block, (zeros, zeros), queries)

  queries = (queries, _transposed(queries), dys, _transposed(dys), *rows)
  inputs = (queries, keys, _transposed(keys), _transposed(values), _per_head(mask, q))
  (dk, dv), dq = lax.map(head, inputs)

  def per_key(x, like):
    x = x.reshape(q.shape[0], q.shape[2], *x.shape[1:])  # b g k m
    return jnp.transpose(x, (0, 3, 1, 2)).astype(like.dtype)

  return (_unblock(dq, q) * scale).astype(q.dtype), per_key(dk, k), per_key(dv, v)


def _product(x: Array, y: Array) -> Array:
  return jnp.dot(x, y, preferred_element_type=wide(x.dtype))


def _scores(query: Array, keys_t: Array, valid: Array | None) -> Array:
  scores = _product(query, keys_t)
  return scores if valid is None else jnp.where(valid[None], scores, MASKED)


def _transposed(x: Array) -> Array:
  return jnp.swapaxes(x, -1, -2)


def _heads(x: Float[Array, 'b n g k']) -> Float[Array, 'bg n k']:
  return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], x.shape[3])


def _per_head(mask: Array | None, q: Array) -> Array | None:
  return None if mask is None else jnp.repeat(mask, q.shape[2], axis=0)


def _blocks(x: Float[Array, 'bg n k'], k: Array) -> Float[Array, 'bg blocks block k']:
  """Cuts rows into equal blocks of about `BLOCK_SCORES` scores, with at most one padding each.

  Padding takes no part in any gradient: its dO is zero.
  """
  length = x.shape[1]
  count = -(-length // max(SMALLEST_BLOCK, BLOCK_SCORES // k.shape[1]))
  block = -(-length // count)
  x = jnp.pad(x, ((0, 0), (0, count * block - length), (0, 0)))
  return x.reshape(-1, count, block, x.shape[-1])


def _unblock(x: Float[Array, 'bg blocks block k'], q: Array) -> Float[Array, 'b n g k']:
  b, n, g, size = q.shape
  return jnp.swapaxes(x.reshape(b, g, -1, size)[:, :, :n], 1, 2)
