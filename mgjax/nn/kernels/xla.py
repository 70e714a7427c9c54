"""Attention with all scores (b g n m) in memory: the reference, and the fastest for few scores."""

import jax
import jax.numpy as jnp

from mgjax.core.precision import wide
from mgjax.core.typing import Array
from mgjax.nn.kernels.kernel import MASKED, Saved


def forward(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
  """Returns O (b n g k) and the log-sum-exp of the scores (b g n); see `kernel.py`."""
  scores = _scores(q, k, mask)
  lse = jax.nn.logsumexp(scores, axis=-1)
  weights = jnp.exp(scores - lse[..., None]).astype(v.dtype)
  y = jnp.einsum('bgnm,bmgk->bngk', weights, v, preferred_element_type=wide(q.dtype))
  return y.astype(q.dtype), lse


def backward(saved: Saved, dy: Array) -> tuple[Array, Array, Array]:
  """Returns dQ, dK, dV; see `kernel.py`."""
  q, k, v, mask, delta, lse = saved
  weights = jnp.exp(_scores(q, k, mask) - lse[..., None])
  dweights = jnp.einsum('bngk,bmgk->bgnm', dy, v, preferred_element_type=wide(q.dtype))
  dscores = (weights * (dweights - delta[..., None]) * q.shape[-1] ** -0.5).astype(q.dtype)
  dv = jnp.einsum('bgnm,bngk->bmgk', weights.astype(dy.dtype), dy)
  dq = jnp.einsum('bgnm,bmgk->bngk', dscores, k)
  dk = jnp.einsum('bgnm,bngk->bmgk', dscores, q)
  return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


def _scores(q: Array, k: Array, mask: Array | None) -> Array:
  scale = q.shape[-1] ** -0.5
  scores = jnp.einsum('bngk,bmgk->bgnm', q * scale, k, preferred_element_type=wide(q.dtype))
  return scores if mask is None else jnp.where(mask[:, None, None], scores, MASKED)
