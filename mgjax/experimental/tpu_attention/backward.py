"""The backward pass of attention on TPUs, as a function of `kernels/kernel.py`, in one kernel.

Keys are the outer loop and queries the inner one, so that dK and dV of a block gather while queries
pass by. All dQ, or those of a chunk of queries, stay in VMEM from the first block of keys to the
last. No partial gradient of the queries is written or read. Where queries read some tiles of keys
alone, a list of the pairs of tiles, by their keys, takes the place of both loops.

Scores are (keys, queries), P^T = exp(K Q^T - L): L and D are rows, and

  dV^T = dO^T P,    dK^T = Q^T dS,    dQ^T = K^T dS^T

have P and dS where the matrix unit keeps its weights. Heads of 128 then use all of it, on units of
256 x 256 as well. The inputs dO, Q and K are already transposed in VMEM.

Owner: nn/attention.py, for heads of 128 on matrix units of 256 x 256, which splash half fills.
Expires: 2027-06-30, or with the first hour on a TPU: `launch.bench --what=attention` then shows it
faster than splash and it moves to nn/kernels, or it is deleted.
"""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.plug_ins import Later
from mgjax.core.typing import Array, Float, Int
from mgjax.experimental.tpu_attention import layout
from mgjax.experimental.tpu_attention.layout import BY_ROWS, LOG2E, PLAIN, Keys, product
from mgjax.nn.kernels.kernel import MASKED, NOTHING, Saved
from mgjax.nn.kernels.tpu_blocks import MIB, Blocks, backward_blocks, backward_vmem

if TYPE_CHECKING:
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import tpu as pltpu
else:
  pl, pltpu = Later('jax.experimental.pallas'), Later('jax.experimental.pallas.tpu')

TILES = 12 * MIB  # VMEM for the compiler, beside what is counted


