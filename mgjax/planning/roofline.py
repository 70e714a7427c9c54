"""A roofline of a training step, or of a forward pass alone: seconds from operations, bytes and
assumed efficiencies.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from mgjax.parallel.chips import Topology
from mgjax.planning.communication import Collective
from mgjax.planning.memory import BLOCK, checkpoint_bytes, parameter_bytes, share_of_chip
from mgjax.planning.policies import Policy, find_policy, recomputed_attention, recomputed_linear
from mgjax.planning.workload import Workload

# Assumed, not measured. A backward attention kernel that computes dQ, dK and dV together has five
# products where the forward one has two.
MATMUL = 0.75  # of the peak, matrix products of the linear maps
KERNEL = 0.60  # of the peak, attention kernels
BACKWARD = 2.5  # operations of the backward attention kernel, in forward ones
HOST = 16e9  # bytes a second between a chip and its host's memory, either way
ASSUMED = (
  f'assumed: linear maps at {MATMUL:.0%} of the peak, attention kernels at {KERNEL:.0%}, a '
  f'backward kernel of {BACKWARD} forward ones; element-wise work at the bandwidth of the memory'
)

# Times that element-wise work reads or writes an activation of width d, forward: three norms (2
# each), three residual sums, which the products before them write (2 each), positions (1), and the
# layout of q, k, v and the result for the kernel (2 each); and of width f: silu(gate) * up (3).
# Backward has about twice that.
PASSES_D = 6 + 6 + 1 + 8
PASSES_F = {'swiglu': 3, 'gelu': 2, 'silu': 2}


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds of a step on one chip, by cause.

  Attributes:
    ideal: model operations at the chips' peak.
    linear: linear maps, with what is computed again.
    attention: attention kernels, with what is computed again.
    elementwise: memory traffic of norms, sums, activations and partial gradients.
    optimizer: memory traffic of the update.
    exposed: collectives that nothing hides.
    hidden: asynchronous collectives, and what goes to the host, that any other work may hide.
    ring: asynchronous collectives that the attention kernels may hide.
  """

  ideal: float
  linear: float
  attention: float
  elementwise: float
  optimizer: float
  exposed: float
  hidden: float
  ring: float

  @property
  def compute(self) -> float:
    """Seconds without communication."""
    return self.linear + self.attention + self.elementwise + self.optimizer

  @property
  def communication(self) -> float:
    """Seconds of all collectives."""
    return self.exposed + self.hidden + self.ring

  @property
  def slowest(self) -> float:
    """Nothing hidden."""
    return self.compute + self.communication

  @property
  def fastest(self) -> float:
    """All communication hidden, but for what takes longer than all work."""
    return max(self.compute, self.communication)

  @property
  def waiting(self) -> float:
    """Communication that is not asynchronous, or takes longer than what it hides behind."""
    late = max(0.0, self.ring - self.attention)
    return self.exposed + late + max(0.0, self.hidden - self.compute - late)

  @property
  def step(self) -> float:
    """What is not asynchronous counts, the rest hides."""
    return self.compute + self.waiting

  def utilisation(self, seconds: float) -> float:
    """Model operations over time and peak."""
    return self.ideal / seconds

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
  found: Sequence[Collective],
) -> Roofline:
  """Estimates a step of `rows` samples.

    linear     3 x linear maps + what the policy computes again, at 75% of the peak
    attention  (1 + 2.5 + what the policy computes again) x forward kernels, at 60% of the peak

  Args:
    work: the model and its samples.
    topology: the chips.
    sizes: of the mesh.
    rows: samples a step.
    remat: policy.
    found: collectives, by formula or from a compiled program.
  """
  policy, chip = find_policy(remat), topology.chip
  peak = chip.flops * topology.devices
  flops = work.flops
  kernels = flops.self_attention + flops.cross_attention
  attention = ((1 + BACKWARD) * kernels + recomputed_attention(policy, work)) * rows
  # Tokens that pad a sample are worked on as well.
  local = share_of_chip(work, sizes, rows)
  padded = local.tokens * local.context * local.tensor / work.tokens
  linear = (3 * flops.linear + recomputed_linear(policy, work)) * rows
  traffic = _elementwise(work, sizes, rows, policy) / chip.memory_bandwidth
  kept = checkpoint_bytes(work, sizes, rows, remat) if policy.offloads else 0
  host = 2 * kept / HOST  # there and back
  # The update reads gradients, parameters, moments and the average, and writes all but the first.
  copies = parameter_bytes(work, sizes) * 9
  return Roofline(
    ideal=flops.training * rows / peak,
    linear=linear * padded / (MATMUL * peak),
    attention=attention * padded**2 / (KERNEL * peak),
    elementwise=traffic,
    optimizer=copies / chip.memory_bandwidth,
    exposed=sum(each.seconds for each in found if not each.asynchronous),
    hidden=host + sum(e.seconds for e in found if e.asynchronous and not e.behind_attention),
    ring=sum(e.seconds for e in found if e.asynchronous and e.behind_attention),
  )


def forward_roofline(
  work: Workload,
  topology: Topology,
  sizes: Mapping[str, int],
  rows: int,
  found: Sequence[Collective],
  matmul: float = MATMUL,
  kernel: float = KERNEL,
) -> Roofline:
  """Estimates a forward pass of `rows` samples, as sampling takes them.

    linear     linear maps at `matmul` of the peak
    attention  forward kernels at `kernel` of the peak

  Args:
    work: the model and its samples.
    topology: the chips.
    sizes: of the mesh.
    rows: samples a pass.
    found: collectives, by formula or from a compiled program.
    matmul: of the peak, the matrix products of the linear maps.
    kernel: of the peak, attention kernels.
  """
  chip, flops = topology.chip, work.flops
  peak = chip.flops * topology.devices
  local = share_of_chip(work, sizes, rows)
  padded = local.tokens * local.context * local.tensor / work.tokens
  kernels = flops.self_attention + flops.cross_attention
  traffic = work.depth * _forward_traffic(work, sizes, rows)
  return Roofline(
    ideal=flops.forward * rows / peak,
    linear=flops.linear * rows * padded / (matmul * peak),
    attention=kernels * rows * padded**2 / (kernel * peak),
    elementwise=traffic / chip.memory_bandwidth,
    optimizer=0.0,
    exposed=sum(each.seconds for each in found if not each.asynchronous),
    hidden=sum(e.seconds for e in found if e.asynchronous and not e.behind_attention),
    ring=sum(e.seconds for e in found if e.asynchronous and e.behind_attention),
  )


def _forward_traffic(work: Workload, sizes: Mapping[str, int], rows: int) -> float:
  """Bytes that element-wise work of one layer's forward pass moves on one chip."""
  local = share_of_chip(work, sizes, rows)
  places = local.rows * local.tokens * work.itemsize
  return places * (PASSES_D * work.dim + PASSES_F[work.feed_forward] * work.mlp_dim)


def _elementwise(work: Workload, sizes: Mapping[str, int], rows: int, policy: Policy) -> float:
  """Bytes that element-wise work moves on one chip."""
  local = share_of_chip(work, sizes, rows)
  forward = _forward_traffic(work, sizes, rows)
  again = 0.5 if policy.recomputed_square == 2 else float(policy.recomputed_square > 0)
  # Partial dQ, one a block of keys, written and read: bfloat16, n / block x n x d over the shards.
  partial = local.rows * work.tokens / BLOCK * local.tokens * work.dim * work.itemsize
  return work.depth * ((3 + again) * forward + 2 * partial)
