"""Seconds and memory of the passes that make samples, on one mesh or on the fastest.

A pass is a forward pass of all rows that guidance makes of the samples; its seconds are those of
`lab/planning/roofline.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mgjax.core.errors import ConfigError
from mgjax.lab.planning.communication import Collective, list_collectives
from mgjax.lab.planning.efficiency import Ends
from mgjax.lab.planning.memory import FLOAT32, parameter_bytes, share_of_chip
from mgjax.lab.planning.network import axis_networks
from mgjax.lab.planning.report import bounds_of
from mgjax.lab.planning.roofline import Roofline, forward_roofline
from mgjax.lab.planning.sampling.passes import SAVED, WEIGHTS, Way
from mgjax.lab.planning.search import FREE, check_heads, possible_meshes
from mgjax.lab.planning.workload import Workload, make_sizes
from mgjax.parallel.chips import GIB, Topology
from mgjax.parallel.rules import BATCH

CAST = 'cast weights'


@dataclasses.dataclass(frozen=True)
class SamplingRequest:
  """What to plan: the model and its samples, the exchange of context shards, samples at a time."""

  work: Workload
  exchange: str
  samples: int


@dataclasses.dataclass(frozen=True)
class Pass:
  """A forward pass on a mesh: seconds at both ends of the chip's efficiencies, and collectives."""

  time: Ends[Roofline]
  collectives: tuple[Collective, ...]

  @property
  def seconds(self) -> dict[str, float]:
    """Seconds at the chips' peak, and low and high ones."""
    return {'ideal': self.time.fast.ideal, **bounds_of(self.time, 'step')}


@dataclasses.dataclass(frozen=True)
class Sampling:
  """The cost of generating samples together on a mesh.

  Attributes:
    passes: rows that a sample has in a pass -> the pass.
    bytes: of one chip at the peak, by category, but for the weights.
    compiled: GiB of one chip by the compiler, with weights as saved; 0 for an estimate by formula.
  """

  request: SamplingRequest
  topology: Topology
  sizes: Mapping[str, int]
  passes: Mapping[int, Pass]
  bytes: Mapping[str, int]
  compiled: float = 0.0

  def seconds(self, way: Way) -> dict[str, float]:
    """Returns the seconds of all passes of a way to sample."""
    times = {rows: self.passes[rows].seconds for rows in way.passes}
    names = next(iter(times.values()))
    return {n: sum(c * times[rows][n] for rows, c in way.passes.items()) for n in names}

  def weights(self, kind: str) -> int:
    """Counts the bytes of the weights on one chip; `kind` is a name in `WEIGHTS`."""
    return parameter_bytes(self.request.work, self.sizes, WEIGHTS[kind])

  def peak(self, kind: str) -> float:
    """Returns the peak bytes of one chip; `kind` is a name in `WEIGHTS`.

    For weights as saved this is the compiler's peak, if there is one. Others are counted by
    formula, without a cast before the loop. Subtracting what they save from the compiler's peak may
    give too little: by a quarter at v5p:2x2x2, where the program holds other copies.
    """
    if kind == SAVED and self.compiled:
      return self.compiled * GIB
    others = sum(count for name, count in self.bytes.items() if name != CAST or kind == SAVED)
    return self.weights(kind) + others

  def fits(self, kind: str) -> bool:
    """Whether a tenth of a chip's memory stays free."""
    return self.peak(kind) <= (1 - FREE) * self.topology.chip.memory


def fastest(
  request: SamplingRequest, topology: Topology, rows: Sequence[int], mesh: Mapping[str, int] | None
) -> Sampling | None:
  """Returns the sampling that fits and has the least latency, of one pass of each of `rows`.

  The middle of the range of seconds counts. What does not fit comes after all that does, least
  memory first; None if nothing divides. Raises ConfigError where a given mesh does not fit.
  """
  samplings = []
  for sizes in [mesh] if mesh else possible_meshes(topology):
    try:
      samplings.append(sample_on(request, topology, make_sizes(sizes), rows))
    except ConfigError:
      if mesh:
        raise
  samplings = [sampling for sampling in samplings if sampling is not None]

  def ranking(sampling: Sampling) -> tuple[float, float]:
    ends = (
      (estimate.time.slow.step, estimate.time.fast.step) for estimate in sampling.passes.values()
    )
    total = sum(map(sum, ends)) / 2
    return (0.0, total) if sampling.fits(SAVED) else (sampling.peak(SAVED), total)

  return min(samplings, key=ranking, default=None)


def sample_on(
  request: SamplingRequest, topology: Topology, sizes: Mapping[str, int], rows: Sequence[int]
) -> Sampling | None:
  """Estimates passes on a mesh; None if their rows do not divide over its groups.

  Raises ConfigError where the mesh does not fit the chips, or the heads the mesh.
  """
  work = request.work
  axes = axis_networks(sizes, topology)
  check_heads(work, sizes)
  groups = math.prod(sizes[axis] for axis in BATCH)
  if any(request.samples * count % groups for count in rows):
    return None
  passes = {}
  for count in rows:
    together = request.samples * count
    collectives = list_collectives(
      work, sizes, axes, together, None, request.exchange, topology.chip
    )
    passes[count] = make_pass(work, topology, sizes, together, collectives)
  return Sampling(request, topology, sizes, passes, _bytes(request, topology, sizes, max(rows)))


def make_pass(
  work: Workload,
  topology: Topology,
  sizes: Mapping[str, int],
  rows: int,
  collectives: Sequence[Collective],
) -> Pass:
  """Returns the cost of a pass of `rows` rows on a mesh, with these collectives."""
  return Pass(forward_roofline(work, topology, sizes, rows, collectives), tuple(collectives))


def _bytes(
  request: SamplingRequest, topology: Topology, sizes: Mapping[str, int], rows: int
) -> dict[str, int]:
  """Returns category -> bytes of one chip during a pass, without the saved weights.

  cast weights         the layers' pieces in the compute type, cast before the loop; for GPUs XLA
                       casts a layer at a time
  weights of a layer   gathered where they lie in pieces: the largest matrix and the next one
  activations          the larger of attention and FFN: input, norm, q, k, v, result (and those
                       again where heads are exchanged); input, norm, gate times up
  latents              noise, place and velocities, float32
  """
  work = request.work
  local = share_of_chip(work, sizes, request.samples * rows)
  tokens = local.rows * local.tokens
  traded = 4 if local.context > 1 else 0
  widest = max((6 + traded) * work.dim, 2 * work.dim + 2 * work.mlp_dim // local.tensor)
  matrices = [parameter.size // parameter.depth for parameter in work.parameters if parameter.depth]
  cut = sizes['context'] * sizes['fsdp'] > 1
  pieces = sum(matrices) * work.depth // (sizes['context'] * sizes['fsdp'] * local.tensor)
  ahead = 3 if topology.chip.gathers_ahead else 2
  return {
    CAST: pieces * work.itemsize if topology.chip.rank and work.itemsize < FLOAT32 else 0,
    'weights of a layer': ahead * max(matrices) * work.itemsize // local.tensor if cut else 0,
    'activations': local.tokens * work.dim * (work.itemsize + FLOAT32)
    + tokens * widest * work.itemsize,
    'latents': (2 + rows) * request.samples * math.prod(work.latents) * FLOAT32,
  }
