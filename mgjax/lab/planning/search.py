"""Searches meshes, remat policies and exchanges by formula."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from mgjax.core.errors import ConfigError, check_one_of
from mgjax.lab.planning.communication import Collective, list_collectives
from mgjax.lab.planning.efficiency import Ends
from mgjax.lab.planning.memory import peak_memory
from mgjax.lab.planning.network import AxisNetwork, axis_networks
from mgjax.lab.planning.policies import ORDER, POLICIES
from mgjax.lab.planning.roofline import Roofline, roofline
from mgjax.lab.planning.workload import Workload, make_sizes
from mgjax.nn.attention import EXCHANGES
from mgjax.parallel.chips import Topology
from mgjax.parallel.rules import AXES
from mgjax.parallel.torus import valid_meshes

FREE = 0.1  # of a chip's memory, left for what no formula counts


@dataclasses.dataclass(frozen=True)
class Choices:
  """What is fixed before planning; the rest is searched. No `rows` are one for a group of chips."""

  mesh: Mapping[str, int] | None = None
  rows: int = 0
  remat: str = ''
  exchange: str = ''


ANY = Choices()


@dataclasses.dataclass(frozen=True)
class MeshCandidate:
  """One way to run a training step: its mesh, peak bytes of a chip by category, and its seconds."""

  sizes: Mapping[str, int]
  axes: Mapping[str, AxisNetwork]
  rows: int
  remat: str
  exchange: str
  bytes: Mapping[str, int]
  collectives: tuple[Collective, ...]
  time: Ends[Roofline]

  @property
  def peak(self) -> int:
    """Bytes on one chip."""
    return sum(self.bytes.values())

  @property
  def rate(self) -> Ends[float]:
    """Samples a second, of all chips."""
    return self.time.map(lambda end: self.rows / end.step)


def estimate(
  work: Workload,
  topology: Topology,
  sizes: Mapping[str, int],
  *,
  remat: str,
  exchange: str,
  rows: int = 0,
) -> MeshCandidate:
  """Estimates one way to run a step; raises ConfigError where mesh, rows or heads do not divide."""
  sizes = make_sizes(sizes)
  axes = axis_networks(sizes, topology)
  groups = sizes['slice'] * sizes['data'] * sizes['fsdp']
  if rows % groups:
    nearest = sorted({max(rows // groups, 1) * groups, (rows // groups + 1) * groups})
    raise ConfigError(
      f'{rows} rows do not divide over the {groups} groups of slice x data x fsdp; take '
      f'{" or ".join(map(str, nearest))}'
    )
  rows = rows or groups
  check_heads(work, sizes)
  chip = topology.chip
  collectives = tuple(list_collectives(work, sizes, axes, rows, remat, exchange, chip))
  kinds = peak_memory(work, sizes, rows, remat, exchange, chip)
  time = roofline(work, topology, sizes, rows, remat, exchange, collectives)
  return MeshCandidate(sizes, axes, rows, remat, exchange, kinds, collectives, time)


def with_collectives(
  work: Workload, topology: Topology, candidate: MeshCandidate, collectives: Sequence[Collective]
) -> MeshCandidate:
  """Returns the candidate with other collectives, as a compiled program has them."""
  how = candidate.sizes, candidate.rows, candidate.remat, candidate.exchange
  time = roofline(work, topology, *how, collectives)
  return dataclasses.replace(candidate, collectives=tuple(collectives), time=time)


def check_exchange(exchange: str) -> None:
  """Raises ConfigError for an exchange that attention does not know."""
  check_one_of(f'unknown exchange {exchange!r}', exchange, EXCHANGES)


def check_heads(work: Workload, sizes: Mapping[str, int]) -> None:
  """Raises ConfigError for heads that do not divide over the `tensor` axis."""
  if work.heads % sizes['tensor']:
    fitting = [size for size in range(1, work.heads + 1) if work.heads % size == 0]
    raise ConfigError(
      f'{work.heads} heads do not divide over tensor = {sizes["tensor"]}; take one of '
      f'{", ".join(map(str, fitting))}'
    )


def possible_meshes(topology: Topology) -> Iterator[dict[str, int]]:
  """Yields every mesh that the topology can have, without `slice`."""
  if topology.torus:
    yield from (dict(sizes) for sizes in valid_meshes(topology.torus))
    return
  inside, nodes = topology.shape
  divisors = [size for size in range(1, inside + 1) if inside % size == 0]
  for tensor in divisors:
    for context in divisors:
      if inside % (tensor * context) == 0:
        remaining = inside // (tensor * context) * nodes
        for fsdp in (size for size in range(1, remaining + 1) if remaining % size == 0):
          yield {'data': remaining // fsdp, 'fsdp': fsdp, 'context': context, 'tensor': tensor}
  if nodes > 1:  # all of them on one sample, for what is too long for a node
    yield {'data': 1, 'fsdp': 1, 'context': inside * nodes, 'tensor': 1}


def search(
  work: Workload,
  topology: Topology,
  choices: Choices,
  *,
  rows_per_group: Sequence[int] = (1,),
  include_unfit: bool = False,
) -> list[MeshCandidate]:
  """Estimates all ways to run a step and ranks those that fit by the middle of their seconds.

  A mesh, policy, exchange or rows that are given are the only ones. Without rows it tries each of
  `rows_per_group` for every group of chips, as far as the configuration's batch divides by it.
  What does not fit follows with `include_unfit`, smallest first.
  """
  tried: list[MeshCandidate] = []
  for sizes in [choices.mesh] if choices.mesh else possible_meshes(topology):
    ways = (choices.exchange,) if choices.exchange else _exchanges(work, sizes)
    policies = (choices.remat,) if choices.remat else ORDER
    counts = _rows(work, sizes, choices.rows, rows_per_group)
    for policy, way, count in itertools.product(policies, ways, counts):
      try:
        tried.append(estimate(work, topology, sizes, remat=policy, exchange=way, rows=count))
      except ConfigError:  # heads or rows do not divide: there are other ways
        continue
  fitting = [candidate for candidate in tried if fits(candidate, topology)]
  fitting.sort(key=ranking)
  if not include_unfit:
    return fitting
  return fitting + sorted((e for e in tried if not fits(e, topology)), key=lambda e: e.peak)


def _rows(
  work: Workload, sizes: Mapping[str, int], rows: int, rows_per_group: Sequence[int]
) -> list[int]:
  groups = sizes.get('data', 1) * sizes.get('fsdp', 1)
  return [rows] if rows else [n * groups for n in rows_per_group if work.batch % (n * groups) == 0]


def ranking(candidate: MeshCandidate) -> tuple[bool, float, int]:
  """Sorts by the middle of the seconds a sample, those that offload to the host last."""
  seconds = (candidate.time.slow.step + candidate.time.fast.step) / 2
  return POLICIES[candidate.remat].offloads, seconds / candidate.rows, candidate.peak


def fits(candidate: MeshCandidate, topology: Topology) -> bool:
  """Whether a tenth of the chip's memory stays free."""
  return candidate.peak <= (1 - FREE) * topology.chip.memory


def _exchanges(work: Workload, sizes: Mapping[str, int]) -> tuple[str, ...]:
  """Returns the exchanges that differ on a mesh; where heads divide, ring_ulysses is ulysses."""
  context = sizes.get('context', 1)
  heads = work.heads // sizes.get('tensor', 1)
  if context == 1:
    return EXCHANGES[:1]
  return ('gather', 'ring', 'ring_ulysses' if heads % context else 'ulysses')


def mesh_flag(sizes: Mapping[str, int]) -> str:
  """Returns 'fsdp=32,context=16', as --mesh takes it."""
  large = [f'{axis}={sizes[axis]}' for axis in AXES if sizes[axis] > 1]
  return ','.join(large) or 'data=1'
