"""Whether a frozen encoder fits: on one chip, and in pieces over all of a topology."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError, first_line, is_out_of_memory
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Tree
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import AXES, BATCH, partition, size
from mgjax.parallel.shard import batch_sharding
from mgjax.planning.aot import compile_lowered, tpu_devices
from mgjax.registry import SECTIONS, section

ENCODERS = tuple(name for name, each in SECTIONS.items() if each.family == 'encoder')
ENCODE = 'encode'
FREE = 0.1  # of a chip's memory, that fits leaves


def encoder_inputs(config: ConfigDict) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns the shapes of what an encoder reads, `config.rows` of them.

  Of text tokens and mask (b m), `config.length` long; else images (b h w 3).
  """
  if 'length' not in config:
    return (jax.ShapeDtypeStruct((config.rows, *[config.model.size] * 2, 3), jnp.float32),)
  shape = (config.rows, config.length)
  return jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.bool_)


def tokens_read(config: ConfigDict) -> int:
  """Returns how many tokens an encoder makes of one row."""
  if 'length' in config:
    return int(config.length)
  return 1 + (config.model.size // config.model.patch) ** 2  # of the whole image, and patches


def make_encoder(config: ConfigDict) -> nn.Module:
  """Makes the encoder that a configuration describes.

  Raises:
    ConfigError: the configuration is not of an encoder.
  """
  if config.component not in ENCODERS:
    raise ConfigError(
      f'the configuration is of the component {config.component!r}; expected {" or ".join(ENCODERS)}'
    )
  return section(config.component).weights.get().make(config.model.to_dict())


def boxed_parameters(config: ConfigDict) -> Tree:
  """Returns the shapes of an encoder's parameters in the boxes that name their axes.

  With `keep_type` they are taken to be of the compute type, in which large encoders are published.
  """
  model = make_encoder(config)
  boxes = jax.eval_shape(model.init, jax.random.key(0), *encoder_inputs(config))['params']
  dtype = jnp.dtype(config.model.dtype if config.keep_type else 'float32')
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), boxes)


def plan_encoder(
  config: ConfigDict, topology: str, sizes: Mapping[str, int] | None = None, *, compiled: bool
) -> dict[str, Any]:
  """Says what an encoder needs for `config.rows` prompts at once.

  Args:
    config: of an encoder.
    topology: as 'v5p:2x2x1'.
    sizes: of the mesh; by default all devices on `fsdp`.
    compiled: compile it for the topology, and take memory from the compiler.

  Returns:
    Plain JSON values: GiB of one chip, on one alone and in pieces on all.

  Raises:
    ConfigError: the configuration is of another part; or the topology is not of TPUs, or the
      compiler for them is not installed.
  """
  boxes, place = boxed_parameters(config), parse_topology(topology)
  alone = dict.fromkeys(AXES, 1)
  every = alone | dict(sizes or {'fsdp': place.devices})
  programs = {}
  for name, each in (('one chip', alone), (f'{place.devices} chips', every)):
    programs[name] = {'weights_gib': _weights(boxes, each) / GIB}
    if compiled:
      programs[name] |= _compile(config, boxes, place, each)
  memory = place.chip.memory
  for program in programs.values():
    held = program.get('peak_gib', program['weights_gib'])
    program['fits'] = 'refused' not in program and held * GIB <= (1 - FREE) * memory
  return {
    'topology': topology,
    'mesh': every,
    'parameters': count_parameters(nn.unbox(boxes)),
    'rows': config.rows,
    'length': tokens_read(config),
    'dtype': config.model.dtype,
    'gib_of_a_chip': memory / GIB,
    'notes': ['compiled, not run' if compiled else 'weights alone, by formula'],
    'programs': programs,
  }


def describe_encoder(answer: Mapping[str, Any]) -> str:
  """Returns what `plan_encoder` found as a table for people."""
  lines = [
    f'{answer["parameters"]:,} parameters, {answer["rows"]} x {answer["length"]} tokens, '
    f'{answer["dtype"]}; one chip of {answer["topology"]} has {answer["gib_of_a_chip"]:.0f} GiB; '
    f'{", ".join(answer["notes"])}',
    f'{"on":10} {"weights, GiB":>13} {"peak":>7} {"compiled in":>12}',
  ]
  for name, row in answer['programs'].items():
    peak, seconds = '-', '-'
    if 'peak_gib' in row:
      peak, seconds = f'{row["peak_gib"]:.2f}', f'{row["compile_seconds"]:.0f} s'
    verdict = '' if row['fits'] else f'  does not fit {row.get("refused", "")}'.rstrip()
    lines.append(f'{name:10} {row["weights_gib"]:13.2f} {peak:>7} {seconds:>12}{verdict}')
  return '\n'.join(lines)


def _weights(boxes: Tree, sizes: Mapping[str, int]) -> int:
  """Counts the bytes of the weights on one chip."""
  mesh = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
  total = 0
  for box in jax.tree.leaves(boxes, is_leaf=_is_box):
    shape, spec = box.value.shape, partition(box.names, box.value.shape, mesh)
    cuts = [axes if isinstance(axes, tuple) else (axes,) for axes in spec if axes]
    pieces = math.prod(size(mesh, axes) for axes in cuts)
    total += math.prod(shape) * box.value.dtype.itemsize // pieces
  return total


def _compile(
  config: ConfigDict, boxes: Tree, topology: Topology, sizes: Mapping[str, int]
) -> dict[str, Any]:
  model, devices = make_encoder(config), tpu_devices(topology)
  whole = math.prod(sizes.values()) == topology.devices
  mesh = make_mesh(
    sizes, devices=devices if whole else devices[:1], torus=topology.torus if whole else ()
  )
  rows = batch_sharding(mesh)
  if config.rows % size(mesh, BATCH):
    raise ConfigError(
      f'config.rows = {config.rows} prompts do not divide over {size(mesh, BATCH)} chips'
    )

  def placed(box) -> jax.ShapeDtypeStruct:
    spec = partition(box.names, box.value.shape, mesh)
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(box.value.shape, box.value.dtype, sharding=sharding)

  params = jax.tree.map(placed, boxes, is_leaf=_is_box)
  inputs = [
    jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=rows) for each in encoder_inputs(config)
  ]

  def encode(params, *inputs):
    return model.apply({'params': params}, *inputs)

  out = NamedSharding(mesh, PartitionSpec(rows.spec[0]))
  with jax.set_mesh(mesh):
    jitted = jax.jit(encode, out_shardings=out)
    try:
      result = compile_lowered(lambda: jitted.lower(params, *inputs), mesh.devices.flat[0])
    except jax.errors.JaxRuntimeError as error:
      if not is_out_of_memory(error):
        raise
      return {'refused': first_line(error)}
  return {
    'peak_gib': result.peak_gib,
    'temporary_gib': result.temporary_gib,
    'compile_seconds': result.seconds,
  }


def _is_box(leaf) -> bool:
  return isinstance(leaf, nn.LogicallyPartitioned)
