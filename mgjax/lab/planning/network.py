"""Seconds of collectives on the links of a mesh axis: a torus of TPUs, or GPUs in nodes.

Every function is about one mesh axis of n devices and counts bytes a device; all groups of an axis
communicate at once, on links of their own. Bytes are those of all `calls` together, which are taken
to be of one size; each call waits for its steps as well, however little it sends:

  seconds = calls x steps x latency + bytes / rate

A ring of n devices has n - 1 steps. On many GPUs a matrix is cut so small that a step takes less
time on the wire than it takes to begin.
"""

import dataclasses
import math
from collections.abc import Mapping

from mgjax.core.errors import ConfigError
from mgjax.parallel.chips import (
  BETWEEN_CORES,
  ONE_OF_A_NODE,
  PAT_STEP,
  RINGS,
  Chip,
  Protocol,
  Topology,
)
from mgjax.parallel.rules import AXES
from mgjax.parallel.torus import assign_axes


@dataclasses.dataclass(frozen=True)
class Wire:
  """One torus axis: devices in a ring, in a row if its ends are not joined, or on one chip."""

  length: int
  link: float
  joined: bool
  on_chip: bool = False
  hop: float = 0.0

  @property
  def way(self) -> int:
    """Hops to the farthest device."""
    return self.length // 2 if self.joined else self.length - 1

  @property
  def inflow(self) -> float:
    """Bytes a second that the worst placed device can take in: an end of a row has one link."""
    return self.link * (2 if self.joined else 1)

  def exchange(self, size: float) -> float:
    """Returns the seconds in which every device sends each other one its share of `size` bytes.

    A share of size / n travels n / 4 links on average in a ring: n x size x n / 4 over 2 n links of
    one way is size x n / 8 for each. In a row the middle link carries n / 2 x n / 2 shares.
    """
    return size * self.length / (8 if self.joined else 4) / self.link


@dataclasses.dataclass(frozen=True)
class Torus:
  """One mesh axis on the wires of a torus."""

  size: int
  wires: tuple[Wire, ...]

  @property
  def latency(self) -> float:
    """Seconds of a gather's hops: half way around one ring, of three torus axes there and back."""
    wires = [wire for wire in self.wires if not wire.on_chip]
    if len(wires) > 2:
      return 2 * sum(wire.way * wire.hop for wire in wires)
    ring = math.prod(wire.length for wire in wires)
    hops = ring // 2 if all(wire.joined for wire in wires) else ring - 1
    return hops * max((wire.hop for wire in wires), default=0.0)

  def gather(self, output: float, calls: float) -> float:
    """Seconds of all-gathers to `output` bytes, or of the reduce-scatters that reverse them.

    A device takes in all but its own piece. Compiled programs walk an axis as one ring, even where
    it lies on two torus axes ('1DAllGather' in their text), so one wire sets the pace. Over three
    torus axes they are all-reduces of zero-padded pieces, twice the bytes on all wires. The devices
    of one chip share what comes in and pass it on.
    """
    wires = [wire for wire in self.wires if not wire.on_chip]
    cores = math.prod(wire.length for wire in self.wires if wire.on_chip)
    seconds = output * (1 - 1 / cores) / BETWEEN_CORES
    if wires:
      inflow = min(wire.inflow for wire in wires) * (1 if len(wires) < 3 else len(wires) / 2)
      seconds += output / cores * (1 - cores / self.size) / inflow
    return seconds + calls * self.latency

  def exchange(self, size: float, calls: float) -> float:
    """Returns the seconds of all-to-alls of `size` bytes; each torus axis loads other wires."""
    farthest = sum(wire.way * wire.hop for wire in self.wires)
    return max(wire.exchange(size) for wire in self.wires) + calls * farthest

  def permute(self, sent: float, calls: float) -> float:
    """Seconds in which every device sends `sent` bytes to the next one, one way over one link."""
    return sent / self.wires[0].link + calls * self.wires[0].hop

  @property
  def layout(self) -> str:
    """The torus axes in words."""
    return 'x'.join(f'{wire.length}{"" if wire.joined else " in a row"}' for wire in self.wires)


