"""The forward pass of attention on TPUs, as a function of `kernels/kernel.py`.

Scores are (keys, queries): what a query needs of all keys, their maximum and sum, are then sums of
registers, and O^T = V^T P^T has P where the matrix unit keeps its weights. Of a unit of 256 x 256
(v6e, TPU7x), O = P V with heads of 128 would use half; this uses all of it.

A maximum of scores keeps powers from overflowing, and costs a pass over the scores. By Cauchy and
Schwarz, |q k| <= |q| |k|: where that is small for the longest of the queries and keys that the
kernel sees, which is looked at every time, it is left out.

Where queries read some tiles of keys alone, an index in scalar memory says where a step fetches.

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
from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.experimental.tpu_attention import layout
from mgjax.experimental.tpu_attention.layout import BY_ROWS, PLAIN, Keys, product
from mgjax.nn.kernels.kernel import MASKED, NOTHING
from mgjax.nn.kernels.tpu_blocks import MIB, forward_blocks, forward_vmem

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
  index: Int[Array, '_b _g T W'] | None = None,
  interpret: bool = False,
) -> tuple[Float[Array, 'b n g k'], Float[Array, 'b g n']]:
  """Returns O and L; see `kernel.py`. A row that may read nothing has O = 0 and L = -1e30.

  Args:
    index: of T tiles, one after another in `q` and in `k`, the W whose keys each reads; of all
      heads, or (1 1 T W) if they read the same. See `blocks.takes_tiles`.
    interpret: runs the kernel without a TPU, slowly.
  """
  b, n, g, size = q.shape
  tiles = None if index is None else index.shape[2:]
  blocks = forward_blocks(n, k.shape[1], size, q.dtype.itemsize, tiles)
  read = layout.readable_keys(mask, k, blocks.m, blocks.keys // blocks.together)
  q2 = layout.scaled(q)
  arrays = (
    layout.heads(q2, blocks.n, blocks.k),
    layout.heads(k, blocks.m, blocks.k),
    layout.heads(v, blocks.m, blocks.k),
  )
  table = layout.table(index, blocks)
  run = functools.partial(layout.in_parts, _run, blocks=blocks, interpret=interpret)
  if q.dtype in WIDE:
    fixed = functools.partial(run, running=False)
    running = functools.partial(run, running=True)
    o, lse = lax.cond(safe(q2, k, v), fixed, running, read, table, *arrays)
  else:
    o, lse = run(read, table, *arrays, running=True)
  o = layout.tokens(o, q)
  lse = lse[:, 0, :n].reshape(b, g, n)
  if mask is None:
    return o, lse
  nothing = lse <= NOTHING  # a number that is none stays one
  o = jnp.where(jnp.swapaxes(nothing, 1, 2)[..., None], jnp.zeros((), o.dtype), o)
  return o, jnp.where(nothing, MASKED, lse)


def safe(q2: Array, k: Array, v: Array) -> Bool[Array, '']:
  """Tells whether scores, q2 k in powers of 2, need no maximum; False if a number is not one."""

  def longest(x: Array) -> Float[Array, 'b g']:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1).max(axis=1))

  reach = (longest(q2) * longest(k)).max()
  return (reach <= REACH) & (jnp.abs(v).max().astype(jnp.float32) <= VALUES)


def _run(read: Keys | None, table: Array | None, *arrays: Array, blocks, running, interpret):
  """Returns O (bg n k) and L (bg 1 n) of q, k and v, heads first; `table` says where keys are."""
  q, k, v = arrays
  together = range(blocks.together)
  side = blocks.keys // blocks.together
  columns = (blocks.m // side if table is None else table.shape[2]) // len(together)
  g = len(q) // len(read.bias) if read else 1  # heads of a row

  def found(h, i, j, part, tables):  # the keys that are the part of a block
    if table is None:
      return j
    row = lax.rem(h, len(table)) * table.shape[1] + i
    return tables[-1][row * table.shape[2] + j * len(together) + part]

  def fetched(shape, place):
    at = lambda h, i, j, *t, part: place(h, found(h, i, j, part, t))  # noqa: E731
    return [pl.BlockSpec(shape, functools.partial(at, part=part)) for part in together]

  per_query = pl.BlockSpec((None, blocks.queries, blocks.k), lambda h, i, j, *_: (h, i, 0))
  per_key = fetched((None, side, blocks.k), lambda h, j: (h, j, 0))
  sums = pl.BlockSpec((None, 1, blocks.queries), lambda h, i, j, *_: (h, 0, i))
  bias = fetched((None, 1, side), lambda h, j: (lax.div(h, g), 0, j)) if read else []
  scalars = [x.reshape(-1) for x in (read and read.states, table) if x is not None]
  grid = pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=len(scalars),
    grid=(len(q), blocks.n // blocks.queries, columns),
    in_specs=[per_query, *per_key, *per_key, *bias],
    out_specs=[per_query, sums],
    scratch_shapes=[
      pltpu.VMEM((blocks.k, blocks.queries), jnp.float32),
      pltpu.VMEM((8, blocks.queries), jnp.float32),
      pltpu.VMEM((1, blocks.queries), jnp.float32),
      pltpu.VMEM((blocks.k, blocks.keys), v.dtype),
    ],
  )

  def kernel(*refs):
    tables = refs[: len(scalars)]
    (q, *refs) = refs[len(scalars) :]
    state = None
    k, v, bias = (refs[n * len(together) :][: len(together)] for n in range(3))
    if read:
      h, *at = map(pl.program_id, range(3))
      first = lax.div(h, g) * read.states.shape[1]
      states = [tables[0][first + found(h, *at, part, tables)] for part in together]
      least, most = (functools.reduce(f, states) for f in (jnp.minimum, jnp.maximum))
      state = jnp.where(least == most, least, layout.SOME)
    _kernel(state, q, k, v, bias, *refs[-6:], blocks=blocks, columns=columns, running=running)

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
    name=f'attention_forward_{"running" if running else "fixed"}{"_tiles" * (table is not None)}',
  )(*scalars, q, *[k] * len(per_key), *[v] * len(per_key), *[read and read.bias] * len(bias))


def _kernel(state, q, k, v, bias, o, lse, total, sums, top, v_side, *, blocks, columns, running):
  """One block; O^T gathers in `total`, the sum of powers in 8 rows of `sums`."""
  j = pl.program_id(2)

  @pl.when(j == 0)
  def _():
    total[...] = jnp.zeros_like(total)
    sums[...] = jnp.zeros_like(sums)
    top[...] = jnp.full_like(top, MASKED if running else 0.0)

  def whole(refs, axis: int = 0) -> Array:
    return jnp.concatenate([x[...] for x in refs], axis)

  def scores_of(queries: slice, keys: slice, masked: bool) -> Array:
    scores = product(whole(k)[keys], q[queries], BY_ROWS)
    return scores + layout.column(whole(bias, 1)[:, keys], blocks.query_tile) if masked else scores

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
    add(total, product(v_side[:, keys], powers.astype(v_side.dtype), PLAIN))

  def block(masked: bool) -> None:
    v_side[...] = whole(v).T
    layout.in_turns(blocks, lambda tile: (scores_of(*tile, masked),), gather)

  layout.in_state(state, block)

  @pl.when(j == columns - 1)
  def _():
    whole = sums[...].sum(axis=0, keepdims=True)
    o[...] = (total[...] / whole).T.astype(o.dtype)
    lse[...] = (jnp.log2(whole) + top[...]) / layout.LOG2E
