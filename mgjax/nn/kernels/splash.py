"""Splash attention, JAX's flash attention for TPUs, as the functions of `kernel.py`.

The kernels are called below JAX's own differentiation rule, which does not support a log-sum-exp of
more keys than the kernel sees.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.plug_ins import Later
from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.kernels.kernel import MASKED, NOTHING, Saved

if TYPE_CHECKING:
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info
else:  # the import takes 0.1 s, which only TPUs need
  _PLACE = 'jax.experimental.pallas.ops.tpu.splash_attention'
  splash = Later(f'{_PLACE}.splash_attention_kernel')
  splash_attention_mask_info = Later(f'{_PLACE}.splash_attention_mask_info')

# For bfloat16 and heads of 128. Kernels of these sizes need at most 14 of the 16 MiB of VMEM that
# they get on TPU v4 to v7x (`test_the_largest_model_compiles`). The backward kernel writes dQ once
# per block of keys, so large blocks of keys save memory as well as bandwidth; it keeps more tiles
# of scores than the forward kernel, so its tiles are smaller.
_LANES = 128
QUERIES = 1024
KEYS = 2048
FORWARD_TILE = 1024
BACKWARD_TILE = 512
_SMALLEST = 256  # even smaller blocks would cost more than padding


class SplashBlocks(NamedTuple):
  """Block sizes of a kernel and the padded lengths that they divide."""

  queries: int
  keys: int
  tile: int  # keys that are computed at once; divides `keys`
  n: int
  m: int
  k: int


def forward(
  q: Float[Array, 'b n g k'],
  k: Float[Array, 'b m g k'],
  v: Float[Array, 'b m g k'],
  mask: Bool[Array, 'b m'] | None,
  *,
  interpret: bool = False,
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b g n']]:
  """Returns O and L; see `kernel.py`. A row without a key to read has O = 0 and L = -1e30.

  `interpret` runs the kernel without a TPU, slowly.
  """
  n = q.shape[1]
  blocks = _blocks(q, k, FORWARD_TILE)
  kernel = splash.SplashAttentionKernel(
    _no_mask(),
    None,
    None,
    block_sizes=splash.BlockSizes(blocks.queries, blocks.keys, blocks.tile),
    is_mqa=False,
    save_residuals=True,
    mask_value=splash.DEFAULT_MASK_VALUE,
    attn_logits_soft_cap=None,
    residual_checkpoint_name=None,
    mask_function=None,
    interpret=interpret,
  )
  o, (lse,) = jax.vmap(kernel)(
    _heads(q * _scale(q), blocks.n, blocks.k),
    _heads(k, blocks.m, blocks.k),
    _heads(v, blocks.m, blocks.k),
    _segments(mask, k, blocks),
  )
  o = _tokens(o, q)
  lse = lse[..., :n]
  if mask is None:
    return o, lse
  readable = mask.any(axis=-1)[:, None, None]
  return jnp.where(readable[..., None], o, 0), jnp.where(readable, lse, MASKED)


def backward(
  saved: Saved, do: Float[Array, 'b n g k'], *, interpret: bool = False
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b m g k'], Float[Array, 'b m g k']]:
  """Returns the contribution of these keys and values to dQ, and dK and dV; see `kernel.py`.

  The kernel writes dQ once per block of keys, in the type of `q`, to be summed outside: b n g k
  times m / 2048. It runs head by head, so that only one head's share exists at a time. `saved` are
  q, k, v, mask, rowsum(dO * O) and L, the last two (b g n) and maybe of more keys than `k` has.
  """
  q, k, v, mask, delta, lse = saved
  b, _, g, _ = q.shape
  blocks = _blocks(q, k, BACKWARD_TILE)
  together = g if blocks.m == blocks.keys else 1  # one block of keys needs no sum

  def turns(x):
    return x.reshape(b * g // together, together, *x.shape[2:])

  def some_heads(inputs):
    q, k, v, segments, lse, do, delta = inputs
    # This kernel has no public name: the public backward pass knows only its own O and L.
    return splash._splash_attention_bwd_dkv(
      q,
      k,
      v,
      segments,
      None,
      lse,
      do,
      delta,
      bq=blocks.queries,
      bkv=blocks.keys,
      bkv_compute=blocks.tile,
      is_mqa=False,
      mask_info=_no_mask(),
      mask_value=splash.DEFAULT_MASK_VALUE,
      attn_logits_soft_cap=None,
      use_fused_bwd_kernel=True,
      q_layout=splash.QKVLayout.HEAD_DIM_MINOR,
      k_layout=splash.QKVLayout.HEAD_DIM_MINOR,
      v_layout=splash.QKVLayout.HEAD_DIM_MINOR,
      mask_function=None,
      interpret=interpret,
    )

  segments = _segments(mask, k, blocks)
  inputs = (
    turns(_heads(q * _scale(q), blocks.n, blocks.k)),
    turns(_heads(k, blocks.m, blocks.k)),
    turns(_heads(v, blocks.m, blocks.k)),
    jax.tree.map(lambda x: jnp.repeat(x, g // together, axis=0), segments),
    # exp(S - L) must be zero for a row that read nothing, whatever S is.
    turns(_pad(jnp.where(lse <= NOTHING, -MASKED, lse), blocks.n)),
    turns(_heads(do, blocks.n, blocks.k)),
    turns(_pad(delta, blocks.n)),
  )
  dq, dk, dv = (
    _tokens(x.reshape(b, g, *x.shape[2:]), like)
    for x, like in zip(lax.map(some_heads, inputs), (q, k, v), strict=True)
  )
  return (dq.astype(jnp.float32) * _scale(q)).astype(q.dtype), dk, dv


def _scale(q: Array) -> float:
  return q.shape[-1] ** -0.5


def _blocks(q: Array, k: Array, tile: int) -> SplashBlocks:
  size = -(-q.shape[-1] // _LANES) * _LANES
  # Other types and head sizes get blocks of the same number of bytes.
  queries, keys, tile = (
    max(most * 2 // (size * q.dtype.itemsize), 1) * _LANES for most in (QUERIES, KEYS, tile)
  )
  queries, n = _cut(q.shape[1], queries)
  tile, m = _cut(k.shape[1], tile)
  tiles = max(count for count in range(1, max(keys // tile, 1) + 1) if (m // tile) % count == 0)
  return SplashBlocks(queries=queries, keys=tiles * tile, tile=tile, n=n, m=m, k=size)


def _cut(length: int, most: int) -> tuple[int, int]:
  """Returns the block of `_SMALLEST` to `most` that pads `length` least, and the padded length."""
  most = min(most, -(-length // _LANES) * _LANES)
  blocks = range(most, min(most, _SMALLEST) - 1, -_LANES)
  return min(((block, -(-length // block) * block) for block in blocks), key=lambda cut: cut[1])


def _heads(x: Float[Array, 'b n g k'], length: int, size: int) -> Array:
  """Returns (b g n k), padded with zeros to `length` and `size`."""
  x = jnp.swapaxes(x, 1, 2)
  return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, size - x.shape[3])))


def _tokens(x: Float[Array, 'b g n k'], like: Array) -> Array:
  """Undoes `_heads`."""
  return jnp.swapaxes(x[:, :, : like.shape[1], : like.shape[3]], 1, 2)


def _pad(x: Float[Array, 'b g n'], length: int) -> Array:
  return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2])))


def _no_mask() -> 'splash_attention_mask_info.MaskInfo':
  """Returns an empty static mask: masks here are segment ids, so no table of blocks is built."""
  return splash_attention_mask_info.MaskInfo(None, None, None, None, None)


def _segments(mask: Array | None, k: Array, blocks: SplashBlocks) -> Any:
  """Puts all queries and the readable keys in segment 0, other keys and padding in 1.

  Padded queries read the same keys, but their dO is zero, so they add nothing to any gradient.
  """
  b, m = k.shape[:2]
  if mask is None:
    if m == blocks.m:
      return None
    mask = jnp.ones((b, m), bool)
  mask = jnp.pad(mask, ((0, 0), (0, blocks.m - m)))
  return splash.SegmentIds(jnp.zeros((b, blocks.n), jnp.int32), (~mask).astype(jnp.int32))
