"""What both attention kernels for TPUs do to their arrays: heads first, padded, keys in states.

Owner: nn/attention.py, for heads of 128 on matrix units of 256 x 256, which splash half fills.
Expires: 2027-06-30, or with the first hour on a TPU: `launch.bench --what=attention` then shows it
faster than splash and it moves to nn/kernels, or it is deleted.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.plug_ins import Later
from mgjax.core.typing import Array, Float
from mgjax.nn.kernels.kernel import MASKED
from mgjax.nn.kernels.tpu_blocks import LANES, SMEM, Blocks

if TYPE_CHECKING:
  from jax.experimental import pallas as pl
else:
  pl = Later('jax.experimental.pallas')  # a tenth of a second of every start, for TPUs alone

LOG2E = 1.4426950408889634  # the kernels take powers of 2, which is what the hardware has
ALL, SOME = 2, 1  # of a block's keys may be read; in a block in state 0 none
BY_ROWS = (((1,), (1,)), ((), ()))  # A B^T
PLAIN = (((1,), (0,)), ((), ()))  # A B


class Keys(NamedTuple):
  """Which keys may be read, where not all may.

  Attributes:
    states: of every block, (b, m / keys), for scalar memory.
    bias: what is added to a key's scores, (b 1 m): 0 or -1e30.
  """

  states: Array
  bias: Array


def scaled(q: Array) -> Array:
  """Returns queries whose products with keys are scores in powers of 2."""
  return q * (LOG2E * q.shape[-1] ** -0.5)


def heads(x: Float[Array, 'b n g k'], length: int, size: int) -> Array:
  """Returns (b g, n, k), padded with zeros to `length` and `size`."""
  b, n, g, k = x.shape
  x = jnp.swapaxes(x, 1, 2).reshape(b * g, n, k)
  return jnp.pad(x, ((0, 0), (0, length - n), (0, size - k)))


def tokens(x: Array, like: Float[Array, 'b n g k']) -> Array:
  """Undoes `heads`."""
  b, n, g, k = like.shape
  return jnp.swapaxes(x[:, :n, :k].reshape(b, g, n, k), 1, 2)


def rows(x: Float[Array, 'b g n'], length: int, fill: float) -> Array:
  """Returns (b g, 1, n), padded with `fill` to `length`."""
  b, g, n = x.shape
  return jnp.pad(x.reshape(b * g, 1, n), ((0, 0), (0, 0), (0, length - n)), constant_values=fill)


def readable_keys(mask: Array | None, k: Array, length: int, block: int) -> Keys | None:
  """Returns the states of blocks of keys, which are padded to `length`; None if all are read."""
  b, m = k.shape[:2]
  if mask is None:
    if m == length:
      return None
    mask = jnp.ones((b, m), bool)
  mask = jnp.pad(mask, ((0, 0), (0, length - m)))
  blocks = mask.reshape(b, -1, block)
  states = blocks.any(-1).astype(jnp.int32) + blocks.all(-1)
  return Keys(states, jnp.where(mask, 0.0, MASKED)[:, None])


def table(index: Array | None, blocks: Blocks) -> Array | None:
  """Returns which blocks of keys a block of queries reads (bg T W), of which tiles (b g T W) do."""
  if index is None:
    return None
  split = blocks.m * blocks.together // blocks.keys // index.shape[2]
  index = index.reshape(-1, *index.shape[2:], 1) * split + jnp.arange(split).reshape(1, 1, 1, -1)
  return jnp.repeat(index.reshape(*index.shape[:2], -1), split, axis=1)


def in_parts(run: Callable, read: Keys | None, table: Array | None, *arrays: Array, **how):
  """Calls `run(read, table, *arrays)`, with as many heads at once as scalar memory has room for."""
  heads = len(arrays[0])
  size = 0 if table is None else 4 * table.size
  parts = next(n for n in range(1, heads + 1) if heads % n == 0 and size <= SMEM * n)
  if parts == 1:
    return run(read, table, *arrays, **how)
  read = read and Keys(*(jnp.repeat(x, heads // len(x), axis=0) for x in read))
  cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), (read, table, *arrays))
  found = lax.map(lambda part: run(*part, **how), cut)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)


def in_turns(blocks: Blocks, begin, finish) -> None:
  """Calls `finish(*begin(tile), *tile)` for every tile (queries, keys) of a block.

  A tile begins before the last one is finished: in the order of the program, which the compiler
  keeps to, the matrix unit then has work while powers are taken.
  """
  tiles = [
    (slice(i, i + blocks.query_tile), slice(j, j + blocks.key_tile))
    for i in range(0, blocks.queries, blocks.query_tile)
    for j in range(0, blocks.keys, blocks.key_tile)
  ]
  following = begin(tiles[0])
  for index, tile in enumerate(tiles):
    begun = following
    if index + 1 < len(tiles):
      following = begin(tiles[index + 1])
    finish(*begun, *tile)


def in_state(state: Array | None, run) -> None:
  """Calls `run(masked)` in a kernel, as the keys of its block are."""
  if state is None:
    run(False)
    return
  pl.when(state == ALL)(lambda: run(False))
  pl.when(state == SOME)(lambda: run(True))


def column(bias: Float[Array, '1 m'], width: int) -> Float[Array, 'm n']:
  """Turns a row of numbers, one a key, into what is added to a tile of scores (keys, queries)."""
  wide = jnp.broadcast_to(bias, (LANES, bias.shape[1])).T
  return jnp.concatenate([wide] * (width // LANES), axis=1)


def product(x: Array, y: Array, dimensions) -> Array:
  """Multiplies two tiles, with sums in float32."""
  return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
