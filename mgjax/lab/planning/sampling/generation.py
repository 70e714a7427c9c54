"""Plans the sampling of a flow model on a topology: latency, throughput, memory (Movie Gen §3.4.2).

A sample takes as many passes (`sampling/latency.py`) as its solver asks for.
"""

from collections.abc import Mapping

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.lab.planning.efficiency import Ends, bounds, spread
from mgjax.lab.planning.report import (
  COLLECTIVES,
  bounds_of,
  collective_as_json,
  collective_row,
  table,
)
from mgjax.lab.planning.roofline import describe_assumptions
from mgjax.lab.planning.sampling.compiled import compile_samplings
from mgjax.lab.planning.sampling.latency import Asked, Pass, Sampling, fastest
from mgjax.lab.planning.sampling.passes import SAVED, Way, list_ways
from mgjax.lab.planning.search import check_exchange, mesh_flag
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_sizes, make_workload
from mgjax.parallel.chips import GIB, Topology, parse_topology

LEFT_OUT = 'encoding of text and decoding of latents are not in the seconds'


def plan_generation(
  run: FlowRun,
  topology: str,
  sizes: Mapping[str, int] | None = None,
  *,
  bucket: str = '',
  exchange: str = '',
  rows: int = 1,
  compiled: bool = False,
) -> JSON:
  """Says how long a flow model takes to sample on a topology, and what would make it shorter.

  By default the mesh has the least latency among those that fit, and the bucket the most tokens;
  `rows` are samples at a time. `compiled` takes memory and collectives from the compiled sampler.
  Returns plain JSON values; seconds are those of all samples that are made at a time.
  Raises ConfigError if something does not exist, does not fit together or cannot be compiled.
  """
  place = parse_topology(topology)
  work = make_workload(run, bucket)
  asked = Asked(work, exchange or work.exchange, rows)
  check_exchange(asked.exchange)
  settings = run.objective.in_passes(run.sample)
  ways = list_ways(settings)
  configured = ways[0]
  given = None if sizes is None else make_sizes(sizes)
  chosen = {
    rows: fastest(asked, place, rows, given)
    for rows in dict.fromkeys(tuple(way.passes) for way in ways)
  }
  if chosen[tuple(configured.passes)] is None:
    raise ConfigError(_undivided(given, place, asked, configured))
  notes = ['estimated by formula']
  programs = {}
  if compiled:
    run = run.with_backbone(exchange=asked.exchange)
    chosen, programs, notes = compile_samplings(run, chosen)
  found = [_row(way, each) for way in ways if (each := chosen[tuple(way.passes)]) is not None]
  first = chosen[tuple(configured.passes)]
  shown = first.passes[max(first.passes)]
  assumed = describe_assumptions(work, place.chip.name, shown.collectives, backward=False)
  return {
    'topology': place.name,
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
    'gib': {'weights': first.weights(SAVED) / GIB}
    | {name: count / GIB for name, count in first.bytes.items()},
    'gib_of_a_chip': place.chip.memory / GIB,
    'pass': _described(shown),
    'programs': programs,
    'ways': found,
    'notes': [*notes, *assumed, LEFT_OUT],
  }


def describe_generation(answer: Fields) -> str:
  """Returns what `plan_generation` found as a table for people."""
  frames, height, width = answer['shape']
  one = answer['pass']
  verdict = 'fits' if answer['fits'] else 'does not fit'
  per = answer['evaluations'] / answer['passes']
  headings = (
    '',
    'passes',
    'rows',
    'PFLOP',
    's at the peak',
    's low',
    's high',
    'MFU',
    'an hour',
    'GiB',
    'mesh',
  )
  lines = [
    f'model       {answer["parameters"]:,} parameters',
    f'sample      {answer["bucket"]}: {frames} x {height} x {width}, {answer["tokens"]:,} tokens, '
    f'{answer["context"]:,} of text',
    f'passes      {answer["passes"]} of {per:g} rows a sample ({answer["steps"]} steps of '
    f'{answer["solver"]}), {answer["flops"]:.4g} FLOP for {answer["samples"]} at a time',
    f'on          {answer["topology"]}, {answer["devices"]} devices, {mesh_flag(answer["mesh"])}, '
    f'exchange {answer["exchange"]}',
    '',
    f'GiB a chip, of {answer["gib_of_a_chip"]:.1f}: {verdict}, {answer["peak_gib"]:.1f} at peak',
    *(f'  {name:20} {value:8.2f}' for name, value in answer['gib'].items()),
    *(
      f'  {name}: {each["peak_gib"]:.1f} GiB at the peak, {each["arguments_gib"]:.1f} of them '
      f'arguments; compiled in {each["compile_seconds"]:.0f} s'
      for name, each in answer['programs'].items()
    ),
    '',
    *table([('collectives a pass', *COLLECTIVES), *map(collective_row, one['collectives'])], 3),
    f'a pass      {spread(one["seconds"], ".4g")} s: linear {spread(one["linear"])}, attention '
    f'{spread(one["attention"])}, element-wise {spread(one["elementwise"])}, waiting '
    f'{spread(one["waiting"])} of {one["communication"]:.3g} of communication; '
    f'{one["seconds"]["ideal"]:.3g} at the peak',
    '',
    *table([headings, *(_cells(each['name'], each) for each in answer['ways'])]),
    '',
    *answer['notes'],
  ]
  return '\n'.join(lines)


def _cells(name: str, row: Fields) -> tuple[str, ...]:
  seconds = row['seconds']
  return (
    name,
    str(row['passes']),
    str(row['evaluations']),
    f'{row["flops"] / 1e15:.4g}',
    *(f'{seconds[key]:.3g}' for key in ('ideal', 'low', 'high')),
    spread(row['mfu'], '.0%'),
    spread(row['samples_per_hour']),
    f'{row["peak_gib"]:.1f}' + (' (too large)' if not row['fits'] else ''),
    mesh_flag(row['mesh']),
  )


def _row(way: Way, sampling: Sampling) -> JSON:
  seconds = sampling.seconds(way)
  asked = sampling.asked
  ends = Ends(seconds['high'], seconds['low'])
  return {
    'name': way.name,
    'passes': sum(way.passes.values()),
    'evaluations': way.evaluations,
    'weights': way.weights,
    'mesh': dict(sampling.sizes),
    'flops': way.evaluations * asked.work.flops.forward * asked.samples,
    'seconds': seconds,
    'samples_per_hour': bounds(ends.map(lambda each: 3600 * asked.samples / each)),
    'mfu': bounds(ends.map(lambda each: seconds['ideal'] / each)),
    'peak_gib': sampling.peak(way.weights) / GIB,
    'fits': sampling.fits(way.weights),
  }


def _described(one: Pass) -> JSON:
  """What a pass is made of."""
  names = ('linear', 'attention', 'elementwise', 'waiting')
  return {
    'seconds': one.seconds,
    **{name: bounds_of(one.time, name) for name in names},
    'communication': one.time.fast.communication,
    'collectives': [collective_as_json(each) for each in one.collectives],
  }


def _undivided(given: Mapping[str, int] | None, place: Topology, asked: Asked, way: Way) -> str:
  rows = ' and '.join(str(asked.samples * count) for count in way.passes)
  if given is None:
    return f'no mesh of {place.name} takes {rows} rows a pass in equal parts; give other --rows'
  return (
    f'{rows} rows a pass do not divide over the mesh {mesh_flag(given)}; give more --rows, or put '
    'devices that share a row on context'
  )
