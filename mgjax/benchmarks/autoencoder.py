"""Benchmarks an autoencoder on the devices that there are, alone or interleaved with baselines.

Baselines get our weights and inputs; their results are compared with ours before they are timed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.benchmarks.baselines import Baseline, find_baselines, make_autoencoder_task
from mgjax.benchmarks.compare import Check, PreparedPrograms, compare_programs, prepare, report_of
from mgjax.benchmarks.programs import STEP, Programs, make_step_programs, program_shapes
from mgjax.benchmarks.report import RECONSTRUCTION_COUNTED
from mgjax.benchmarks.timing import SPREAD, Timed, counted_compilations
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Float, Tree
from mgjax.data.settings import video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.flow_models.flops import FORWARD_AND_BACKWARD
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import BATCH, size
from mgjax.parallel.shard import batch_sharding, make_initialise, put_batch
from mgjax.planning.sampling.products import count_products
from mgjax.planning.step_spec import StepSpec, make_autoencoder_step_spec
from mgjax.registry import check_family

ENCODE, DECODE = 'encode', 'decode'
PASSES = (ENCODE, DECODE, STEP)
# Results may be as far apart as sums of 10^3 products in float32 make them, layer after layer: 40
# layers add to some 1e-5 of the largest number. Other weights or a missing layer make it some 0.1.
CLOSE = 1e-4


def measure_autoencoder(
  config: ConfigDict,
  what: str = STEP,
  *,
  video: tuple[int, int, int, int] | None = None,
  baselines: Sequence[str] = (),
  rounds: int = 5,
  profile: str = '',
  devices: Sequence[Any] | None = None,
) -> dict[str, Any]:
  """Times an autoencoder on random data.

  encode   pixels to the posterior's mean
  decode   latents to pixels
  step     forward, backward, AdamW and average, without LPIPS and discriminator

  Args:
    config: of the component 'autoencoder'; its mesh and rules say how devices share the rows.
    what: one of these.
    video: shape (b t h w); by default of the bucket with the most frames.
    baselines: Python files (`baselines.py`); all take turns in this process.
    rounds: timed runs of every program.
    profile: directory for a trace of some more runs; '' for none.
    devices: by default all there are.

  Returns:
    Plain JSON values: `programs` is 'mgjax' or a baseline -> program -> seconds, rates of the
    median, memory; `apart` is baseline -> program -> how far its results are from ours, of our
    largest number.

  Raises:
    ConfigError: something does not exist or does not divide.
  """
  if what not in PASSES:
    raise ConfigError(
      f'there is no {what!r} of an autoencoder to time; expected one of {", ".join(PASSES)}'
    )
  check_family(config.component, 'autoencoder')
  name, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  video = video or (config.buckets[name].batch_size, shape.frames, *shape.size)
  mesh = make_mesh(fields_of(config, 'mesh'), config.rules, devices=devices)
  found = find_baselines(baselines, what, mesh.size)
  if video[0] % (groups := size(mesh, BATCH)):
    raise ConfigError(
      f'{video[0]} rows do not divide over {groups} groups of devices; take {groups} rows or a '
      'multiple in --video'
    )
  programs = make_autoencoder_programs(what, make_autoencoder_step_spec(config), video, mesh)
  notes = ['LPIPS and discriminator are not in the step'] if what == STEP else []
  apart: dict[str, dict[str, float]] = {}
  with jax.set_mesh(mesh), counted_compilations() as compilations:
    ours, task, check = prepare(programs), {}, None
    if found:
      params, x = ours.arguments
      task = make_autoencoder_task(what, fields_of(config, 'model'), video[1], x, params)
      check = make_check(ours, apart, notes)
    outcome = compare_programs(
      ours, found, task, compilations, rounds=rounds, profile=profile, check=check
    )  # fmt: skip
  report = report_of(
    what, ours, outcome, mesh,
    rounds=rounds, notes=notes, rows=video[0], frames=video[0] * video[1],
  )  # fmt: skip
  return report | {
    'video': list(video),
    'dtype': config.model.dtype,
    'apart': apart,
    'counted': RECONSTRUCTION_COUNTED,
  }


def make_autoencoder_programs(
  what: str, spec: StepSpec, video: tuple[int, int, int, int], mesh: Mesh
) -> Programs:
  """Makes the program to be timed, without allocating anything large; no mesh may be ambient.

  Args:
    what: 'encode', 'decode' or 'step'.
    spec: the objects of an autoencoder's training step.
    video: shape (b t h w).
    mesh: from `make_mesh`.

  Raises:
    ConfigError: the pixels do not divide by the compression.
  """
  model = spec.model

  def encode(params: Tree, x: Float[Array, 'b t h w 3']) -> Float[Array, 'b u i j c']:
    return model.apply({'params': params}, x, method='encode').mean

  def decode(params: Tree, latents: Float[Array, 'b t h w c']) -> Float[Array, 'b u i j 3']:
    return model.apply({'params': params}, latents, video[1], method='decode')

  initialise, shardings = make_initialise(spec.init, mesh)
  params = program_shapes(initialise, shardings)
  rows = batch_sharding(mesh)
  pixels = jax.ShapeDtypeStruct((*video, 3), jnp.float32, sharding=rows)
  latents = jax.eval_shape(encode, params, pixels)  # raises where pixels do not divide
  latents = jax.ShapeDtypeStruct(latents.shape, jnp.float32, sharding=rows)
  flops = {
    name: count_products(program, params, x)
    for name, program, x in ((ENCODE, encode, pixels), (DECODE, decode, latents))
  }
  if what == STEP:
    drawn = np.random.default_rng(0).uniform(-1, 1, (*video, 3)).astype(np.float32)
    forward = flops[ENCODE] + flops[DECODE]
    batch, flops = put_batch({'video': drawn}, mesh), FORWARD_AND_BACKWARD * forward
    return make_step_programs(spec, batch, mesh, flops=flops)
  program, x = {ENCODE: (encode, pixels), DECODE: (decode, latents)}[what]
  return Programs(
    programs={what: program},
    flops={what: flops[what]},
    shapes=(params, x),
    allocate=lambda: _draw((params, x)),
    parameters=count_parameters(params),
  )


def _draw(shapes: Tree) -> Tree:
  """Draws arguments, the parameters too: as initialised, temporal layers would do nothing."""
  rng = np.random.default_rng(0)

  def fill(leaf: jax.ShapeDtypeStruct) -> Array:
    return jax.device_put(SPREAD * rng.standard_normal(leaf.shape, np.float32), leaf.sharding)

  return jax.tree.map(fill, shapes)


def make_check(
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
