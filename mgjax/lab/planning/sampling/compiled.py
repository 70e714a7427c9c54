"""Compiles samplers ahead of time for TPUs and NVIDIA GPUs, without devices (Movie Gen §3.4.2)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import JSON
from mgjax.core.typing import Tree
from mgjax.lab.planning.aot import CompiledStep, compile_lowered, devices_of, placed_shapes
from mgjax.lab.planning.communication import Collective
from mgjax.lab.planning.memory import FLOAT32
from mgjax.lab.planning.plan import COMPILED
from mgjax.lab.planning.programs.audit import audit
from mgjax.lab.planning.programs.placement import audit_failures, group_collectives, list_kernels
from mgjax.lab.planning.sampling.latency import Sampling, make_pass
from mgjax.lab.planning.sampling.passes import count_passes
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.models.flow_model.build import make_sampler_of
from mgjax.models.flow_model.conditions import example_batch, small_inputs
from mgjax.models.flow_model.model import FlowModel
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import replicated

_ACTIVATIONS = ('weights', 'gradients', 'other')
Chosen = Mapping[tuple[int, ...], Sampling | None]


def compile_samplings(run: FlowRun, chosen: Chosen) -> tuple[Chosen, JSON, list[str]]:
  """Compiles the sampler as configured, and without guidance, each on the mesh chosen for it.

  What is compiled is the loop over all steps, as `mgjax.sections.video.pipeline` runs it; memory is
  the compiler's, and a pass has the collectives of the program over its passes. A sampler whose
  guidance ends on the way has two kinds of passes in one program, which stay those of the formula.
  Returns the samplings, the programs as plain JSON values by name, and notes.
  """
  model = run.outline.model
  samplings = dict(chosen)
  programs = {}
  notes = []
  for rows, sampling in chosen.items():
    if sampling is None:
      continue
    several = max(rows) > 1
    sizes = sampling.sizes
    work = sampling.request.work
    sample = run.sample if several else run.sample.changed({'guidance': ()})
    generate = make_sampler_of(sample, run.objective, model)
    program = compile_sampler(generate, model, sampling)
    name = 'the sampler' if several else 'the sampler without guidance'
    programs[name] = {'mesh': dict(sizes), **program.as_json()}
    notes.append(f'{name}: {COMPILED}, in {program.seconds:.0f} s')
    sampling = dataclasses.replace(sampling, compiled=program.peak_gib)
    if program.hlo is None or len(rows) > 1:
      notes.append(f'{name}: collectives are those of the formula')
    else:
      collectives = audit(program.hlo)
      kernels = list_kernels(program.hlo, work, sampling.topology, trained=False)
      notes += [f'{name}: {line}' for line in kernels]
      together = sampling.request.samples * rows[0]
      # Velocities travel in float32, a little more where tokens are filled up; a small model's
      # matrices are no larger.
      velocities = together * math.prod(work.latents) * FLOAT32 * 65 // 64
      matrix = work.dim**2 * work.itemsize // sizes['tensor']
      notes += audit_failures(collectives, max(matrix, velocities))
      placed = group_collectives(collectives, sizes, sampling.topology)
      shared = _shared(placed, sum(count_passes(sample).values()))
      shared_pass = make_pass(work, sampling.topology, sizes, together, shared)
      sampling = dataclasses.replace(sampling, passes={rows[0]: shared_pass})
    samplings[rows] = sampling
  return samplings, programs, notes


def compile_sampler(generate: Any, model: FlowModel, sampling: Sampling) -> CompiledStep:
  """Compiles `generate(params, batch, noise)` for a mesh; weights are in float32, as saved.

  Noise and conditions are whole on every device, as a pipeline gives them.
  """
  request = sampling.request
  topology = sampling.topology
  mesh = make_mesh(sampling.sizes, devices=devices_of(topology), torus=topology.torus)
  latents = request.work.latents
  sharding = replicated(mesh)
  inputs = small_inputs(model, latents[-1])
  boxes = jax.eval_shape(lambda key: model.init(key, *inputs)['params'], jax.random.key(0))

  def rows_of(shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((request.samples, *shape), dtype, sharding=sharding)

  example: Tree = jax.eval_shape(lambda: example_batch(model, 'a', latents))
  batch = {name: rows_of(like.shape[1:], like.dtype) for name, like in example.items()}
  arguments = (placed_shapes(boxes, mesh), batch, rows_of(latents, jnp.float32))
  with jax.set_mesh(mesh):
    return compile_lowered(lambda: generate.lower(*arguments), mesh)


def _shared(collectives: Sequence[Collective], passes: int) -> list[Collective]:
  """Returns the collectives of one pass of many; all passes share what precedes the loop."""
  return [
    dataclasses.replace(
      collective,
      bytes=collective.bytes / passes,
      seconds=collective.seconds / passes,
      scheduled=collective.scheduled and collective.scheduled.map(lambda seconds: seconds / passes),
      count=math.ceil(collective.count / passes),
      # Without training, `tensor` gathers and scatters activations.
      what='tensor'
      if collective.axis == 'tensor' and collective.what in _ACTIVATIONS
      else collective.what,
    )
    for collective in collectives
  ]
