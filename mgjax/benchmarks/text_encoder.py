"""Benchmarks a frozen encoder on the devices that there are, alone or interleaved with baselines.

Baselines get our weights and inputs, and their states are compared with ours before they are timed.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.benchmarks.autoencoder import make_check
from mgjax.benchmarks.baselines import find_baselines, make_encoder_task
from mgjax.benchmarks.compare import compare_programs, prepare, report_of
from mgjax.benchmarks.programs import Programs, program_shapes
from mgjax.benchmarks.report import ENCODER_COUNTED
from mgjax.benchmarks.timing import counted_compilations
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Tree
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import BATCH, size
from mgjax.parallel.shard import batch_sharding, make_initialise
from mgjax.planning.sampling.products import count_products
from mgjax.planning.text_encoder import ENCODE, EncoderInputs, make_encoder


def measure_encoder(
  config: ConfigDict,
  *,
  baselines: Sequence[str] = (),
  rounds: int = 5,
  profile: str = '',
  devices: Sequence[Any] | None = None,
) -> dict[str, Any]:
  """Times an encoder on random tokens, none of them padding, or on random images.

  Args:
    config: of an encoder; its mesh and rules say how devices share the rows.
    baselines: Python files (`baselines.py`); all take turns in this process.
    rounds: timed runs of every program.
    profile: directory for a trace of some more runs; '' for none.
    devices: by default all there are.

  Returns:
    Plain JSON values, as `measure_autoencoder`.

  Raises:
    ConfigError: something does not exist or does not divide.
  """
  model, inputs = make_encoder(config)
  mesh = make_mesh(fields_of(config, 'mesh'), config.rules, devices=devices)
  found = find_baselines(baselines, ENCODE, mesh.size)
  if inputs.rows % (groups := size(mesh, BATCH)):
    raise ConfigError(f'config.rows = {inputs.rows} do not divide over {groups} groups of devices')
  programs, length = make_encoder_programs(model, inputs, mesh), inputs.tokens
  about = {'component': config.component, 'dtype': config.model.dtype}
  notes: list[str] = []
  apart: dict[str, dict[str, float]] = {}
  with jax.set_mesh(mesh), counted_compilations() as compilations:
    ours, task, check = prepare(programs), {}, None
    if found:
      params, *arrays = ours.arguments
      task = make_encoder_task({**fields_of(config, 'model'), **about}, arrays, params)
      check = make_check(ours, apart, notes)
    outcome = compare_programs(
      ours, found, task, compilations, rounds=rounds, profile=profile, check=check
    )  # fmt: skip
  report = report_of(
    ENCODE, ours, outcome, mesh,
    rounds=rounds, notes=notes, rows=inputs.rows, tokens=inputs.rows * length,
  )  # fmt: skip
  return report | {
    **about,
    'prompts': [inputs.rows, length],
    'apart': apart,
    'counted': ENCODER_COUNTED,
  }


def make_encoder_programs(model: nn.Module, inputs: EncoderInputs, mesh: Mesh) -> Programs:
  """Makes the program to be timed, without allocating anything; no mesh may be ambient."""

  def init(key: Array) -> Tree:
    ones = (jnp.ones(each.shape, each.dtype) for each in inputs.shapes)
    return model.init(key, *ones)['params']

  def encode(params: Tree, *inputs: Array) -> Array:
    found = model.apply({'params': params}, *inputs)
    return found[0] if isinstance(found, tuple) else found  # the states; a row's vector costs none

  initialise, shardings = make_initialise(init, mesh)
  rows = batch_sharding(mesh)
  shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=rows) for each in inputs.shapes]
  params = program_shapes(initialise, shardings)

  def allocate() -> tuple[Tree, ...]:
    random = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
      if leaf.dtype == bool:
        return jax.device_put(np.ones(leaf.shape, bool), rows)
      if leaf.dtype == np.int32:
        tokens = random.integers(1, model.vocabulary, leaf.shape)
        return jax.device_put(tokens.astype(np.int32), rows)
      return jax.device_put(random.uniform(size=leaf.shape).astype(np.float32), rows)

    return (initialise(jax.random.key(0)), *map(draw, shapes))

  return Programs(
    programs={ENCODE: encode},
    flops={ENCODE: count_products(encode, params, *shapes)},
    shapes=(params, *shapes),
    allocate=allocate,
    parameters=count_parameters(params),
  )
