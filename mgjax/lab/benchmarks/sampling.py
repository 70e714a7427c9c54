"""Times sampling: one guided step and all of them, on random data, without decoding."""

import dataclasses
import inspect
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Batch, Tree
from mgjax.flow.guidance import intervals_of
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.solvers import STEPPED
from mgjax.lab.benchmarks.programs import Programs, check_rows, make_batch, program_shapes
from mgjax.lab.planning.sampling.passes import count_passes
from mgjax.lab.planning.step_spec import StepSpec
from mgjax.models.flow_model.build import make_sampler_of
from mgjax.models.flow_model.flops import backbone_flops
from mgjax.models.flow_model.sampling import make_generate
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.parallel.shard import make_initialise

SAMPLE = 'sample'
STEP = 'guided_step'


@dataclasses.dataclass(frozen=True)
class Sampler:
  """What is configured of a sampler, and what the model learned to answer.

  Raises ConfigError if the solver chooses its steps while it runs.
  """

  settings: SampleSettings
  objective: ObjectiveSettings

  def __post_init__(self):
    if (solver := self.settings.solver) not in STEPPED:
      raise ConfigError(
        f'solver {solver!r} chooses its steps while it runs; time config.sample.solver '
        f'one of {", ".join(STEPPED)}'
      )

  def task(self) -> JSON:
    """Returns what a baseline has to know beside `baselines.make_task`, in plain values.

    `times`, the schedule; `guidance`, the scale of a text, 1 where there is none; `solver`.
    """
    settings = self.settings
    scales = [
      next((value for value, _ in intervals_of(scale)), scale) for _, scale in settings.guidance
    ]
    return {
      'times': make_time_grid(steps=settings.steps, **settings.schedule).tolist(),
      'guidance': scales[-1] if scales else 1.0,
      'solver': settings.solver,
    }


def make_sample_programs(
  sampler: Sampler, spec: StepSpec, latents: tuple[int, ...], context: int, mesh: Mesh
) -> Programs:
  """Makes the programs of sampling; the mesh must be ambient and its groups divide the rows.

  guided_step  one step of the solver, all rows that guidance makes of a sample in one pass
  sample       the whole loop, one program, as `launch.sample` runs it before it decodes
  """
  check_rows(latents, mesh)
  settings = sampler.settings
  objective = sampler.objective
  programs = {
    STEP: _bare(_first_step(objective.in_passes(settings), spec)),
    SAMPLE: _bare(make_sampler_of(settings, objective, spec.model)),
  }
  initialise, shardings = make_initialise(spec.init, mesh)
  shapes = program_shapes(initialise, shardings)
  batch = make_batch(spec.model, latents, context, mesh)
  row = backbone_flops(spec.model.backbone, latents, context).forward
  passes = count_passes(objective.in_passes(settings))
  total_rows = sum(rows * count for rows, count in passes.items())
  evaluations = sum(count_passes(settings).values()) // settings.steps
  return Programs(
    programs=programs,
    flops={STEP: row * max(passes) * evaluations, SAMPLE: row * total_rows},
    shapes=(shapes, batch),
    allocate=lambda: (initialise(jax.random.key(0)), batch),
    parameters=count_parameters(shapes),
  )


def _first_step(settings: SampleSettings, spec: StepSpec) -> Callable[..., Array]:
  times = make_time_grid(steps=settings.steps, **settings.schedule)[:2]
  return make_generate(
    spec.model, times=np.asarray(times), solver=settings.solver, guidance=settings.guidance
  )


def _bare(generate: Callable[..., Array]) -> Callable[[Tree, Batch], Array]:
  """Returns the function of a sampler's program; the batch brings its noise as 'latents'."""
  function = inspect.unwrap(generate)

  def run(params: Tree, batch: Batch) -> Array:
    conditions = {name: array for name, array in batch.items() if name != 'latents'}
    return function(params, conditions, batch['latents'])

  return run
