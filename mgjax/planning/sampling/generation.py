"""Plans the sampling of a flow model on a topology: latency, throughput, memory (Movie Gen §3.4.2).

A pass is a forward pass of all rows that guidance makes of the samples; seconds of a pass are those
of `planning/roofline.py`, and a sample takes as many as its solver asks for.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.rules import BATCH
from mgjax.planning.communication import Collective, list_collectives
from mgjax.planning.efficiency import Ends, bounds
from mgjax.planning.memory import FLOAT32, parameter_bytes, share_of_chip
from mgjax.planning.network import axis_networks
from mgjax.planning.report import bounds_of, collective_as_json
from mgjax.planning.roofline import Roofline, describe_assumptions, forward_roofline
from mgjax.planning.sampling.passes import SAVED, WEIGHTS, Lever, list_levers
from mgjax.planning.search import FREE, check_exchange, check_heads, mesh_flag, possible_meshes
from mgjax.planning.workload import Workload, make_sizes, make_workload

LEFT_OUT = 'encoding of text and decoding of latents are not in the seconds'
CAST = 'cast weights'
# Slices that latency is told for, beside the one that is asked for.
SLICES = {
  0: ('1', '2', '4', '8', '8x2', '8x4', '8x8'),
  2: ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16'),
  3: ('1x1x1', '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8'),
}


@dataclasses.dataclass(frozen=True)
class Pass:
  """A forward pass on a mesh.

  Attributes:
    time: of the pass, at both ends of the chip's efficiencies.
    collectives: of the pass.
  """

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
    sizes: of all mesh axes.
    passes: rows that a sample has in a pass -> the pass.
    bytes: of one chip at the peak, by category, but for the weights.
    compiled: GiB of one chip by the compiler, weights as they were saved; 0 where it was not asked.
  """

  sizes: Mapping[str, int]
  passes: Mapping[int, Pass]
  bytes: Mapping[str, int]
  compiled: float = 0.0

  def seconds(self, lever: Lever) -> dict[str, float]:
    """Returns the seconds of all passes of a lever."""
    times = {rows: self.passes[rows].seconds for rows in lever.passes}
    names = next(iter(times.values()))
    return {n: sum(c * times[rows][n] for rows, c in lever.passes.items()) for n in names}


@dataclasses.dataclass(frozen=True)
class Asked:
  """What is planned: the model and its samples, how context shards meet, samples at a time."""

  work: Workload
  exchange: str
  samples: int


def plan_generation(
  config: ConfigDict,
  topology: str,
  sizes: Mapping[str, int] | None = None,
  *,
  bucket: str = '',
  exchange: str = '',
  rows: int = 1,
  compiled: bool = False,
) -> dict[str, Any]:
  """Says how long a flow model takes to sample on a topology, and what would make it shorter.

  Args:
    config: of a flow model with a sampler.
    topology: as 'v5p:2x2x2' or 'h200:8'.
    sizes: of the mesh; by default those with the least latency among what fits.
    bucket: whose samples are made; '' takes the one with the most tokens.
    exchange: of context shards; '' is as configured.
    rows: samples at a time.
    compiled: compile the sampler for the topology, and take memory and collectives from there.

  Returns:
    Plain JSON values; seconds are those of all samples that are made at a time.

  Raises:
    ConfigError: something does not exist, does not fit together or cannot be compiled.
  """
  place, work = parse_topology(topology), make_workload(config, bucket)
  asked = Asked(work, exchange or work.exchange, rows)
  check_exchange(asked.exchange)
  sample = unpack(SampleSettings, fields_of(config, 'sample'), 'sample')
  objective = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  settings = objective.in_passes(sample)
  levers = list_levers(settings)
  configured = levers[0]
  given = None if sizes is None else make_sizes(sizes)
  chosen = {
    rows: fastest(asked, place, rows, given)
    for rows in dict.fromkeys(tuple(lever.passes) for lever in levers)
  }
  if chosen[tuple(configured.passes)] is None:
    raise ConfigError(_undivided(given, place, asked, configured))
  notes, programs = ['estimated by formula'], {}
  if compiled:
    # Not above: an estimate needs no compiler.
    from mgjax.planning.sampling.compiled import compile_samplings

    chosen, programs, notes = compile_samplings(config, asked, place, chosen)
  found = [
    _row(lever, each, asked, place)
    for lever in levers
    if (each := chosen[tuple(lever.passes)]) is not None
  ]
  first = chosen[tuple(configured.passes)]
  shown = first.passes[max(first.passes)]
  assumed = describe_assumptions(place.chip.name, shown.collectives, backward=False)
  slices = [_on_slice(asked, each, configured) for each in _slices(place)]
  return {
    'topology': topology,
    'devices': place.devices,
    'bucket': work.bucket,
    'shape': list(work.shape),
    'tokens': work.tokens,
    'context': work.context,
    'parameters': work.count,
    'samples': rows,
    'steps': settings.steps,
    'solver': settings.solver,
    'exchange': asked.exchange,
    'flops_of_a_row': work.flops.forward,
    **found[0],
    'gib': {'weights': _weights(asked, first.sizes, SAVED) / GIB}
    | {name: count / GIB for name, count in first.bytes.items()},
    'gib_of_a_chip': place.chip.memory / GIB,
    'pass': _described(shown),
    'programs': programs,
    'levers': found,
    'slices': [each for each in slices if each],
    'notes': [*notes, *assumed, LEFT_OUT],
  }


