"""Block sizes of the attention kernels for TPUs, searched with a cost model.

A kernel iterates over a grid of blocks, (queries, keys), and within a block over tiles, which are
computed at once. The unit of cost is the bundle, the instructions that a core issues in a cycle.
The constants are from libtpu's schedules of these kernels
(docs/experiments/tpu_attention_kernels.md). They are the costs of 1,024 scores; of filling and
draining the products of a tile; of moving blocks in a grid step; and of writing the sums of a row
of blocks. Blocks that move too many bytes for that time wait for memory.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

LANES = 128
MIB = 2**20
BLOCK = 2048  # the longest side of a block
_STEP = 110  # bundles of a step of the grid
TILE = 40  # bundles in which the products of a tile fill and drain, overlapped with another tile
BANDWIDTH = 470  # bytes a bundle: v5e's, the least of the chips
SMEM = 900 * 1024  # of 1 MiB for scalars, of which the compiler uses some
VMEM = 40 * MIB  # of the 64 MiB a core of v5p and TPU7x, of which the compiler uses some


@dataclasses.dataclass(frozen=True)
class Pass:
  """Constants of the forward or the backward pass.

  Attributes:
    bundles: of 1,024 scores.
    turn: bundles a row to begin and end its sums.
    tile: scores that are computed at once; with more, registers spill.
    block: scores of a block, whose tiles are unrolled in the program.
    kept: bytes of float32 sums that may stay in VMEM from one row of blocks to the next.
  """

  bundles: float
  turn: float
  tile: int
  block: int
  kept: int = 0


FORWARD = Pass(bundles=1.6, turn=0.4, tile=2**18, block=2**21)
BACKWARD = Pass(bundles=3.5, turn=0.7, tile=2**17, block=2**20, kept=20 * MIB)
QUERY_TILE = 512


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Sizes of a kernel.

  Attributes:
    query_tile: queries that are computed at once; divides `queries`.
    n: queries, padded.
    m: keys, padded.
    k: the size of a head, padded.
    chunks: number of parts of the queries in the backward pass: a chunk's dQ stays in VMEM, and
      each chunk adds its own part of dK and dV.
    together: parts of a block of keys, each read from its own position.
  """

  queries: int
  keys: int
  query_tile: int
  key_tile: int
  n: int
  m: int
  k: int
  chunks: int = 1
  together: int = 1


def forward_blocks(n: int, m: int, k: int, itemsize: int, tiles=None) -> Blocks:
  """Returns the cheapest blocks for one head of the forward pass; `tiles` are T and W, if any."""
  return _search(FORWARD, n, m, k, itemsize, 1, tiles)


def backward_blocks(n: int, m: int, k: int, itemsize: int, heads: int, tiles=None) -> Blocks:
  """Returns the cheapest blocks for the backward pass of some heads.

  A device of v4 and v5p has two cores, which share heads or chunks. So an odd number of heads gets
  an even number of chunks, if there are enough queries.
  """
  return _search(BACKWARD, n, m, k, itemsize, heads, tiles)


def takes_tiles(tiles: int, size: int, read: int) -> bool:
  """Returns whether scalar memory can hold the index of the `read` tiles that each tile reads.

  It has one number for each pair of blocks, with ten bits for either."""
  split = size // _of_tiles(BACKWARD, tiles * size, 2 * LANES, 4, 1, (tiles, read)).queries
  return tiles * split <= 1024 and 4 * (tiles * split + 8) * read * split <= SMEM


