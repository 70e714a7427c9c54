"""Lists the collectives of a training step by formula, or those of a forward pass alone."""

import dataclasses
import math
from collections.abc import Mapping

from mgjax.lab.planning.efficiency import Ends
from mgjax.lab.planning.memory import ChipShare, parameter_bytes, share_of_chip
from mgjax.lab.planning.network import AxisNetwork
from mgjax.lab.planning.policies import Policy, find_policy
from mgjax.lab.planning.workload import Workload, sharding_axes
from mgjax.nn.attention import heads_exchanged
from mgjax.parallel.chips import Chip

# XLA for GPUs sends together what a turn of the loop gathers or scatters, up to so many bytes: its
# `kDefaultAllGatherCombineThreshold`.
COMBINED = 30 * 2**20


@dataclasses.dataclass(frozen=True)
class Collective:
  """Collectives of one kind that serve one purpose, over a whole step.

  Attributes:
    what: its purpose, as 'weights' or 'attention'.
    kind: 'all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all' or 'collective-permute'.
    bytes: that one chip holds after (all-gather) or before (the others) all of them.
    seconds: on the wires of the axis.
    asynchronous: whether other work may run meanwhile: by formula assumed of the kind of chip, of a
      compiled program whether they start and later end.
    behind_attention: whether that can be the attention kernels alone.
    scheduled: seconds that the work scheduled meanwhile does not hide, at both ends of the
      efficiencies; None by formula, which knows no schedule.
  """

  what: str
  kind: str
  axis: str
  bytes: float
  count: int
  seconds: float
  asynchronous: bool = False
  behind_attention: bool = False
  scheduled: Ends[float] | None = None

  @property
  def waits(self) -> Ends[float]:
    """Seconds that are waited for: by formula all, at the high end none of the asynchronous."""
    if self.scheduled is not None:
      return self.scheduled
    return Ends(self.seconds, 0.0 if self.asynchronous else self.seconds)

  @property
  def exposed(self) -> Ends[float]:
    """Bytes whose transfer no work hides."""
    return self.waits.map(
      lambda seconds: self.bytes * seconds / self.seconds if self.seconds else 0.0
    )


def list_collectives(
  work: Workload,
  sizes: Mapping[str, int],
  axes: Mapping[str, AxisNetwork],
  rows: int,
  remat: str | None,
  exchange: str,
  chip: Chip,
) -> list[Collective]:
  """Lists the collectives of a step; where `remat` is None, of a forward pass alone."""
  local = share_of_chip(work, sizes, rows)
  policy = None if remat is None else find_policy(remat)
  collectives = _weights(work, sizes, axes, policy, local, chip)
  if policy is not None:
    collectives += _reductions(work, sizes, axes)
  if 'context' in axes:
    collectives += _attention(work, axes['context'], policy, local, exchange, chip)
    collectives += _text(work, axes['context'], policy, local)
  if 'tensor' in axes:
    collectives += _tensor(work, axes['tensor'], policy, local)
  return collectives


def _weights(
  work, sizes, axes, policy: Policy | None, local: ChipShare, chip: Chip
) -> list[Collective]:
  """Weights gathered over context, then fsdp; gradients scattered over fsdp, then context.

  Forward and backward pass gather every matrix once: what the backward pass computes again shares
  the gathered matrix with the gradient. Gradients of what trains go back once. A pass of a sampler
  gathers what its passes do not share.
  """
  kinds = (('all-gather', 2), ('reduce-scatter', 1)) if policy else (('all-gather', 1),)
  totals: dict[tuple[str, str], list[float]] = {}
  entries = sharding_axes(work.parameters, tuple(sizes.values()))
  for parameter, entry in zip(work.parameters, entries, strict=True):
    if policy is None and parameter.read_once:
      continue
    over = [axis for axis in entry if axis != 'tensor' and not parameter.stays]
    full_size = parameter.size * work.itemsize / (local.tensor if 'tensor' in entry else 1)
    for axis in over:
      # Gathered over the last axis first: there the output is still cut by those before it.
      output = full_size / math.prod(sizes[a] for a in over[: over.index(axis)])
      for kind, times in kinds[: 1 + parameter.trained]:
        total = totals.setdefault((kind, axis), [0.0, 0])
        total[0] += output * times
        total[1] += times * max(parameter.depth, 1)
  names = {'all-gather': 'weights', 'reduce-scatter': 'gradients'}
  collectives = []
  for (kind, axis), (total, count) in totals.items():
    turns = dict(kinds)[kind] * work.depth
    calls = int(count if chip.rank else min(count, max(turns, math.ceil(total / COMBINED))))
    seconds = axes[axis].gather(total, calls)
    ahead = chip.gathers_ahead and kind == 'all-gather'
    collectives.append(Collective(names[kind], kind, axis, total, calls, seconds, ahead))
  return collectives


