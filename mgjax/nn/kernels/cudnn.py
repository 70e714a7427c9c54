"""cuDNN's flash attention for GPUs, as the two functions of `kernel.py`.

The public `jax.nn.dot_product_attention` rounds the log-sum-exp to the output's type, too coarsely
for a backward pass. Its backward pass also cannot take the log-sum-exp of more keys than it sees.
The primitives below it can do both. They are bound here without JAX's check of the machine, so that
programs for GPUs can be traced and lowered on machines without one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.nn.kernels.kernel import MASKED, NOTHING, Saved

TYPES = (jnp.bfloat16, jnp.float16)
LARGEST_HEAD = 128  # the limit of GPUs before Hopper
HEAD_MULTIPLE = 8


def supported(q: Sequence[int], k: Sequence[int], dtype: np.dtype) -> bool:
  """Returns whether cuDNN has kernels for q (b n g k) and k (b m g k) of one type; any n and m."""
  size = q[-1]
  fits = size == k[-1] and size % HEAD_MULTIPLE == 0 and size <= LARGEST_HEAD
  return fits and dtype in TYPES


def forward(
  q: Float[Array, 'b n g k'],
  k: Float[Array, 'b m g k'],
  v: Float[Array, 'b m g k'],
  mask: Bool[Array, 'b m'] | None,
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b g n']]:
  """Returns O and L; see `kernel.py`. A row without a key to read has O = 0 and L = -1e30.

  Raises ConfigError if this version of JAX has no such primitive.
  """
  if mask is None:
    return call_forward(q, k, v, None)
  order, lengths = _valid_first(mask)
  o, lse = call_forward(q, _reorder(k, order), _reorder(v, order), lengths)
  readable = mask.any(axis=-1)[:, None, None]
  return jnp.where(readable[..., None], o, 0), jnp.where(readable, lse, MASKED)


def backward(
  saved: Saved, do: Float[Array, 'b n g k']
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b m g k'], Float[Array, 'b m g k']]:
  """Returns the contribution of these keys and values to dQ, and dK and dV; see `kernel.py`.

  Args:
    saved: q, k, v, mask, O (which cuDNN multiplies with dO itself) and L (b g n), the last two
      maybe of more keys than `k` has.

  Raises:
    ConfigError: this version of JAX has no such primitive.
  """
  q, k, v, mask, o, lse = saved
  if mask is None:
    return call_backward(q, k, v, None, o, lse, do)
  order, lengths = _valid_first(mask)
  readable = mask.any(axis=-1)[:, None, None]
  # cuDNN reads one key even for rows without any; it must not overflow exp(S - L).
  lse = jnp.where(lse > NOTHING, lse, -MASKED)
  dq, *rest = call_backward(q, _reorder(k, order), _reorder(v, order), lengths, o, lse, do)
  back = jnp.argsort(order, axis=-1)
  # Beyond the lengths cuDNN may leave memory uninitialised.
  dk, dv = (jnp.where(mask[..., None, None], _reorder(x, back), 0) for x in rest)
  return jnp.where(readable[..., None], dq, 0), dk, dv


def call_forward(q: Array, k: Array, v: Array, lengths: Array | None) -> tuple[Array, Array]:
  """Binds cuDNN's forward primitive: O (b n g k), and L (b g n) in float32, to base e.

  `lengths` (b,) int32, at least 1, is the number of leading keys that are read; None is all.
  """
  o, lse = _bind('fwd', q, k, v, lengths, is_training=True)
  return o, lse


def call_backward(
  q: Array, k: Array, v: Array, lengths: Array | None, o: Array, lse: Array, do: Array
) -> tuple[Array, Array, Array]:
  """Binds cuDNN's backward primitive: dQ, dK, dV; `lengths` and L as `call_forward` has them."""
  dq, dk, dv = _bind('bwd', q, k, v, lengths, lse, o, do)
  return dq, dk, dv


def _bind(which: str, q: Array, k: Array, v: Array, lengths: Array | None, *more, **parameters):
  """Binds a primitive of JAX's private module; nothing else uses that module."""
  nothing = jnp.zeros(0, q.dtype)
  seen = (nothing, nothing)
  if lengths is not None:
    seen = (jnp.full(lengths.shape, q.shape[1], jnp.int32), lengths)
  try:
    from jax._src.cudnn import fused_attention_stablehlo as fused

    primitive = getattr(fused, f'_dot_product_attention_{which}_p_wrapper')
    mask_type = fused.MaskType.NO_MASK if lengths is None else fused.MaskType.PADDING
    parameters |= {
      'scale': q.shape[-1] ** -0.5,
      'seed': 0,
      'dropout_rate': 0.0,
      'variadic_args': (False, False),  # no bias, no gradient of one
      'mask_type': mask_type,
      'layout': fused.AttentionLayout.BTNH.value,  # ours: b n g k
      'sliding_window_length': None,
      **_later_parameters(),
    }
    # Bias, lengths, offsets of packed sequences, page tables.
    inputs = (q, k, v, nothing, *seen, nothing, nothing, nothing, nothing, *more)
    return primitive.bind(*inputs, **parameters)
  except (ImportError, AttributeError, TypeError) as error:
    raise ConfigError(
      f'jax {jax.__version__} has other cuDNN attention primitives than mgjax knows; expected a '
      "version from 0.10.2 to 0.12, or another kernel of attention, such as 'blockwise'"
    ) from error


def _later_parameters() -> JSON:
  return {'score_mod': None} if jax.__version_info__ >= (0, 12) else {}


def _valid_first(mask: Bool[Array, 'b m']) -> tuple[Int[Array, 'b m'], Int[Array, 'b']]:
  """Returns an order of the keys with readable ones first, and the number of those.

  cuDNN supports lengths, not masks with holes, and attention does not depend on the order of keys.
  The length is at least 1, because an empty softmax is 0 / 0.
  """
  lengths = jnp.maximum(mask.sum(axis=-1), 1)
  return jnp.argsort(~mask, axis=-1, stable=True), lengths.astype(jnp.int32)


def _reorder(x: Float[Array, 'b m g k'], order: Int[Array, 'b m']) -> Float[Array, 'b m g k']:
  return jnp.take_along_axis(x, order[:, :, None, None], axis=1)
