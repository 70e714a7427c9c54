"""The backward pass of attention on TPUs, as a function of `kernels/kernel.py`, in one kernel.

Keys are the outer loop and queries the inner one, so that dK and dV of a block gather while queries
pass by; dQ of all queries, or of a chunk of them, stays in VMEM from the first block of keys to the
last. No partial gradient of the queries is written or read.

Scores are (keys, queries), P^T = exp(K Q^T - L): L and D are rows, and

  dV^T = dO^T P,    dK^T = Q^T dS,    dQ^T = K^T dS^T

have P and dS where the matrix unit keeps its weights, all of which heads of 128 then use, on
units of 256 x 256 as well. dO, Q and K lie on their sides already when they come in, in VMEM.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.plug_ins import Later
from mgjax.core.typing import Array, Float
from mgjax.nn.kernels.kernel import MASKED, NOTHING, Saved
from mgjax.nn.kernels.tpu import layout
from mgjax.nn.kernels.tpu.blocks import MIB, backward_blocks, backward_vmem
from mgjax.nn.kernels.tpu.layout import BY_ROWS, LOG2E, PLAIN, product

if TYPE_CHECKING:
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import tpu as pltpu
else:
  pl, pltpu = Later('jax.experimental.pallas'), Later('jax.experimental.pallas.tpu')

TILES = 12 * MIB  # VMEM for the compiler, beside what is counted


def backward(
  saved: Saved, do: Float[Array, 'b n g k'], *, interpret: bool = False
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b m g k'], Float[Array, 'b m g k']]:
  """Returns what these keys and values contribute to dQ, and dK and dV, given dO; see `kernel.py`.

  Args:
    saved: q, k, v, mask, rowsum(dO * O) and L, the last two (b g n) and maybe of more keys than
      `k` has.
    interpret: runs the kernel without a TPU, slowly.
  """
  q, k, v, mask, delta, lse = saved
  b, n, g, size = q.shape
  blocks = backward_blocks(n, k.shape[1], size, q.dtype.itemsize, b * g)
  read = layout.readable_keys(mask, k, blocks.m, blocks.keys)
  columns, chunks = blocks.m // blocks.keys, blocks.chunks
  turns = blocks.n // blocks.queries // chunks

  def own(h, i):  # the block of queries that chunk h of the heads sees in turn i
    return lax.rem(h, chunks) * turns + i

  per_query = pl.BlockSpec(
    (None, blocks.queries, blocks.k), lambda h, j, i, *_: (lax.div(h, chunks), own(h, i), 0)
  )
  # dQ is written in the last round; before, its place does not move, and so nothing is.
  written = pl.BlockSpec(
    (None, blocks.queries, blocks.k),
    lambda h, j, i, *_: (lax.div(h, chunks), own(h, jnp.where(j == columns - 1, i, 0)), 0),
  )
  per_key = pl.BlockSpec(
    (None, blocks.keys, blocks.k), lambda h, j, i, *_: (lax.div(h, chunks), j, 0)
  )
  gathered = pl.BlockSpec((None, blocks.keys, blocks.k), lambda h, j, i, *_: (h, j, 0))
  sums = pl.BlockSpec(
    (None, 1, blocks.queries), lambda h, j, i, *_: (lax.div(h, chunks), 0, own(h, i))
  )
  bias = pl.BlockSpec((None, 1, blocks.keys), lambda h, j, i, *_: (lax.div(h, chunks * g), 0, j))
  grid = pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=1 if read else 0,
    grid=(b * g * chunks, columns, turns),
    in_specs=[per_query, per_query, per_key, per_key, sums, sums] + ([bias] if read else []),
    out_specs=[written, gathered, gathered],
    scratch_shapes=[
      pltpu.VMEM((turns, blocks.k, blocks.queries), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.keys), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.keys), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.queries), q.dtype),
      pltpu.VMEM((blocks.k, blocks.queries), q.dtype),
      pltpu.VMEM((blocks.k, blocks.keys), q.dtype),
    ],
  )

  def kernel(*refs):
    row = lax.div(pl.program_id(0), chunks * g)
    state = refs[0][row * columns + pl.program_id(1)] if read else None
    refs = refs[1:] if read else (*refs[:6], None, *refs[6:])
    _kernel(state, *refs, blocks=blocks, last=(columns - 1, turns - 1), scale=size**-0.5)

  part = jnp.float32 if chunks > 1 else None  # or sums of a few would be rounded between
  arrays = (
    layout.heads(layout.scaled(q), blocks.n, blocks.k),
    layout.heads(do, blocks.n, blocks.k),
    layout.heads(k, blocks.m, blocks.k),
    layout.heads(v, blocks.m, blocks.k),
    # A power of 2^-1e30 is zero: what a row that read nothing, or that pads, has for a weight.
    layout.rows(jnp.where(lse <= NOTHING, -MASKED, lse * LOG2E), blocks.n, -MASKED),
    layout.rows(delta, blocks.n, 0.0),
  )
  dq, dk, dv = pl.pallas_call(
    kernel,
    grid_spec=grid,
    out_shape=[
      jax.ShapeDtypeStruct((b * g, blocks.n, blocks.k), q.dtype),
      jax.ShapeDtypeStruct((b * g * chunks, blocks.m, blocks.k), part or k.dtype),
      jax.ShapeDtypeStruct((b * g * chunks, blocks.m, blocks.k), part or v.dtype),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary'),
      vmem_limit_bytes=backward_vmem(blocks, q.dtype.itemsize) + TILES,
    ),
    interpret=interpret,
    name='attention_backward',
  )(*((read.states, *arrays, read.bias) if read else arrays))

  def of_keys(x: Array, like: Array) -> Array:
    x = x.reshape(b * g, chunks, *x.shape[1:]).sum(axis=1) if chunks > 1 else x
    return layout.tokens(x, like).astype(like.dtype)

  return layout.tokens(dq, q), of_keys(dk, k), of_keys(dv, v)


def _kernel(
  state, q, do, k, v, lse, delta, bias, dq, dk, dv,
  dq_sum, dk_sum, dv_sum, q_side, do_side, k_side, *, blocks, last, scale,
):  # fmt: skip
  """One block; the sums are dQ^T, dK^T and dV^T."""
  j, i = pl.program_id(1), pl.program_id(2)

  @pl.when(i == 0)
  def _():
    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)
    k_side[...] = k[...].T

  @pl.when(j == 0)
  def _():
    dq_sum[i] = jnp.zeros(dq_sum.shape[1:], jnp.float32)

  def products_of(queries: slice, keys: slice, masked: bool) -> tuple[Array, Array]:
    scores = product(k[keys], q[queries], BY_ROWS)
    scores = scores + layout.column(bias[:, keys], blocks.query_tile) if masked else scores
    return scores, product(v[keys], do[queries], BY_ROWS)

  def gather(scores: Array, changes: Array, queries: slice, keys: slice) -> None:
    weights = jnp.exp2(scores - lse[:, queries])
    changes = (weights * (changes - delta[:, queries])).astype(q.dtype)
    dv_sum[:, keys] += product(do_side[:, queries], weights.astype(do.dtype), BY_ROWS)
    dk_sum[:, keys] += product(q_side[:, queries], changes, BY_ROWS)
    dq_sum[i, :, queries] += product(k_side[:, keys], changes, PLAIN)

  def block(masked: bool) -> None:
    q_side[...] = q[...].T
    do_side[...] = do[...].T
    layout.in_turns(blocks, lambda tile: products_of(*tile, masked), gather)

  layout.in_state(state, block)

  @pl.when(i == last[1])
  def _():
    # q holds scale and log2(e), of which the last is none of the scores'.
    dk[...] = (dk_sum[...] / LOG2E).T.astype(dk.dtype)
    dv[...] = dv_sum[...].T.astype(dv.dtype)

  @pl.when(j == last[0])
  def _():
    dq[...] = (dq_sum[i] * scale).T.astype(dq.dtype)