def _reductions(work, sizes, axes) -> list[Collective]:
  """Gradients in their pieces, summed over the axes that hold equal parameters."""
  piece = parameter_bytes(work, sizes, work.itemsize, trained_only=True)
  calls = work.depth
  return [
    # An all-reduce is a reduce-scatter and an all-gather.
    Collective('gradients', 'all-reduce', axis, piece, calls, 2 * axes[axis].gather(piece, calls))
    for axis in ('data', 'slice')
    if axis in axes
  ]


def _attention(
  work, axis: AxisNetwork, policy: Policy | None, local: ChipShare, exchange: str, chip: Chip
) -> list[Collective]:
  """What queries, keys and values need to meet (`nn/attention.py`)."""
  array_bytes = local.rows * local.gathered * work.dim / local.tensor * work.itemsize
  if exchange == 'gather':
    return _gathered('attention', work, axis, policy, 2 * array_bytes * axis.size)
  heads = work.heads // local.tensor
  among = heads_exchanged(heads, axis.size, exchange)
  collectives = []
  if among > 1:
    # Forward q, k, v and the result, backward its gradient and those of q, k, v.
    times = (8 + policy.recomputed_exchange if policy else 4) * work.depth
    seconds = exchange_seconds(axis, times * array_bytes, among, times)
    name = 'all-to-all'
    ahead = chip.exchanges_ahead
    collectives.append(
      Collective('attention', name, 'context', times * array_bytes, times, seconds, ahead)
    )
  steps = axis.size // among
  if steps > 1:
    # Keys and values take steps - 1 steps forward, again in a recomputation and backward; their
    # gradients in float32 take all steps.
    passes = 2 + (1 if policy.recomputed_self else 0) if policy else 1
    back = steps if policy else 0
    sent = (
      2 * array_bytes * (steps - 1) * passes + 2 * array_bytes * (4 / work.itemsize) * back
    ) * work.depth
    count = 2 * ((steps - 1) * passes + back) * work.depth
    name = 'collective-permute'
    # A step of a ring with stride u passes u neighbours, all rings at once.
    seconds = axis.permute(sent, count) * among
    collectives.append(Collective('attention', name, 'context', sent, count, seconds, True, True))
  return collectives


def exchange_seconds(axis: AxisNetwork, size: float, among: int, calls: float) -> float:
  """Seconds of all-to-alls within groups of `among` neighbours along an axis, all groups at once.

  The way is shorter than around the whole axis, but a part of a ring is a row, with no way around.
  """
  if among == axis.size:
    return axis.exchange(size, calls)
  return axis.exchange(size, calls) * among / axis.size * 2


def _gathered(
  what: str, work, axis: AxisNetwork, policy: Policy | None, output: float
) -> list[Collective]:
  """Keys and values gathered; a kernel that runs again shares what the backward one gathers."""
  times = 2 * work.depth if policy else work.depth
  gathered = output * times
  scattered = output * work.depth
  seconds = axis.gather(gathered, 2 * times)
  collectives = [Collective(what, 'all-gather', 'context', gathered, 2 * times, seconds)]
  if policy:
    seconds = axis.gather(scattered, 2 * work.depth)
    collectives.append(
      Collective(what, 'reduce-scatter', 'context', scattered, 2 * work.depth, seconds)
    )
  return collectives


def _text(work, axis: AxisNetwork, policy: Policy | None, local: ChipShare) -> list[Collective]:
  """Keys and values of the context, which lie in pieces where its length divides."""
  if not work.context or work.context % local.context:
    return []
  output = 2 * local.rows * work.context * work.dim / local.tensor * work.itemsize
  return _gathered('text', work, axis, policy, output)


def _tensor(work, axis: AxisNetwork, policy: Policy | None, local: ChipShare) -> list[Collective]:
  """Activations gathered along tokens before a layer's column products, scattered after its rows.

  Columns: q k v, cross q, gate and up. Rows: out, cross out, down. Backward, the gradients of rows'
  results are gathered, inputs of columns are gathered again and their gradients scattered.
  """
  array_bytes = local.rows * local.gathered * work.dim * work.itemsize
  gathers = 3 * work.depth
  scatters = 3 * work.depth
  if policy:
    again = {6: (3, 3), 3: (2, 3), 2: (0, 3), 0: (0, 0)}[policy.recomputed_square]
    gathers = (3 + 3 + 3 + again[0]) * work.depth
    scatters = (3 + 3 + again[1]) * work.depth
  return [
    Collective(
      'tensor', kind, 'tensor', calls * array_bytes, calls, axis.gather(calls * array_bytes, calls)
    )
    for kind, calls in (('all-gather', gathers), ('reduce-scatter', scatters))
  ]