def fastest(
  asked: Asked, place: Topology, rows: Sequence[int], given: Mapping[str, int] | None
) -> Sampling | None:
  """Returns the sampling with the least latency of one pass of each of `rows`, among what fits.

  The middle of the range of seconds counts.
  What does not fit comes after all that does, least memory first; None if nothing divides.

  Args:
    asked: what is planned.
    place: the chips.
    rows: that a sample has in a pass.
    given: sizes of the mesh; None tries all.

  Raises:
    ConfigError: the mesh that is given does not fit the chips.
  """
  found = []
  for sizes in [given] if given else possible_meshes(place):
    try:
      found.append(_estimate(asked, place, make_sizes(sizes), rows))
    except ConfigError:
      if given:
        raise
  found = [each for each in found if each is not None]
  most = (1 - FREE) * place.chip.memory

  def ranking(each: Sampling) -> tuple[float, float]:
    peak = _peak(asked, each, SAVED)
    ends = ((one.time.slow.step, one.time.fast.step) for one in each.passes.values())
    total = sum(map(sum, ends)) / 2
    return (0.0, total) if peak <= most else (peak, total)

  return min(found, key=ranking, default=None)


def _estimate(
  asked: Asked, place: Topology, sizes: Mapping[str, int], rows: Sequence[int]
) -> Sampling | None:
  """Estimates passes on a mesh; None if their rows do not divide over its groups."""
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
  return Sampling(sizes, passes, _bytes(asked, place, sizes, max(rows)))


def make_pass(
  work: Workload,
  place: Topology,
  sizes: Mapping[str, int],
  rows: int,
  found: Sequence[Collective],
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

  Args:
    asked: what is planned.
    place: the chips.
    sizes: of the mesh.
    rows: that a sample has in a pass.
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


def _weights(asked: Asked, sizes: Mapping[str, int], kind: str) -> int:
  return parameter_bytes(asked.work, sizes, WEIGHTS[kind])


def _peak(asked: Asked, sampling: Sampling, kind: str) -> float:
  """Returns the bytes of one chip with weights of some kind: the compiler's, of those as saved.

  Others are counted by formula, without a cast before the loop. To subtract what they save from
  the compiler's peak may give too little: by a quarter at v5p:2x2x2, where other copies are kept.
  """
  if kind == SAVED and sampling.compiled:
    return sampling.compiled * GIB
  kept = sum(count for name, count in sampling.bytes.items() if name != CAST or kind == SAVED)
  return _weights(asked, sampling.sizes, kind) + kept


def _row(lever: Lever, sampling: Sampling, asked: Asked, place: Topology) -> dict[str, Any]:
  seconds, peak = sampling.seconds(lever), _peak(asked, sampling, lever.weights)
  ends = Ends(seconds['high'], seconds['low'])
  return {
    'name': lever.name,
    'passes': sum(lever.passes.values()),
    'evaluations': lever.evaluations,
    'weights': lever.weights,
    'mesh': dict(sampling.sizes),
    'flops': lever.evaluations * asked.work.flops.forward * asked.samples,
    'seconds': seconds,
    'samples_per_hour': bounds(ends.map(lambda each: 3600 * asked.samples / each)),
    'mfu': bounds(ends.map(lambda each: seconds['ideal'] / each)),
    'peak_gib': peak / GIB,
    'fits': peak <= (1 - FREE) * place.chip.memory,
  }


def _described(one: Pass) -> dict[str, Any]:
  """What a pass is made of."""
  names = ('linear', 'attention', 'elementwise', 'waiting')
  return {
    'seconds': one.seconds,
    **{name: bounds_of(one.time, name) for name in names},
    'communication': one.time.fast.communication,
    'collectives': [collective_as_json(each) for each in one.collectives],
  }


def _slices(place: Topology) -> list[Topology]:
  """Returns the slices of a chip's kind that latency is told for, the one asked for among them."""
  names = [f'{place.chip.name}:{sizes}' for sizes in SLICES[place.chip.rank]]
  found = [parse_topology(name) for name in names] + [place]
  return sorted({each.shape: each for each in found}.values(), key=lambda each: each.devices)


def _on_slice(asked: Asked, place: Topology, lever: Lever) -> dict[str, Any]:
  """Returns the row of a slice by formula, on its fastest mesh; {} if nothing divides."""
  found = fastest(asked, place, tuple(lever.passes), None)
  if found is None:
    return {}
  return {'topology': place.name, 'devices': place.devices} | _row(lever, found, asked, place)


def _undivided(given: Mapping[str, int] | None, place: Topology, asked: Asked, lever: Lever) -> str:
  rows = ' and '.join(str(asked.samples * count) for count in lever.passes)
  if given is None:
    return f'no mesh of {place.name} takes {rows} rows a pass in equal parts; give other --rows'
  return (
    f'{rows} rows a pass do not divide over the mesh {mesh_flag(given)}; give more --rows, or put '
    'devices that share a row on context'
  )
