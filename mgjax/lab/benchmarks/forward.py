"""Times the passes of autoencoders, codecs and encoders, alone or interleaved with baselines.

Baselines get our weights and inputs; their results are compared with ours before they are timed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Tree
from mgjax.lab.benchmarks.baselines import Baseline, find_baselines, make_forward_task
from mgjax.lab.benchmarks.compare import (
  Check,
  PreparedPrograms,
  compare_programs,
  prepare,
  report_of,
)
from mgjax.lab.benchmarks.programs import Programs, program_shapes
from mgjax.lab.benchmarks.report import PASSES_COUNTED
from mgjax.lab.benchmarks.timing import SPREAD, Timed, counted_compilations
from mgjax.lab.planning.forward import Forward
from mgjax.parallel.rules import BATCH, size
from mgjax.parallel.shard import batch_sharding, make_initialise

# Results may be as far apart as sums of 10^3 products in float32 make them, layer after layer: 40
# layers add to some 1e-5 of the largest number. Other weights or a missing layer make it some 0.1.
CLOSE = 1e-4


def measure_forward(
  forward: Forward,
  what: str,
  mesh: Mesh,
  *,
  baselines: Sequence[str] = (),
  rounds: int = 5,
) -> dict[str, Any]:
  """Times a pass on random data with random weights; the devices of a mesh share the rows.

  The other arguments are those of `bench_any`. Returns plain JSON values: `programs` is 'mgjax' or
  a baseline -> program -> seconds, rates of the median, memory; `apart` is baseline -> program ->
  how far its results are from ours, of our largest number. Raises ConfigError if something does
  not exist or does not divide.
  """
  check_one_of(f'there is no {what!r} of {forward.component!r} to time', what, forward.passes)
  rivals = find_baselines(baselines, what, mesh.size)
  if forward.rows % (groups := size(mesh, BATCH)):
    raise ConfigError(
      f'{forward.rows} rows do not divide over {groups} groups of devices; take {groups} rows or a '
      'multiple'
    )
  programs = make_forward_programs(what, forward, mesh)
  notes: list[str] = []
  apart: dict[str, dict[str, float]] = {}
  with jax.set_mesh(mesh), counted_compilations() as compilations:
    ours = prepare(programs)
    task = {}
    check = None
    if rivals:
      params, *inputs = ours.arguments
      task = make_forward_task(what, forward, inputs, params)
      check = _make_check(ours, apart, notes)
    outcome = compare_programs(ours, rivals, task, compilations, rounds=rounds, check=check)
  unit, count = forward.unit
  counts = {'rows': forward.rows, unit: count}
  report = report_of(what, ours, outcome, mesh, rounds=rounds, notes=notes, **counts)
  return report | {
    'sizes': list(forward.sizes),
    'unit': unit,
    'dtype': jnp.dtype(forward.model.dtype).name,
    'apart': apart,
    'counted': PASSES_COUNTED,
  }


def make_forward_programs(what: str, forward: Forward, mesh: Mesh) -> Programs:
  """Makes the program to time, without allocating anything; no mesh may be ambient."""
  run, input_shapes = forward.passes[what]
  initialise, shardings = make_initialise(forward.init, mesh)
  rows = batch_sharding(mesh)
  inputs = [jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=rows) for shape in input_shapes]
  params = program_shapes(initialise, shardings)

  def allocate() -> tuple[Tree, ...]:
    random = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
      if leaf.dtype == bool:
        drawn = np.ones(leaf.shape, bool)
      elif leaf.dtype == np.int32:
        drawn = random.integers(1, forward.model.vocabulary, leaf.shape).astype(np.int32)
      else:  # the parameters too: as initialised, temporal layers would do nothing
        drawn = SPREAD * random.standard_normal(leaf.shape, np.float32)
      return jax.device_put(drawn, leaf.sharding)

    return tuple(jax.tree.map(draw, (params, *inputs)))

  return Programs(
    programs={what: run},
    flops={what: forward.flops()[what]},
    shapes=(params, *inputs),
    allocate=allocate,
    parameters=count_parameters(params),
  )


def _make_check(
  ours: PreparedPrograms, apart: dict[str, dict[str, float]], notes: list[str]
) -> Check:
  """Makes what compares a baseline's results with ours, and notes how far they are apart."""
  expected = {
    name: np.asarray(program.call(*ours.arguments)) for name, program in ours.compiled.items()
  }

  def check(baseline: Baseline, variant: str, programs: Mapping[str, Timed]) -> None:
    if baseline.differs:
      notes.append(f'{variant} does other work: {baseline.differs}')
      return
    for name, run in programs.items():
      result = np.asarray(run())
      if result.shape != expected[name].shape:
        raise ValueError(f'{name} gives {result.shape} and ours {expected[name].shape}')
      largest = np.max(np.abs(expected[name]))
      distance = float(np.max(np.abs(result - expected[name])) / largest)
      if not distance <= CLOSE:
        raise ValueError(
          f'{name} is {distance:.1e} of the largest number away from ours, more than {CLOSE:g}: it '
          'does other work, or with other weights'
        )
      apart.setdefault(variant, {})[name] = distance
      notes.append(f'{variant}, {name}: the same as ours to {distance:.0e} of the largest number')

  return check
