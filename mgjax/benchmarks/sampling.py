"""Times sampling: one guided step and all of them, on random data, without decoding."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.benchmarks.programs import Programs, check_rows, make_batch, program_shapes
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Batch, Tree
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.solvers import SOLVERS
from mgjax.flow_models.build import make_sampler_of
from mgjax.flow_models.flops import backbone_flops
from mgjax.flow_models.sampling import make_generate
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.parallel.shard import make_initialise
from mgjax.planning.sampling.passes import count_passes
from mgjax.planning.step_spec import StepSpec

SAMPLE, STEP = 'sample', 'guided_step'
READING, REREAD = 'reading', 'rereading'


def read_sampler(config: ConfigDict) -> SampleSettings:
  """Reads `config.sample`.

  Raises:
    ConfigError: the solver chooses its steps while it runs.
  """
  settings = unpack(SampleSettings, fields_of(config, 'sample'), 'sample')
  if settings.solver not in SOLVERS:
    raise ConfigError(
      f'solver {settings.solver!r} chooses its steps while it runs; time config.sample.solver one '
      f'of {", ".join(SOLVERS)}'
    )
  return settings


def sampler_task(settings: SampleSettings) -> dict[str, Any]:
  """Returns what a baseline has to know beside `baselines.make_task`, in plain values.

  Returns:
    `times`, the schedule; `guidance`, the scale of a text, 1 where there is none; `solver`.
  """
  scales = [scale if isinstance(scale, float) else scale[0] for _, scale in settings.guidance]
  return {
    'times': make_time_grid(steps=settings.steps, **settings.schedule).tolist(),
    'guidance': scales[-1] if scales else 1.0,
    'solver': settings.solver,
  }


def make_sample_programs(
  config: ConfigDict, spec: StepSpec, latents: tuple[int, ...], context: int, mesh: Mesh
) -> Programs:
  """Makes the programs of sampling; the mesh is ambient.

  guided_step  one step of the solver, all rows that guidance makes of a sample in one pass
  sample       the whole loop, one program, as `launch.sample` runs it before it decodes

  Args:
    config: of a flow model: its sampler and what it learnt to answer.
    spec: the objects of its step.
    latents: (b t h w c) of the samples.
    context: m, tokens that cross-attention reads.
    mesh: from `make_mesh`.

  Raises:
    ConfigError: the rows do not divide over the mesh, or the sampler is none that can be timed.
  """
  check_rows(latents, mesh)
  settings = read_sampler(config)
  objective = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  programs = {
    STEP: _bare(_first_step(objective.in_passes(settings), spec)),
    SAMPLE: _bare(make_sampler_of(settings, objective, spec.model)),
  }
  initialise, shardings = make_initialise(spec.init, mesh)
  shapes = program_shapes(initialise, shardings)
  batch = make_batch(spec.model, latents, context, mesh)
  row = backbone_flops(spec.model.backbone, latents, context).forward
  passes = count_passes(objective.in_passes(settings))
  whole = sum(rows * count for rows, count in passes.items())
  return Programs(
    programs=programs,
    flops={STEP: row * max(passes) * _evaluations(settings), SAMPLE: row * whole},
    shapes=(shapes, batch),
    allocate=lambda: (initialise(jax.random.key(0)), batch),
    parameters=count_parameters(shapes),
  )


def make_reading_programs(
  config: ConfigDict, spec: StepSpec, latents: tuple[int, ...], context: int, mesh: Mesh
) -> Programs:
  """Makes the loop of sampling twice, to see what it saves to read conditions once.

  sample      as `make_sample_programs`: conditions, and the keys and values that every layer makes
              of them, are there before the first step
  rereading   they are made at every step

  Operations of the first are without the 4 L m d^2 of keys and values of all passes but one a row.

  Args:
    config: as of `make_sample_programs`, and so on.
    spec: the same.
    latents: the same.
    context: the same.
    mesh: the same.

  Raises:
    ConfigError: as there.
  """
  made = make_sample_programs(config, spec, latents, context, mesh)
  settings = read_sampler(config)
  objective = unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective')
  # What goes beyond the model's window reads at every step; this goes nowhere.
  again = make_sampler_of(settings, objective, spec.model, lambda make_velocity: make_velocity)
  passes, backbone = count_passes(settings), spec.model.backbone
  rows = sum(each * count for each, count in passes.items())
  saved = 4 * backbone.depth * context * backbone.dim**2 * (rows - max(passes)) * latents[0]
  whole = made.flops[SAMPLE]
  return dataclasses.replace(
    made,
    programs={SAMPLE: made.programs[SAMPLE], REREAD: _bare(again)},
    flops={SAMPLE: whole - saved, REREAD: whole},
  )


def _first_step(settings: SampleSettings, spec: StepSpec) -> Callable[..., Array]:
  times = make_time_grid(steps=settings.steps, **settings.schedule)[:2]
  return make_generate(
    spec.model, times=np.asarray(times), solver=settings.solver, guidance=settings.guidance
  )


def _evaluations(settings: SampleSettings) -> int:
  return sum(count_passes(settings).values()) // settings.steps


def _bare(generate: Callable[..., Array]) -> Callable[[Tree, Batch], Array]:
  """Returns the function of a sampler's program; the batch brings its noise as 'latents'."""
  function = inspect.unwrap(generate)

  def run(params: Tree, batch: Batch) -> Array:
    conditions = {name: array for name, array in batch.items() if name != 'latents'}
    return function(params, conditions, batch['latents'])

  return run
