"""Plans the memory of a frozen encoder: on one chip, and sharded over all of a topology."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError, first_line, is_out_of_memory
from mgjax.core.settings import Count, Positive, check, checked, fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Tree
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import AXES, BATCH, partition, size
from mgjax.parallel.shard import batch_sharding
from mgjax.planning.aot import compile_lowered, tpu_devices
from mgjax.registry import check_family, section

ENCODE = 'encode'
FREE = 0.1  # of a chip's memory, that fits leaves


@dataclasses.dataclass(frozen=True)
class EncoderInputs:
  """What an encoder reads at once: prompts, or images where `length` is 0.

  Attributes:
    rows: how many.
    length: tokens of a prompt, padding included.
    size: height and width of an image.
    patch: height and width of its patches.
  """

  rows: Positive
  length: Count = 0
  size: Count = 0
  patch: Positive = 1

  def __post_init__(self):
    check(self)

  @property
  def shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Tokens and mask (b m), or images (b h w 3)."""
    if not self.length:
      return (jax.ShapeDtypeStruct((self.rows, self.size, self.size, 3), jnp.float32),)
    shape = (self.rows, self.length)
    return jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.bool_)

  @property
  def tokens(self) -> int:
    """Tokens that the encoder makes of one row: of an image one of the whole, and its patches."""
    return self.length or 1 + (self.size // self.patch) ** 2


def make_encoder(config: ConfigDict) -> tuple[nn.Module, EncoderInputs]:
  """Makes the encoder that a configuration describes, and the shapes of what it reads.

  Raises:
    ConfigError: the configuration is not of an encoder.
  """
  check_family(config.component, 'encoder')
  fields = fields_of(config, 'model')
  model = section(config.component).weights.get().make(fields)
  rows = checked(Positive, config.rows, 'rows')
  if 'length' in config:
    length = checked(Positive, config.length, 'length')
    return model, EncoderInputs(rows, length=length)
  return model, EncoderInputs(rows, size=fields['size'], patch=fields['patch'])


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
    Plain JSON values: GiB of one chip, on one alone and sharded over all.

  Raises:
    ConfigError: the configuration is not of an encoder; or the topology is not of TPUs, or the
      compiler for them is not installed.
  """
  (model, inputs), place = make_encoder(config), parse_topology(topology)
  boxes = jax.eval_shape(model.init, jax.random.key(0), *inputs.shapes)['params']
  # Large encoders are published in the compute type.
  dtype = jnp.dtype(config.model.dtype if config.keep_type else 'float32')
  boxes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), boxes)
  alone = dict.fromkeys(AXES, 1)
  every = alone | dict(sizes or {'fsdp': place.devices})
  programs = {}
  for name, each in (('one chip', alone), (f'{place.devices} chips', every)):
    programs[name] = {'weights_gib': weight_bytes(boxes, each) / GIB}
    if compiled:
      programs[name] |= _compile(model, inputs, boxes, place, each)
  memory = place.chip.memory
  for program in programs.values():
    held = program.get('peak_gib', program['weights_gib'])
    program['fits'] = 'refused' not in program and held * GIB <= (1 - FREE) * memory
  return {
    'topology': topology,
    'mesh': every,
    'parameters': count_parameters(nn.unbox(boxes)),
    'rows': inputs.rows,
    'length': inputs.tokens,
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


def weight_bytes(boxes: Tree, sizes: Mapping[str, int]) -> int:
  """Counts the bytes of weights on one chip; `boxes` name the axes of their shapes."""
  mesh = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
  total = 0
  for box in jax.tree.leaves(boxes, is_leaf=_is_box):
    shape, spec = box.value.shape, partition(box.names, box.value.shape, mesh)
    cuts = [axes if isinstance(axes, tuple) else (axes,) for axes in spec if axes]
    pieces = math.prod(size(mesh, axes) for axes in cuts)
    total += math.prod(shape) * box.value.dtype.itemsize // pieces
  return total


def placed_shapes(boxes: Tree, mesh: Mesh) -> Tree:
  """Returns the shapes of weights as they lie on a mesh; `boxes` name their axes."""

  def placed(box) -> jax.ShapeDtypeStruct:
    sharding = NamedSharding(mesh, partition(box.names, box.value.shape, mesh))
    return jax.ShapeDtypeStruct(box.value.shape, box.value.dtype, sharding=sharding)

  return jax.tree.map(placed, boxes, is_leaf=_is_box)


def _compile(
  model: nn.Module,
  inputs: EncoderInputs,
  boxes: Tree,
  topology: Topology,
  sizes: Mapping[str, int],
) -> dict[str, Any]:
  devices = tpu_devices(topology)
  whole = math.prod(sizes.values()) == topology.devices
  mesh = make_mesh(
    sizes, devices=devices if whole else devices[:1], torus=topology.torus if whole else ()
  )
  rows = batch_sharding(mesh)
  if inputs.rows % size(mesh, BATCH):
    raise ConfigError(
      f'config.rows = {inputs.rows} prompts do not divide over {size(mesh, BATCH)} chips'
    )

  params = placed_shapes(boxes, mesh)
  shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=rows) for each in inputs.shapes]

  def encode(params, *inputs):
    return model.apply({'params': params}, *inputs)

  out = NamedSharding(mesh, PartitionSpec(rows.spec[0]))
  with jax.set_mesh(mesh):
    jitted = jax.jit(encode, out_shardings=out)
    try:
      result = compile_lowered(lambda: jitted.lower(params, *shapes), mesh.devices.flat[0])
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
