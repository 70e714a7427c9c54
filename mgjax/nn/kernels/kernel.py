"""The interface of an attention kernel: two functions of the arrays that one device holds.

forward(q, k, v, mask) -> (O, L)
  S = Q K^T / sqrt(k), L = log sum_m exp S, O = exp(S - L) V; scores and softmax in float32.

backward((q, k, v, mask, D, L), dO) -> (dQ, dK, dV)
  P = exp(S - L), dV = P^T dO, dS = P * (dO V^T - D), dQ = dS K / sqrt(k), dK = dS^T Q / sqrt(k)
  with D = rowsum(dO * O).

L and D may come from more keys than `k` holds, so a ring can process keys in steps. `q` is (b n g
k), `k` and `v` (b m g k), O has the shape and type of `q`, L and D are (b g n) in float32. `mask`
(b m) is True where a key may be read. A row without such a key has L <= NOTHING and a finite,
meaningless O, which `attend` sets to zero.
"""

import dataclasses
from collections.abc import Callable

from mgjax.core.typing import Array

# Finite: a row of -inf alone would make the softmax 0 / 0.
MASKED = -1e30
NOTHING = -1e29

Saved = tuple[Array, Array, Array, Array | None, Array, Array]


@dataclasses.dataclass(frozen=True)
class AttentionKernel:
  """A pair of functions, see above.

  With `takes_output` the backward pass takes O (b n g k) itself instead of D. The function
  `takes_tiles(T, s, W)` says whether both take an `index` of shape (b g T W) or (1 1 T W). It holds
  the W of T tiles that each tile reads.
  """

  forward: Callable[..., tuple[Array, Array]]
  backward: Callable[..., tuple[Array, Array, Array]]
  takes_output: bool = False
  takes_tiles: Callable[[int, int, int], bool] | None = None