def _of_tiles(which: Pass, n: int, k: int, itemsize: int, heads: int, tiles) -> Blocks:
  """Returns blocks for tiles: a block of queries is a tile or a part of one.

  The forward pass takes a few parts of keys at once, so that their products overlap."""
  most = min(which.block, which.block * 2 * LANES // (k * itemsize))
  side = _tile(n // tiles[0], min(math.isqrt(most), BLOCK // 2))
  columns = tiles[1] * (n // tiles[0] // side)
  longest = min(most // side, BLOCK)
  together = _tile(columns * LANES, longest // side * LANES) // LANES if which is FORWARD else 1
  chunks, padded = _chunks(which, n, side, k, heads)
  query_tile = _tile(side, QUERY_TILE)
  key_tile = _tile(together * side, which.tile // query_tile)
  return Blocks(side, together * side, query_tile, key_tile, padded, n, k, chunks, together)


def backward_chunks(n: int, k: int, heads: int) -> int:
  """Returns the minimum number of query chunks in the backward pass of some heads."""
  return _chunks(BACKWARD, n, LANES, -(-k // LANES) * LANES, heads)[0]


def forward_vmem(blocks: Blocks, itemsize: int) -> int:
  """Returns the bytes of VMEM of the forward kernel, without those of its tiles."""
  queries = blocks.queries * blocks.k
  keys = blocks.keys * blocks.k
  rows = 2 * 8 * 4 * (blocks.queries + blocks.keys)  # L and the mask: one row is stored as eight
  moved = 2 * itemsize * (2 * queries + 2 * keys)  # q, O, k, v; double buffered
  return moved + rows + 4 * queries + 2 * 8 * 4 * blocks.queries + itemsize * keys  # V transposed


def backward_vmem(blocks: Blocks, itemsize: int) -> int:
  """Returns the bytes of VMEM of the backward kernel, without those of its tiles."""
  queries = blocks.queries * blocks.k
  keys = blocks.keys * blocks.k
  rows = 2 * 8 * 4 * (2 * blocks.queries + blocks.keys)
  moved = 2 * itemsize * (3 * queries + 2 * keys) + 2 * 4 * 2 * keys  # q, dO, dQ; k, v; dK, dV
  sums = 4 * (blocks.n // blocks.chunks) * blocks.k + 2 * 4 * keys  # sums: dQ; dK, dV
  return moved + rows + sums + itemsize * (2 * queries + keys)  # and q, dO, k transposed


def cost(blocks: Blocks, which: Pass, itemsize: int) -> float:
  """Returns the bundles that one head takes by the cost model."""
  rows, columns = blocks.n // blocks.queries, blocks.m // blocks.keys
  tiles = (blocks.n // blocks.query_tile) * (blocks.m // blocks.key_tile)
  scores = blocks.n * blocks.m / 1024
  summed = blocks.n if which is FORWARD else blocks.m * blocks.chunks
  work = which.bundles * scores * blocks.k / LANES + TILE * tiles
  moved = blocks.keys if which is FORWARD else 2 * blocks.queries  # k, v; or q, dO, L, D
  traffic = rows * columns * 2 * moved * blocks.k * itemsize / BANDWIDTH
  return max(work, traffic) + _STEP * rows * columns + which.turn * summed


@functools.lru_cache(maxsize=256)
def _search(which: Pass, n: int, m: int, k: int, itemsize: int, heads: int, tiles=None) -> Blocks:
  k = -(-k // LANES) * LANES
  if tiles:
    return _of_tiles(which, n, k, itemsize, heads, tiles)
  candidates = list(_candidates(which, n, m, k, itemsize, heads))
  # Ties go to the blocks with fewer bytes.
  return min(
    candidates, key=lambda blocks: (cost(blocks, which, itemsize), blocks.queries, blocks.keys)
  )


def _candidates(which, n, m, k, itemsize, heads) -> Iterator[Blocks]:
  vmem = forward_vmem if which is FORWARD else backward_vmem
  most = min(which.block, which.block * 2 * LANES // (k * itemsize))
  for queries, keys in itertools.product(_sides(n), _sides(m)):
    if queries * keys > most and (queries, keys) != (LANES, LANES):
      continue
    chunks, padded = _chunks(which, n, queries, k, heads)
    query_tile = _tile(queries, QUERY_TILE)
    tiles = {'query_tile': query_tile, 'key_tile': _tile(keys, which.tile // query_tile)}
    blocks = Blocks(queries, keys, **tiles, n=padded, m=-(-m // keys) * keys, k=k, chunks=chunks)
    if vmem(blocks, itemsize) <= VMEM:
      yield blocks


def _chunks(which: Pass, n: int, queries: int, k: int, heads: int) -> tuple[int, int]:
  """Returns the number of chunks and the queries of all of them."""
  rows = -(-n // queries)
  if which is FORWARD:
    return 1, rows * queries
  chunks = max(-(-rows * queries * k * 4 // which.kept), 1)
  if heads * chunks % 2 and rows > 1:
    chunks += 1
  return chunks, -(-rows // chunks) * chunks * queries


def _sides(length: int) -> range:
  return range(LANES, min(BLOCK, -(-length // LANES) * LANES) + 1, LANES)


def _tile(side: int, most: int) -> int:
  """Returns the largest divisor of `side` that is at most `most`, a multiple of `LANES`."""
  lanes = side // LANES
  fitting = [count for count in range(1, lanes + 1) if lanes % count == 0]
  return LANES * max((count for count in fitting if count * LANES <= most), default=1)