def backward(
  saved: Saved, do: Float[Array, 'b n g k'], *, index: Array | None = None, interpret: bool = False
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b m g k'], Float[Array, 'b m g k']]:
  """Returns what these keys and values contribute to dQ, and dK and dV, given dO; see `kernel.py`.

  Args:
    saved: q, k, v, mask, rowsum(dO * O) and L, the last two (b g n) and maybe of more keys than
      `k` has.
    index: of T tiles of `q` and of `k` the W whose keys each reads, as in the forward pass.
    interpret: runs the kernel without a TPU, slowly.
  """
  q, k, v, mask, delta, lse = saved
  b, n, g, size = q.shape
  tiles = index if index is None else index.shape[2:]
  blocks = backward_blocks(n, k.shape[1], size, q.dtype.itemsize, b * g, tiles)
  table = None if index is None else _pairs(layout.table(index, blocks), blocks)
  read = layout.readable_keys(mask, k, blocks.m, blocks.keys)
  arrays = (
    layout.heads(layout.scaled(q), blocks.n, blocks.k),
    layout.heads(do, blocks.n, blocks.k),
    layout.heads(k, blocks.m, blocks.k),
    layout.heads(v, blocks.m, blocks.k),
    # A power of 2^-1e30 is zero: what a row that read nothing, or that pads, has for a weight.
    layout.rows(jnp.where(lse <= NOTHING, -MASKED, lse * LOG2E), blocks.n, -MASKED),
    layout.rows(delta, blocks.n, 0.0),
  )
  run = functools.partial(_run, blocks=blocks, scale=size**-0.5, interpret=interpret)
  dq, dk, dv = layout.in_parts(run, read, table, *arrays)

  def of_keys(x: Array, like: Array) -> Array:
    x = x.reshape(b * g, blocks.chunks, -1, blocks.keys, blocks.k)
    if table is not None:  # what no query reads, the kernel did not write
      seen = ((table >> 21)[..., None] == jnp.arange(x.shape[2])[None, None]).any(axis=1)
      x = jnp.where(seen.reshape(-1, blocks.chunks, x.shape[2], 1, 1), x, jnp.zeros((), x.dtype))
    return layout.tokens(x.sum(axis=1).reshape(b * g, blocks.m, -1), like).astype(like.dtype)

  return layout.tokens(dq, q), of_keys(dk, k), of_keys(dv, v)


def _pairs(index: Int[Array, 'bg T W'], blocks: Blocks) -> Int[Array, '_bgc p']:
  """Returns the pairs of blocks of every chunk of queries, by their keys, in a number each: keys,
  queries, those whose dQ is the next that is complete; and whether these queries come first.
  """
  turns = blocks.n // blocks.queries // blocks.chunks
  more = turns * blocks.chunks - index.shape[1]
  index = jnp.pad(index, ((0, 0), (0, more), (0, 0))).reshape(-1, turns, index.shape[2])
  pairs = jnp.sort((index * turns + jnp.arange(turns)[None, :, None]).reshape(len(index), -1))
  keys = pairs // turns
  queries = pairs % turns
  pick = functools.partial(jnp.take_along_axis, axis=1)
  first, last = (keys == pick(f(index, axis=2), queries) for f in (jnp.min, jnp.max))
  places = jnp.where(last, jnp.arange(keys.shape[1])[None], keys.shape[1])
  complete = pick(queries, lax.cummin(places, axis=1, reverse=True))
  return keys << 21 | queries << 11 | complete << 1 | first


def _run(read: Keys | None, table: Array | None, *arrays: Array, blocks, scale, interpret):
  """Returns dQ, and dK and dV of every chunk, heads first."""
  heads = len(arrays[0])
  dtype = arrays[0].dtype
  columns = blocks.m // blocks.keys
  chunks = blocks.chunks
  turns = blocks.n // blocks.queries // chunks
  steps = (columns, turns) if table is None else (1, table.shape[1])
  g = heads // len(read.bias) if read else 1  # heads of a row

  def walk(h, j, i, tables):
    # Keys, queries, those whose dQ is written next, whether these come first, and a last time.
    own = lax.rem(h, chunks) * turns  # the queries that chunk h of the heads sees
    if table is None:  # dQ's place does not move before the last round, and so nothing is written
      last = j == columns - 1
      return j, own + i, own + jnp.where(last, i, 0), j == 0, last
    pair = tables[-1][lax.rem(h, len(table)) * table.shape[1] + i]
    queries, complete = pair >> 11 & 1023, pair >> 1 & 1023
    return pair >> 21, own + queries, own + complete, pair & 1 == 1, queries == complete

  def spec(shape, place):
    return pl.BlockSpec((None, *shape), lambda h, *at: place(h, *walk(h, *at[:2], at[2:])[:3]))

  head = lambda h: lax.div(h, chunks)  # noqa: E731
  per_query = spec((blocks.queries, blocks.k), lambda h, j, i, _: (head(h), i, 0))
  written = spec((blocks.queries, blocks.k), lambda h, j, i, complete: (head(h), complete, 0))
  per_key = spec((blocks.keys, blocks.k), lambda h, j, *_: (head(h), j, 0))
  gathered = spec((blocks.keys, blocks.k), lambda h, j, *_: (h, j, 0))
  sums = spec((1, blocks.queries), lambda h, j, i, _: (head(h), 0, i))
  bias = spec((1, blocks.keys), lambda h, j, *_: (lax.div(h, chunks * g), 0, j))
  scalars = [x.reshape(-1) for x in (read and read.states, table) if x is not None]
  grid = pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=len(scalars),
    grid=(heads * chunks, *steps),
    in_specs=[per_query, per_query, per_key, per_key, sums, sums] + ([bias] if read else []),
    out_specs=[written, gathered, gathered],
    scratch_shapes=[
      pltpu.VMEM((turns, blocks.k, blocks.queries), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.keys), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.keys), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.queries), dtype),
      pltpu.VMEM((blocks.k, blocks.queries), dtype),
      pltpu.VMEM((blocks.k, blocks.keys), dtype),
    ],
  )

  def kernel(*refs):
    tables = refs[: len(scalars)]
    refs = refs[len(scalars) :]
    h, j, i = map(pl.program_id, range(3))
    keys, queries, _, first, last = walk(h, j, i, tables)
    begins = i == 0
    ends = i == steps[1] - 1
    if table is not None:
      begins |= keys != walk(h, j, jnp.maximum(i - 1, 0), tables)[0]
      ends |= keys != walk(h, j, jnp.minimum(i + 1, steps[1] - 1), tables)[0]
    state = tables[0][lax.div(h, chunks * g) * columns + keys] if read else None
    refs = refs if read else (*refs[:6], None, *refs[6:])
    walked = lax.rem(queries, turns), begins, ends, first, last
    _kernel(state, *walked, *refs, blocks=blocks, scale=scale)

  part = jnp.float32 if chunks > 1 else None  # or sums of a few would be rounded between
  return pl.pallas_call(
    kernel,
    grid_spec=grid,
    out_shape=[
      jax.ShapeDtypeStruct((heads, blocks.n, blocks.k), dtype),
      jax.ShapeDtypeStruct((heads * chunks, blocks.m, blocks.k), part or arrays[2].dtype),
      jax.ShapeDtypeStruct((heads * chunks, blocks.m, blocks.k), part or arrays[3].dtype),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary'),
      vmem_limit_bytes=backward_vmem(blocks, dtype.itemsize) + TILES,
    ),
    interpret=interpret,
    name=f'attention_backward{"_tiles" * (table is not None)}',
  )(*scalars, *arrays, *([read.bias] if read else []))


def _kernel(
  state,
  i,
  begins,
  ends,
  first,
  last,
  q,
  do,
  k,
  v,
  lse,
  delta,
  bias,
  dq,
  dk,
  dv,
  dq_sum,
  dk_sum,
  dv_sum,
  q_side,
  do_side,
  k_side,
  *,
  blocks,
  scale,
):
  """One block, in turn i; the sums are dQ^T, dK^T and dV^T. The queries of its keys may begin and
  end here, and its queries may come first or for the last time."""

  @pl.when(begins)
  def _():
    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)
    k_side[...] = k[...].T

  @pl.when(first)
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

  @pl.when(ends)
  def _():
    # q holds scale and log2(e), of which the last is none of the scores'.
    dk[...] = (dk_sum[...] / LOG2E).T.astype(dk.dtype)
    dv[...] = dv_sum[...].T.astype(dv.dtype)

  @pl.when(last)
  def _():
    dq[...] = (dq_sum[i] * scale).T.astype(dq.dtype)
