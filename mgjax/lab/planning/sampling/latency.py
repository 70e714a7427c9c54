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
class Asked:
  """What is planned: the model and its samples, how context shards meet, samples at a time."""

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
  """Samples that are made together on a mesh, by passes of some rows.

  Attributes:
    passes: rows that a sample has in a pass -> the pass.
    bytes: of one chip at the peak, by category, but for the weights.
    compiled: GiB of one chip by the compiler, weights as they were saved; 0 where it was not asked.
  """

  asked: Asked
  place: Topology
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
    return parameter_bytes(self.asked.work, self.sizes, WEIGHTS[kind])

  def peak(self, kind: str) -> float:
    """Returns the bytes of one chip with weights of some kind: the compiler's, of those as saved.

    Others are counted by formula, without a cast before the loop. To subtract what they save from
    the compiler's peak may give too little: by a quarter at v5p:2x2x2, where other copies are kept.
    """
    if kind == SAVED and self.compiled:
      return self.compiled * GIB
    kept = sum(count for name, count in self.bytes.items() if name != CAST or kind == SAVED)
    return self.weights(kind) + kept

  def fits(self, kind: str) -> bool:
    """Whether a tenth of a chip's memory stays free."""
    return self.peak(kind) <= (1 - FREE) * self.place.chip.memory


def fastest(
  asked: Asked, place: Topology, rows: Sequence[int], given: Mapping[str, int] | None
) -> Sampling | None:
  """Returns the sampling with the least latency of one pass of each of `rows`, among what fits.

  The middle of the range of seconds counts. What does not fit comes after all that does, least
  memory first; None if nothing divides. Raises ConfigError where a given mesh does not fit.
  """
  found = []
  for sizes in [given] if given else possible_meshes(place):
    try:
      found.append(sample_on(asked, place, make_sizes(sizes), rows))
    except ConfigError:
      if given:
        raise
  found = [each for each in found if each is not None]

  def ranking(each: Sampling) -> tuple[float, float]:
    ends = ((one.time.slow.step, one.time.fast.step) for one in each.passes.values())
    total = sum(map(sum, ends)) / 2
    return (0.0, total) if each.fits(SAVED) else (each.peak(SAVED), total)

  return min(found, key=ranking, default=None)


def sample_on(
  asked: Asked, place: Topology, sizes: Mapping[str, int], rows: Sequence[int]
) -> Sampling | None:
  """Estimates passes on a mesh; None if their rows do not divide over its groups.

  Raises ConfigError where the mesh does not fit the chips, or the heads the mesh.
  """
  work = asked.work
  axes = axis_networks(sizes, place)
  check_heads(work, sizes)
  groups = math.prod(sizes[axis] for axis in BATCH)
  if any(asked.samples * count % groups for count in rows):
    return None
  passes = {}
  for count in rows:
    together = asked.samples * count
    found = list_collectives(work, sizes, axes, together, None, asked.exchange, place.chip)
    passes[count] = make_pass(work, place, sizes, together, found)
  return Sampling(asked, place, sizes, passes, _bytes(asked, place, sizes, max(rows)))


def make_pass(
  work: Workload, place: Topology, sizes: Mapping[str, int], rows: int, found: Sequence[Collective]
) -> Pass:
  """Makes a pass of `rows` rows on a mesh of its collectives."""
  return Pass(forward_roofline(work, place, sizes, rows, found), tuple(found))


def _bytes(asked: Asked, place: Topology, sizes: Mapping[str, int], rows: int) -> dict[str, int]:
  """Returns category -> bytes of one chip while a pass runs, but for the weights as they are saved.

  cast weights         the layers' pieces in the compute type, cast before the loop
  weights of a layer   gathered where they lie in pieces: the largest matrix and the next one
  activations          the larger of attention and FFN: input, norm, q, k, v, result (and those
                       again where heads are exchanged); input, norm, gate times up
  latents              noise, place and velocities, float32
  """
  work = asked.work
  local = share_of_chip(work, sizes, asked.samples * rows)
  tokens = local.rows * local.tokens
  traded = 4 if local.context > 1 else 0
  widest = max((6 + traded) * work.dim, 2 * work.dim + 2 * work.mlp_dim // local.tensor)
  matrices = [each.size // each.depth for each in work.parameters if each.depth]
  cut = sizes['context'] * sizes['fsdp'] > 1
  pieces = sum(matrices) * work.depth // (sizes['context'] * sizes['fsdp'] * local.tensor)
  ahead = 3 if place.chip.gathers_ahead else 2
  return {
    CAST: pieces * work.itemsize if work.itemsize < FLOAT32 else 0,
    'weights of a layer': ahead * max(matrices) * work.itemsize // local.tensor if cut else 0,
    'activations': local.tokens * work.dim * (work.itemsize + FLOAT32)
    + tokens * widest * work.itemsize,
    'latents': (2 + rows) * asked.samples * math.prod(work.latents) * FLOAT32,
  }
