"""The forward pass of attention on TPUs, as a function of `kernels/kernel.py`.

Scores are (keys, queries): what a query needs of all keys, their maximum and sum, are then sums of
registers, and O^T = V^T P^T has P where the matrix unit keeps its weights. Of a unit of 256 x 256
(v6e, TPU7x), O = P V with heads of 128 would use half; this uses all of it.

A maximum of scores keeps powers from overflowing, and costs a pass over the scores. By Cauchy and
Schwarz, |q k| <= |q| |k|: where that is small for the longest of the queries and keys that the
kernel sees, which is looked at every time, it is left out.
"""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.plug_ins import Later
from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.kernels.kernel import MASKED
from mgjax.nn.kernels.tpu import layout
from mgjax.nn.kernels.tpu.blocks import MIB, Blocks, forward_blocks, forward_vmem
from mgjax.nn.kernels.tpu.layout import BY_ROWS, PLAIN, Keys, product

if TYPE_CHECKING:
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import tpu as pltpu
else:
  pl, pltpu = Later('jax.experimental.pallas'), Later('jax.experimental.pallas.tpu')

# Scores are powers of 2 between 2^-60 and 2^60, values below 2^40: sums over 2^24 keys stay below
# 2^124, and a float32 or bfloat16 ends at 2^127. A sum is at least 2^-60, 2^66 above the least.
REACH = 60.0
VALUES = 2.0**40
WIDE = (jnp.float32, jnp.bfloat16)  # types that reach so far
TILES = 12 * MIB  # VMEM for the compiler, beside what is counted


def forward(
  q: Float[Array, 'b n g k'],
  k: Float[Array, 'b m g k'],
  v: Float[Array, 'b m g k'],
  mask: Bool[Array, 'b m'] | None,
  *,
  interpret: bool = False,
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b g n']]:
  """Returns O and L; see `kernel.py`. A row that may read nothing has O = 0 and L = -1e30.

  `interpret` runs the kernel without a TPU, slowly.
  """
  b, n, g, size = q.shape
  blocks = forward_blocks(n, k.shape[1], size, q.dtype.itemsize)
  read = layout.readable_keys(mask, k, blocks.m, blocks.keys)
  q2 = layout.scaled(q)
  arrays = (
    layout.heads(q2, blocks.n, blocks.k),
    layout.heads(k, blocks.m, blocks.k),
    layout.heads(v, blocks.m, blocks.k),
  )
  run = functools.partial(_run, blocks=blocks, g=g, interpret=interpret)
  if q.dtype in WIDE:
    fixed = functools.partial(run, running=False)
    running = functools.partial(run, running=True)
    o, lse = lax.cond(safe(q2, k, v), fixed, running, read, *arrays)
  else:
    o, lse = run(read, *arrays, running=True)
  o, lse = layout.tokens(o, q), lse[:, 0, :n].reshape(b, g, n)
  if mask is None:
    return o, lse
  readable = mask.any(axis=-1)[:, None, None]
  return jnp.where(readable[..., None], o, 0), jnp.where(readable, lse, MASKED)


def safe(q2: Array, k: Array, v: Array) -> Bool[Array, '']:
  """Tells whether scores, q2 k in powers of 2, need no maximum; False if a number is not one."""

  def longest(x: Array) -> Float[Array, 'b g']:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1).max(axis=1))

  reach = (longest(q2) * longest(k)).max()
  return (reach <= REACH) & (jnp.abs(v).max().astype(jnp.float32) <= VALUES)


def _run(
  read: Keys | None,
  q: Float[Array, 'bg n k'],
  k: Float[Array, 'bg m k'],
  v: Float[Array, 'bg m k'],
  *,
  blocks: Blocks,
  g: int,
  running: bool,
  interpret: bool,
) -> tuple[Float[Array, 'bg n k'], Float[Array, 'bg 1 n']]:
  columns = blocks.m // blocks.keys
  per_query = pl.BlockSpec((None, blocks.queries, blocks.k), lambda h, i, j, *_: (h, i, 0))
  per_key = pl.BlockSpec((None, blocks.keys, blocks.k), lambda h, i, j, *_: (h, j, 0))
  sums = pl.BlockSpec((None, 1, blocks.queries), lambda h, i, j, *_: (h, 0, i))
  bias = pl.BlockSpec((None, 1, blocks.keys), lambda h, i, j, *_: (lax.div(h, g), 0, j))
  grid = pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=1 if read else 0,
    grid=(len(q), blocks.n // blocks.queries, columns),
    in_specs=[per_query, per_key, per_key] + ([bias] if read else []),
    out_specs=[per_query, sums],
    scratch_shapes=[
      pltpu.VMEM((blocks.k, blocks.queries), jnp.float32),
      pltpu.VMEM((8, blocks.queries), jnp.float32),
      pltpu.VMEM((1, blocks.queries), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.keys), v.dtype),
    ],
  )

  def kernel(*refs):
    state = refs[0][lax.div(pl.program_id(0), g) * columns + pl.program_id(2)] if read else None
    refs = refs[1:] if read else (*refs[:3], None, *refs[3:])
    _kernel(state, *refs, blocks=blocks, columns=columns, running=running)

  return pl.pallas_call(
    kernel,
    grid_spec=grid,
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((len(q), 1, blocks.n), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=forward_vmem(blocks, q.dtype.itemsize) + TILES,
    ),
    interpret=interpret,
    name=f'attention_forward_{"running" if running else "fixed"}',
  )(*((read.states, q, k, v, read.bias) if read else (q, k, v)))


def _kernel(state, q, k, v, bias, o, lse, total, sums, top, v_side, *, blocks, columns, running):
  """One block; O^T gathers in `total`, the sum of powers in 8 rows of `sums`."""
  j = pl.program_id(2)

  @pl.when(j == 0)
  def _():
    total[...] = jnp.zeros_like(total)
    sums[...] = jnp.zeros_like(sums)
    top[...] = jnp.full_like(top, MASKED if running else 0.0)

  def scores_of(queries: slice, keys: slice, masked: bool) -> Array:
    scores = product(k[keys], q[queries], BY_ROWS)
    return scores + layout.column(bias[:, keys], blocks.query_tile) if masked else scores

  def gather(scores: Array, queries: slice, keys: slice) -> None:
    earlier = None
    if running:
      highest = jnp.maximum(top[:, queries], scores.max(axis=0, keepdims=True))
      earlier = jnp.exp2(top[:, queries] - highest)
      top[:, queries] = highest
      scores -= highest
    powers = jnp.exp2(scores)

    def add(to, more):
      before = to[:, queries]
      to[:, queries] = more + (before if earlier is None else earlier * before)

    add(sums, powers.reshape(-1, 8, blocks.query_tile).sum(axis=0))
    add(total, product(v_side[:, keys], powers.astype(v.dtype), PLAIN))

  def block(masked: bool) -> None:
    v_side[...] = v[...].T
    layout.in_turns(blocks, lambda tile: (scores_of(*tile, masked),), gather)

  layout.in_state(state, block)

  @pl.when(j == columns - 1)
  def _():
    whole = sums[...].sum(axis=0, keepdims=True)
    o[...] = (total[...] / whole).T.astype(o.dtype)
    lse[...] = (jnp.log2(whole) + top[...]) / layout.LOG2E