@dataclasses.dataclass(frozen=True)
class Nodes:
  """One mesh axis over `inside` GPUs of a node, `across` nodes and the pods that these lie in.

  Inside a node is NVLink, between nodes of a pod are the rails, between pods the spine.
  """

  inside: int
  across: int
  chip: Chip
  pods: int = 1

  @property
  def size(self) -> int:
    """Devices of the axis."""
    return self.inside * self.across

  @property
  def network(self) -> float:
    """Bytes a second that a GPU of a ring sends to the next node.

    Of the across / pods nodes of a ring in a pod one sends to the next pod. Its rate is that of the
    rail as long as all pods' rings together ask for no more than the spine has; NCCL orders rings
    by the order of devices.
    """
    if self.pods == 1:
      return self.chip.network
    return self.chip.network * min(1.0, self.chip.spine * self.across / self.pods)

  def gather(self, output: float, calls: float) -> float:
    """Seconds of all-gathers to `output` bytes: across nodes, then inside.

    The GPUs of the axis in a node share what comes in over the network, one part each, and pass it
    on over NVLink. Steps are those of a ring of all GPUs, by NCCL's fastest protocol.
    """
    wire = output / self.inside * (1 - 1 / self.across) / self.network
    wire += output * (1 - 1 / self.inside) / self.chip.link
    ways = ONE_OF_A_NODE if self.inside == 1 else RINGS
    return min(calls * self._wait(way) + wire / way.share for way in ways)

  def _wait(self, way: Protocol) -> float:
    """Seconds that the steps of one call take, whatever they send."""
    steps = (self.size - self.across) * way.inside + (self.across - 1) * way.across
    logarithmic = math.log2(self.across) * PAT_STEP if way is ONE_OF_A_NODE[-1] else 0.0
    return way.start + steps + logarithmic

  def exchange(self, size: float, calls: float) -> float:
    """Seconds of all-to-alls: of n shares, n - inside cross the network; all are sent at once."""
    outside = size * (self.size - self.inside) / self.size
    far = size * (1 - 1 / self.pods) / (self.chip.network * self.chip.spine)
    inside = size * (self.inside - 1) / self.size / self.chip.link
    return max(outside / self.chip.network, far) + inside + calls * self._step

  def permute(self, sent: float, calls: float) -> float:
    """Seconds of a step around a ring: where it crosses nodes, the network sets the pace."""
    return sent / (self.network if self.across > 1 else self.chip.link) + calls * self._step

  @property
  def _step(self) -> float:
    return RINGS[0].start + (RINGS[0].across if self.across > 1 else RINGS[0].inside)

  @property
  def layout(self) -> str:
    """The GPUs, nodes and pods in words."""
    parts = {'GPUs of a node': self.inside, 'nodes': self.across}
    text = ' x '.join(f'{count} {name}' for name, count in parts.items() if count > 1)
    return text + (f' in {self.pods} pods' if self.pods > 1 else '')


AxisNetwork = Torus | Nodes


def axis_networks(sizes: Mapping[str, int], topology: Topology) -> dict[str, AxisNetwork]:
  """Returns the network of every mesh axis larger than 1; ConfigError: the mesh does not fit."""
  if topology.torus:
    if sizes.get('slice', 1) > 1:
      raise ConfigError(
        f'{topology.name} is one slice; plan for it alone, with slice = 1: others add their samples'
      )
    return _on_torus(sizes, topology)
  return _in_nodes(sizes, topology)


def _on_torus(sizes: Mapping[str, int], topology: Topology) -> dict[str, AxisNetwork]:
  chip = topology.chip
  wires = []
  for index, length in enumerate(topology.shape):
    if index < chip.rank:
      wires.append(Wire(length, chip.link, joined=length % chip.wraps == 0, hop=chip.hop))
    else:
      wires.append(Wire(length, BETWEEN_CORES, joined=False, on_chip=True))
  assigned = assign_axes(sizes, topology.shape)
  return {axis: Torus(sizes[axis], tuple(wires[i] for i in assigned[axis])) for axis in assigned}


def _in_nodes(sizes: Mapping[str, int], topology: Topology) -> dict[str, AxisNetwork]:
  """Puts the last axes, which communicate most, into a node; the others cross the network."""
  free_gpus = topology.shape[0]
  chip = topology.chip
  axes = {}
  block = 1
  if math.prod(sizes.values()) != topology.devices:
    mesh = ', '.join(f'{axis}={size}' for axis, size in sizes.items() if size > 1)
    raise ConfigError(
      f'the mesh {mesh or "of size 1"} has {math.prod(sizes.values())} devices, {topology.name} '
      f'has {topology.devices}; the product of its sizes is {topology.devices}'
    )
  for axis in reversed(AXES):
    if (size := sizes.get(axis, 1)) == 1:
      continue
    inside = math.gcd(size, free_gpus)
    if inside not in (size, free_gpus):
      raise ConfigError(
        f'{axis} = {size} neither fits into the {free_gpus} GPUs left of a node nor fills them; '
        f'take a divisor or a multiple of {free_gpus}'
      )
    block *= size  # devices from the first to the last of a group
    axes[axis] = Nodes(inside, size // inside, chip, math.ceil(block / chip.pod))
    free_gpus //= inside
  return {axis: axes[axis] for axis in AXES if axis in axes}
