"""Rematerialisation policies in numbers: what each keeps of a layer, and what it recomputes.

Counts are per token, in numbers of width d and f and in products of d^2 and d f. `nn/remat_scan.py`
has the policies; `tests/lab/planning/test_policies.py` compares these counts with the traced
programs.
"""

import dataclasses
from collections.abc import Mapping

from mgjax.core.errors import check_one_of
from mgjax.lab.planning.workload import Workload
from mgjax.models.flow_model.flops import MATRICES


@dataclasses.dataclass(frozen=True)
class Policy:
  """The counts of one policy of `nn/remat_scan.py`.

  Attributes:
    keeps_d: arrays of width d kept of every layer, its input included.
    keeps_f: arrays of width f, by kind of feed-forward network.
    keeps_sums: log-sum-exps kept, one a head.
    recomputed_square: products of d^2, of the layer's six with tokens.
    recomputed_hidden: products of d f, of the layer's three or two, by kind of the network.
    recomputed_context: whether keys and values of the context are recomputed.
    recomputed_self: whether the kernel of self-attention runs again.
    recomputed_cross: whether the kernel of cross-attention does.
    recomputed_exchange: arrays that cross the context axis again.
    offloads: whether what is kept waits in the host's memory.
    keeps_norms: arrays of width d kept besides where norms have weights, for their gradients.
  """

  keeps_d: int
  keeps_f: Mapping[str, int]
  keeps_sums: int
  recomputed_square: int
  recomputed_hidden: Mapping[str, int]
  recomputed_context: bool
  recomputed_self: bool
  recomputed_cross: bool
  recomputed_exchange: int
  offloads: bool = False
  keeps_norms: int = 0


# A layer's products: query, key, value, out, cross query, cross out (d^2); gate, up, down (d f).
# Gates of the modulation learn from what they multiply, so the outputs of `out` and `down` are
# needed again. 'attention' keeps the result of self-attention, 'inputs' are its q, k and v,
# 'projections' those, the query and the result of cross-attention, gate and up.
_NONE = dict.fromkeys(MATRICES, 0)
_ALL = MATRICES
_PROJECTED = {'swiglu': 2, 'gelu': 1, 'silu': 1}
POLICIES = {
  'full': Policy(1, _NONE, 0, 6, _ALL, True, True, True, 4),
  'attention': Policy(2, _NONE, 1, 6, _ALL, True, False, True, 3),
  'attention_and_inputs': Policy(5, _NONE, 1, 3, _ALL, True, False, True, 0),
  'attention_and_projections': Policy(
    7, _PROJECTED, 2, 2, dict.fromkeys(MATRICES, 1), False, False, False, 0
  ),
  'offload': Policy(2, _NONE, 1, 6, _ALL, True, False, True, 3, offloads=True),
  'nothing': Policy(
    21, {'swiglu': 6, 'gelu': 6, 'silu': 4}, 2, 0, _NONE, False, False, False, 0, keeps_norms=12
  ),
}
ORDER = (  # leanest first
  'offload',
  'full',
  'attention',
  'attention_and_inputs',
  'attention_and_projections',
  'nothing',
)


def find_policy(name: str) -> Policy:
  """Returns a policy by name; raises ConfigError where there is none."""
  check_one_of(f'unknown remat policy {name!r}', name, POLICIES)
  return POLICIES[name]


def recomputed_attention(policy: Policy, work: Workload) -> int:
  """Counts the operations of attention that one sample's backward pass recomputes."""
  flops = work.flops
  return (
    policy.recomputed_self * flops.self_attention + policy.recomputed_cross * flops.cross_attention
  )


def recomputed_linear(policy: Policy, work: Workload) -> int:
  """Counts the operations of the linear maps that one sample's backward pass recomputes."""
  square = work.dim**2
  mlp_dim = work.dim * work.mlp_dim
  a_token = (
    policy.recomputed_square * square + policy.recomputed_hidden[work.feed_forward] * mlp_dim
  )
  context = 2 * work.context * square if policy.recomputed_context else 0
  return work.depth * 2 * (work.tokens * a_token + context)
