"""Benchmarks a flow model on the devices that there are, alone or interleaved with baselines.

What `planning/` estimates is measured here, of the same sizes (`lab/planning/workload.py`) and
against the same peaks (`parallel/chips.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, first_line, is_out_of_memory
from mgjax.lab.benchmarks.baselines import find_baselines, make_task
from mgjax.lab.benchmarks.compare import (
  PreparedPrograms,
  compare_programs,
  compile_one,
  prepare,
  report_of,
)
from mgjax.lab.benchmarks.programs import Programs, make_programs
from mgjax.lab.benchmarks.report import ATTENTION_COUNTED, COUNTED
from mgjax.lab.benchmarks.sampling import SAMPLE, Sampler, make_sample_programs
from mgjax.lab.benchmarks.timing import (
  capacity,
  counted_compilations,
  estimate_depth,
  halve_until_it_fits,
)
from mgjax.lab.planning.step_spec import FlowRun, make_flow_step_spec
from mgjax.lab.planning.workload import make_workload
from mgjax.nn.patch import grid


def measure_flow_model(
  run: FlowRun,
  what: str,
  mesh: Mesh,
  *,
  latents: tuple[int, ...] | None = None,
  layers: int | None = None,
  baselines: Sequence[str] = (),
  rounds: int = 5,
) -> JSON:
  """Times the programs of a flow model on random data; the devices of a mesh share the work.

  The other arguments are those of `bench_any`. Returns plain JSON values: `programs` is 'mgjax' or
  a baseline -> program -> seconds, rates of the median, memory. Raises ConfigError if something
  does not exist, does not divide, or does not fit into memory.
  """
  if what == 'attention' and layers is not None:
    raise ConfigError('attention alone has no layers to choose; leave --layers away')
  work = make_workload(run)
  latents = tuple(latents or (work.batch, *work.latents))
  rivals = find_baselines(baselines, what, mesh.size)
  configured = run.outline.model.backbone
  sampler = Sampler(run.sample, run.objective) if what == SAMPLE else None

  def with_depth(depth: int) -> FlowRun:
    return run.with_backbone(depth=depth, unroll=min(configured.unroll, depth))

  def make(depth: int) -> Programs:
    spec = make_flow_step_spec(with_depth(depth), latents[-1])
    arguments = (spec, latents, work.context, mesh)
    return make_sample_programs(sampler, *arguments) if sampler else make_programs(what, *arguments)

  with jax.set_mesh(mesh), counted_compilations() as compilations:
    ours, depth, notes = _prepare_that_fits(make, configured.depth, layers)
    backbone = with_depth(depth).outline.model.backbone
    task = make_task(what, backbone, latents, work.context) | (sampler.task() if sampler else {})
    outcome = compare_programs(ours, rivals, task, compilations, rounds=rounds)

  tokens = math.prod(grid(latents, backbone.patch))
  report = report_of(
    what,
    ours,
    outcome,
    mesh,
    rounds=rounds,
    notes=notes,
    rows=latents[0],
    tokens=latents[0] * tokens,
  )
  return report | {
    'latents': list(latents),
    'tokens_per_sample': tokens,
    'context': work.context,
    'dtype': backbone.dtype.name,
    **{name: getattr(backbone, name) for name in ('remat', 'attention', 'exchange')},
    'layers': 0 if what == 'attention' else depth,
    'layers_configured': configured.depth,
    **(_of_sampler(sampler.task(), report) if sampler else {}),
    'counted': ATTENTION_COUNTED if what == 'attention' else COUNTED,
  }


def _of_sampler(sampler: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a report of a sampler adds: median milliseconds a step of the loop."""
  steps = len(sampler['times']) - 1
  milliseconds = {
    name: 1000 * of[SAMPLE]['median'] / steps for name, of in report['programs'].items()
  }
  words = ', '.join(f'{name} {value:.3g} ms a step' for name, value in milliseconds.items())
  return {
    'steps': steps,
    'guidance': sampler['guidance'],
    'step_milliseconds': milliseconds,
    'notes': [*report['notes'], f'in the loop of {steps} steps: {words}'],
  }


def _prepare_that_fits(
  make: Callable[[int], Programs], configured: int, layers: int | None
) -> tuple[PreparedPrograms, int, list[str]]:
  """Compiles and warms up with the layers that are asked for, or with as many as fit."""
  if layers != 0:
    depth = configured if layers is None else layers
    try:
      return prepare(make(depth)), depth, []
    except Exception as error:
      if not is_out_of_memory(error):
        raise
      message = first_line(error)
    raise ConfigError(
      f'out of memory with {depth} layers ({message}); take --layers=0 for as many as fit, another '
      '--config.model.remat, or fewer rows or tokens in --latents'
    )

  def needed(depth: int) -> int:
    programs = make(depth)
    *_, last = programs.programs  # the one with a backward pass
    return compile_one(programs, last).bytes

  depth = estimate_depth(configured, capacity(), needed)
  ours, depth, notes = halve_until_it_fits(lambda depth: prepare(make(depth)), depth)
  return ours, depth, [*notes, f'as many layers as fit: {depth} of {configured}']
