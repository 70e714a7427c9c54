"""A roofline of a training step, or of a forward pass alone: seconds from operations, bytes and the
shares of the peak in `efficiency.py`, at both ends of those.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from mgjax.lab.planning.communication import Collective
from mgjax.lab.planning.efficiency import Ends, Rates, describe_efficiency, rates_of
from mgjax.lab.planning.memory import (
  attention_call,
  checkpoint_bytes,
  moment_bytes,
  parameter_bytes,
  partial_gradients,
  share_of_chip,
)
from mgjax.lab.planning.policies import Policy, find_policy, recomputed_attention, recomputed_linear
from mgjax.lab.planning.workload import Workload
from mgjax.parallel.chips import Chip, Topology
from mgjax.training.optimizers.muon import LAYER_STEPS

ONE_BYTE = 2.0  # times the rate of bfloat16 at which chips multiply numbers of one byte; assumed
BY_ONE_BYTE = f'products of one byte a number at {ONE_BYTE:g} times the rate of bfloat16 (assumed)'
HOST = 16e9  # bytes a second between a chip and its host's memory, either way; assumed
BY_FORMULA = (
  'communication by formula: at the low end nothing hides, at the high end all that the kind of '
  'chip is assumed to start early hides behind any work, steps of a ring behind attention'
)
BY_SCHEDULE = (
  'communication: hides behind no more than the work that the compiled schedule puts between its '
  'start and its end, counted at both ends'
)

# Times that element-wise work reads or writes an activation of width d, forward: three norms (2
# each), three residual sums, which the products before them write (2 each), positions (1), and the
# layout of q, k, v and the result for the kernel (2 each); and of width f: silu(gate) * up (3).
# Backward has about twice that.
PASSES_D = 6 + 6 + 1 + 8
PASSES_F = {'swiglu': 3, 'gelu': 2, 'silu': 2}


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds of a step on one chip, by cause, at one end of the efficiencies.

  Attributes:
    ideal: model operations at the chips' peak.
    linear: linear maps, with what is computed again; so attention.
    elementwise: memory traffic of norms, sums, activations and partial gradients.
    optimizer: memory traffic of the update, and Muon's products.
    communication: all collectives, and what goes to the host.
    waiting: the part of it that no work hides.
  """

  ideal: float
  linear: float
  attention: float
  elementwise: float
  optimizer: float
  communication: float
  waiting: float

  @property
  def compute(self) -> float:
    """Seconds without communication."""
    return self.linear + self.attention + self.elementwise + self.optimizer

  @property
  def step(self) -> float:
    """Seconds of all work and of what it does not hide."""
    return self.compute + self.waiting

  @property
  def utilisation(self) -> float:
    """MFU: model operations over time and peak."""
    return self.ideal / self.step

  @property
  def bound(self) -> str:
    """What a step waits for most."""
    terms = {
      'linear maps': self.linear,
      'attention kernels': self.attention,
      'memory bandwidth': self.elementwise + self.optimizer,
      'communication': self.waiting,
    }
    return max(terms, key=lambda name: terms[name])


def roofline(
  work: Workload,
  topology: Topology,
  sizes: Mapping[str, int],
  rows: int,
  remat: str,
  exchange: str,
  collectives: Sequence[Collective],
) -> Ends[Roofline]:
  """Estimates a step of `rows` samples, at both ends of the chip's efficiencies.

  linear     3 x linear maps, 2 x of frozen ones, + what the policy computes again, at the share of
             linear maps
  attention  forward kernels + those that the policy computes again, at the share of forward ones
             + 5 / 2 x forward kernels, at the share of backward ones
  """
  policy = find_policy(remat)
  chip = topology.chip
  flops = work.flops
  kernels = flops.self_attention + flops.cross_attention
  again = recomputed_attention(policy, work)
  offloaded = checkpoint_bytes(work, sizes, rows, remat) if policy.offloads else 0
  # The update reads gradients, parameters, moments and the average, and writes all but the first.
  trained = parameter_bytes(work, sizes, trained_only=True)
  moments = moment_bytes(work, sizes)
  update = (5 * trained + 2 * moments) / chip.memory_bandwidth
  muon = _orthogonalised(work) / (chip.flops * topology.devices)
  matrices = [
    parameter for parameter in work.parameters if parameter.depth and len(parameter.shape) > 2
  ]
  frozen = sum(parameter.size for parameter in matrices if not parameter.trained)
  # The gradients of weights; adapters' own products are a few thousandths.
  spared = flops.linear * frozen / sum(parameter.size for parameter in matrices)
  traffic = _elementwise(work, sizes, rows, policy, exchange, chip) / chip.memory_bandwidth

  def at(rates: Rates, slow: bool) -> Roofline:
    forward = (flops.linear + recomputed_linear(policy, work)) / _faster(work, False)
    linear = (forward + (2 * flops.linear - spared) / _faster(work, True)) / rates.linear
    operations = flops.training - spared, linear, rates.attention(kernels + again, kernels)
    seconds = _products(work, topology, sizes, rows, operations)
    host = 2 * offloaded / HOST  # there and back
    return _roofline((*seconds, traffic, update + muon / rates.linear), collectives, host, slow)

  rates = rates_of(chip.name)
  return Ends(at(rates.slow, True), at(rates.fast, False))


