"""Plans the sampling of a flow model on a topology: latency, throughput, memory (Movie Gen §3.4.2).

A sample takes as many function evaluations (`sampling/latency.py`) as its solver asks for.
"""

from collections.abc import Mapping
from typing import Any

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
from mgjax.lab.planning.sampling.latency import Pass, Sampling, SamplingRequest, fastest
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
) -> dict[str, Any]:
  """Estimates how long a flow model takes to sample on a topology, and cheaper ways to sample.

  By default the mesh has the least latency among those that fit, and the bucket the most tokens;
  `rows` are samples at a time. `compiled` takes memory and collectives from the compiled sampler.
  Returns plain JSON values; seconds are for all `rows` samples together.
  Raises ConfigError if something does not exist, does not fit together or cannot be compiled.
  """
  cluster = parse_topology(topology)
  work = make_workload(run, bucket)
  request = SamplingRequest(work, exchange or work.exchange, rows)
  check_exchange(request.exchange)
  settings = run.objective.in_passes(run.sample)
  ways = list_ways(settings)
  configured = ways[0]
  mesh = None if sizes is None else make_sizes(sizes)
  chosen = {
    rows: fastest(request, cluster, rows, mesh)
    for rows in dict.fromkeys(tuple(way.passes) for way in ways)
  }
  if chosen[tuple(configured.passes)] is None:
    raise ConfigError(_undivided(mesh, cluster, request, configured))
  notes = ['estimated by formula']
  programs = {}
  if compiled:
    run = run.with_backbone(exchange=request.exchange)
    chosen, programs, notes = compile_samplings(run, chosen)
  estimates = [
    _row(way, sampling) for way in ways if (sampling := chosen[tuple(way.passes)]) is not None
  ]
  first = chosen[tuple(configured.passes)]
  largest_pass = first.passes[max(first.passes)]
  assumed = describe_assumptions(work, cluster.chip.name, largest_pass.collectives, backward=False)
  return {
    'topology': cluster.name,
    'devices': cluster.devices,
    'bucket': work.bucket,
    'shape': list(work.shape),
    'tokens': work.tokens,
    'context': work.context,
    'parameters': work.count,
    'samples': rows,
    'steps': settings.steps,
    'solver': settings.solver,
    'exchange': request.exchange,
    'flops_of_a_row': work.flops.forward,
    **estimates[0],
    'gib': {'weights': first.weights(SAVED) / GIB}
    | {name: count / GIB for name, count in first.bytes.items()},
    'gib_of_a_chip': cluster.chip.memory / GIB,
    'pass': _described(largest_pass),
    'programs': programs,
    'ways': estimates,
    'notes': [*notes, *assumed, LEFT_OUT],
  }


def describe_generation(answer: Fields) -> str:
  """Returns what `plan_generation` found as a table for people."""
  frames, height, width = answer['shape']
  parts = answer['pass']
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
      f'  {name}: {program["peak_gib"]:.1f} GiB at the peak, {program["arguments_gib"]:.1f} of '
      f'them arguments; compiled in {program["compile_seconds"]:.0f} s'
      for name, program in answer['programs'].items()
    ),
    '',
    *table([('collectives a pass', *COLLECTIVES), *map(collective_row, parts['collectives'])], 3),
    f'a pass      {spread(parts["seconds"], ".4g")} s: linear {spread(parts["linear"])}, attention '
    f'{spread(parts["attention"])}, element-wise {spread(parts["elementwise"])}, waiting '
    f'{spread(parts["waiting"])} of {parts["communication"]:.3g} of communication; '
    f'{parts["seconds"]["ideal"]:.3g} at the peak',
    '',
    *table([headings, *(_cells(way['name'], way) for way in answer['ways'])]),
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
  request = sampling.request
  ends = Ends(seconds['high'], seconds['low'])
  return {
    'name': way.name,
    'passes': sum(way.passes.values()),
    'evaluations': way.evaluations,
    'weights': way.weights,
    'mesh': dict(sampling.sizes),
    'flops': way.evaluations * request.work.flops.forward * request.samples,
    'seconds': seconds,
    'samples_per_hour': bounds(ends.map(lambda time: 3600 * request.samples / time)),
    'mfu': bounds(ends.map(lambda time: seconds['ideal'] / time)),
    'peak_gib': sampling.peak(way.weights) / GIB,
    'fits': sampling.fits(way.weights),
  }


def _described(estimate: Pass) -> dict[str, Any]:
  """Returns the parts of a pass as plain JSON values."""
  names = ('linear', 'attention', 'elementwise', 'waiting')
  return {
    'seconds': estimate.seconds,
    **{name: bounds_of(estimate.time, name) for name in names},
    'communication': estimate.time.fast.communication,
    'collectives': [collective_as_json(collective) for collective in estimate.collectives],
  }


def _undivided(
  mesh: Mapping[str, int] | None, topology: Topology, request: SamplingRequest, way: Way
) -> str:
  rows = ' and '.join(str(request.samples * count) for count in way.passes)
  if mesh is None:
    return f'no mesh of {topology.name} takes {rows} rows a pass in equal parts; give other --rows'
  return (
    f'{rows} rows a pass do not divide over the mesh {mesh_flag(mesh)}; give more --rows, or put '
    'devices that share a row on context'
  )
