"""Seconds of collectives on the links of a mesh axis: a torus of TPUs, or GPUs in nodes.

Every function is about one mesh axis of n devices and counts bytes a device; all groups of an axis
communicate at once, on links of their own. Latency is left out: the messages here are megabytes.
"""

import dataclasses
import math
from collections.abc import Mapping

from mgjax.core.errors import ConfigError
from mgjax.parallel.chips import BETWEEN_CORES, Topology
from mgjax.parallel.rules import AXES
from mgjax.parallel.torus import assign_axes


@dataclasses.dataclass(frozen=True)
class Wire:
  """One torus axis: devices in a ring, in a row if its ends are not joined, or on one chip."""

  length: int
  link: float
  joined: bool
  on_chip: bool = False

  @property
  def inflow(self) -> float:
    """Bytes a second that the worst placed device can take in: an end of a row has one link."""
    return self.link * (2 if self.joined else 1)

  def exchange(self, held: float) -> float:
    """Seconds in which every device sends each other one its share of the `held` bytes.

    A share of held / n travels n / 4 links on average in a ring: n x held x n / 4 over 2 n links of
    one way is held x n / 8 for each. In a row the middle link carries n / 2 x n / 2 shares.
    """
    return held * self.length / (8 if self.joined else 4) / self.link


@dataclasses.dataclass(frozen=True)
class Torus:
  """One mesh axis on the wires of a torus."""

  size: int
  wires: tuple[Wire, ...]

  def gather(self, output: float) -> float:
    """Seconds of an all-gather to `output` bytes, or of the reduce-scatter that reverses it.

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
    return seconds

  def exchange(self, held: float) -> float:
    """Seconds of an all-to-all of `held` bytes; along each torus axis it loads other wires."""
    return max(wire.exchange(held) for wire in self.wires)

  def permute(self, sent: float) -> float:
    """Seconds in which every device sends `sent` bytes to the next one, one way over one link."""
    return sent / self.wires[0].link

  @property
  def layout(self) -> str:
    """The torus axes in words."""
    return 'x'.join(f'{wire.length}{"" if wire.joined else " in a row"}' for wire in self.wires)


@dataclasses.dataclass(frozen=True)
class Nodes:
  """One mesh axis over `inside` GPUs of a node and `across` nodes."""

  inside: int
  across: int
  link: float
  network: float

  @property
  def size(self) -> int:
    """Devices of the axis."""
    return self.inside * self.across

  def gather(self, output: float) -> float:
    """Seconds of an all-gather to `output` bytes: across nodes, then inside.

    The GPUs of the axis in a node share what comes in over the network, one part each, and pass it
    on over NVLink.
    """
    over_network = output / self.inside * (1 - 1 / self.across) / self.network
    return over_network + output * (1 - 1 / self.inside) / self.link

  def exchange(self, held: float) -> float:
    """Seconds of an all-to-all: of n shares, n - inside cross the network."""
    outside = held * (self.size - self.inside) / self.size
    return outside / self.network + held * (self.inside - 1) / self.size / self.link

  def permute(self, sent: float) -> float:
    """Seconds of a step around a ring: where it crosses nodes, the network sets the pace."""
    return sent / (self.network if self.across > 1 else self.link)

  @property
  def layout(self) -> str:
    """The GPUs and nodes in words."""
    parts = (f'{self.inside} GPUs of a node', f'{self.across} nodes')
    return ' x '.join(
      part for part, n in zip(parts, (self.inside, self.across), strict=True) if n > 1
    )


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
  chip, wires = topology.chip, []
  for index, length in enumerate(topology.shape):
    if index < chip.rank:
      wires.append(Wire(length, chip.link, joined=length % chip.wraps == 0))
    else:
      wires.append(Wire(length, BETWEEN_CORES, joined=False, on_chip=True))
  taken = assign_axes(sizes, topology.shape)
  return {axis: Torus(sizes[axis], tuple(wires[i] for i in taken[axis])) for axis in taken}


def _in_nodes(sizes: Mapping[str, int], topology: Topology) -> dict[str, AxisNetwork]:
  """The last axes, which talk most, fill a node; the others cross the network."""
  left = topology.shape[0]
  chip, axes = topology.chip, {}
  if math.prod(sizes.values()) != topology.devices:
    given = ', '.join(f'{axis}={size}' for axis, size in sizes.items() if size > 1)
    raise ConfigError(
      f'the mesh {given or "of size 1"} has {math.prod(sizes.values())} devices, {topology.name} '
      f'has {topology.devices}; the product of its sizes is {topology.devices}'
    )
  for axis in reversed(AXES):
    if (size := sizes.get(axis, 1)) == 1:
      continue
    inside = math.gcd(size, left)
    if inside not in (size, left):
      raise ConfigError(
        f'{axis} = {size} neither fits into the {left} GPUs left of a node nor fills them; take '
        f'a divisor or a multiple of {left}'
      )
    axes[axis] = Nodes(inside, size // inside, chip.link, chip.network)
    left //= inside
  return {axis: axes[axis] for axis in AXES if axis in axes}