def forward_roofline(
  work: Workload,
  topology: Topology,
  sizes: Mapping[str, int],
  rows: int,
  collectives: Sequence[Collective],
) -> Ends[Roofline]:
  """Estimates a forward pass of `rows` samples during sampling, at both ends."""
  flops = work.flops
  kernels = flops.self_attention + flops.cross_attention
  traffic = work.depth * _forward_traffic(work, sizes, rows) / topology.chip.memory_bandwidth

  def at(rates: Rates, slow: bool) -> Roofline:
    linear = flops.linear / _faster(work, False) / rates.linear
    operations = flops.forward, linear, rates.attention(kernels)
    seconds = _products(work, topology, sizes, rows, operations)
    return _roofline((*seconds, traffic, 0.0), collectives, 0.0, slow)

  rates = rates_of(topology.chip.name)
  return Ends(at(rates.slow, True), at(rates.fast, False))


def describe_assumptions(
  work: Workload, chip: str, collectives: Sequence[Collective], backward: bool
) -> list[str]:
  """Returns the assumptions behind the seconds, a line each."""
  scheduled = any(collective.scheduled is not None for collective in collectives)
  return [
    'seconds are a range; low and high shares of the peak, and where they come from:',
    *describe_efficiency(chip, backward),
    *[BY_ONE_BYTE] * (work.products != 'dtype'),
    'element-wise work at the bandwidth of the memory (assumed)',
    BY_SCHEDULE if scheduled else BY_FORMULA,
  ]


def _orthogonalised(work: Workload) -> int:
  """Counts the operations of Muon: of a matrix m x n, m <= n, 3 (4 m^2 n + 2 m^3)."""
  matrices = [
    (e.size, *sorted(e.shape[-2:])) for e in work.parameters if e.moments == 1 and e.trained
  ]
  return len(LAYER_STEPS) * sum(size * (4 * m + 2 * m * m // n) for size, m, n in matrices)


def _faster(work: Workload, backward: bool) -> float:
  """Returns how much faster products are in int8 or fp8: chips double rates."""
  kind = work.products
  return ONE_BYTE if kind.endswith('_both') or (kind != 'dtype' and not backward) else 1.0


def _products(
  work: Workload,
  topology: Topology,
  sizes: Mapping[str, int],
  rows: int,
  operations: tuple[float, float, float],
) -> tuple[float, float, float]:
  """Turns operations of a sample at the peak, of the model, its linear maps and its attention, into
  seconds of a step; tokens that pad a sample are worked on as well.
  """
  local = share_of_chip(work, sizes, rows)
  padded = local.tokens * local.context * local.tensor / work.tokens
  a_step = rows / (topology.chip.flops * topology.devices)
  model, linear, attention = operations
  return model * a_step, linear * padded * a_step, attention * padded**2 * a_step


def _roofline(
  seconds: tuple[float, float, float, float, float],
  collectives: Sequence[Collective],
  host: float,
  slow: bool,
) -> Roofline:
  """Adds the waiting time to the seconds of ideal, linear, attention, element-wise and update.

  Transfers to the host and back are not looked up in a schedule: they hide behind all work at the
  high end and not at all at the low end.
  """
  everything = sum(collective.seconds for collective in collectives) + host
  alone = Roofline(*seconds, communication=everything, waiting=0.0)
  if all(collective.scheduled is not None for collective in collectives):
    waits = (collective.waits.slow if slow else collective.waits.fast for collective in collectives)
    waiting = sum(waits) + (host if slow else max(0.0, host - alone.compute))
    return dataclasses.replace(alone, waiting=waiting)
  if slow:
    return dataclasses.replace(alone, waiting=everything)
  ring = sum(e.seconds for e in collectives if e.asynchronous and e.behind_attention)
  hidden = host + sum(e.seconds for e in collectives if e.asynchronous and not e.behind_attention)
  late = max(0.0, ring - alone.attention)
  waiting = everything - ring - hidden + late + max(0.0, hidden - alone.compute - late)
  return dataclasses.replace(alone, waiting=waiting)


def _forward_traffic(work: Workload, sizes: Mapping[str, int], rows: int) -> float:
  """Bytes that element-wise work of one layer's forward pass moves on one chip."""
  local = share_of_chip(work, sizes, rows)
  places = local.rows * local.tokens * work.itemsize
  return places * (PASSES_D * work.dim + PASSES_F[work.feed_forward] * work.mlp_dim)


def _elementwise(
  work: Workload, sizes: Mapping[str, int], rows: int, policy: Policy, exchange: str, chip: Chip
) -> float:
  """Bytes that element-wise work moves on one chip."""
  local = share_of_chip(work, sizes, rows)
  forward = _forward_traffic(work, sizes, rows)
  again = {6: 1.0, 3: 0.75, 2: 0.5, 0: 0.0}[policy.recomputed_square]  # of a forward pass
  call = attention_call(work, local, exchange)
  _, partial = partial_gradients(work, call, chip)  # written and read
  return work.depth * ((3 + again) * forward + 2 * partial)
