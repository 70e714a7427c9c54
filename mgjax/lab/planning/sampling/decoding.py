"""Plans the decoding of a clip's latents on one chip: operations, memory, seconds."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Tree
from mgjax.lab.planning.aot import CompiledStep, compile_lowered, devices_of
from mgjax.lab.planning.efficiency import bounds, describe_efficiency, rates_of, spread
from mgjax.lab.planning.forward import count_products
from mgjax.lab.planning.memory import FLOAT32
from mgjax.lab.planning.plan import COMPILED, ESTIMATED
from mgjax.lab.planning.search import FREE
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics
from mgjax.models.tae.tiling import Tiling
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import AXES
from mgjax.parallel.shard import replicated
from mgjax.sections.autoencoder.pipeline import codec_class


def plan_decoding(
  config: ConfigDict,
  topology: str,
  frames: int,
  size: tuple[int, int] | None,
  *,
  rows: int = 1,
  compiled: bool = False,
) -> dict[str, Any]:
  """Estimates what it takes to decode `rows` clips together on one chip of a topology.

  Weights are in float32, as saved. Without `compiled` the peak has no activations.
  Returns plain JSON values. Raises ConfigError for a clip that is not decoded in one piece, and
  DataError for a length that the autoencoder does not have.
  """
  model = make_autoencoder(fields_of(config, 'model'))
  tiling = Tiling.of(dict(config.get('tiling', {})))
  codec = codec_class(model)(model, {}, Statistics.neutral(model.latent_channels), tiling)
  if not frames or size is None:
    raise ConfigError('--frames and --size say which clip is decoded; give both')
  if frames > codec.tiling.frames:
    raise ConfigError(
      f'{frames} frames are decoded in tiles of time of {codec.tiling.frames}; give --frames of '
      'one tile at most'
    )
  cluster = parse_topology(topology)
  chip = cluster.chip
  params = _parameters(codec)
  count = count_parameters(params)
  shape = (rows, *codec.latent_shape((frames, *size)))
  latents = jax.ShapeDtypeStruct(shape, jnp.float32)
  flops = count_products(codec.decode_tile, params, latents)
  seconds = rates_of(chip.name).map(lambda rates: flops / chip.flops / rates.linear)
  gib = {
    'weights': count * FLOAT32 / GIB,
    'latents': latents.size * FLOAT32 / GIB,
  }
  peak = sum(gib.values())
  programs = {}
  notes = [f'{ESTIMATED}; activations are not in it']
  if compiled:
    program = _compiled(codec, cluster, params, latents, frames)
    peak = program.peak_gib
    programs = {'the decoder': program.as_json()}
    notes = [f'{COMPILED}, in {program.seconds:.0f} s']
  linear, *_ = describe_efficiency(chip.name)
  return {
    'topology': cluster.name,
    'parameters': count,
    'shape': [frames, *size],
    'samples': rows,
    'flops': flops,
    'seconds': {'ideal': flops / chip.flops, **bounds(seconds)},
    'gib': gib,
    'programs': programs,
    'peak_gib': peak,
    'gib_of_a_chip': chip.memory / GIB,
    'fits': peak * GIB <= (1 - FREE) * chip.memory,
    'notes': [
      *notes,
      f'{linear}; convolutions are assumed to be like them',
      'the peak is that of bfloat16, whatever the type of the decoder',
    ],
  }


def describe_decoding(answer: Fields) -> str:
  """Returns what `plan_decoding` found as text."""
  frames, height, width = answer['shape']
  verdict = 'fits' if answer['fits'] else 'does not fit'
  return '\n'.join(
    [
      f'model       {answer["parameters"]:,} parameters',
      f'clip        {answer["samples"]} of {frames} x {height} x {width}, '
      f'{answer["flops"]:.4g} FLOP to decode',
      f'GiB of one chip of {answer["topology"]}, of {answer["gib_of_a_chip"]:.1f}: {verdict}, '
      f'{answer["peak_gib"]:.2f} at peak',
      *(f'  {name:20} {value:8.2f}' for name, value in answer['gib'].items()),
      f'seconds     {spread(answer["seconds"])}, {answer["seconds"]["ideal"]:.3g} at the peak',
      *answer['notes'],
    ]
  )


def _parameters(codec: LatentCodec) -> Tree:
  """Returns the shapes of a codec's parameters."""
  model = codec.model
  if isinstance(model, WanAutoencoder):
    step, *steps = model.compression
    inputs = (jax.ShapeDtypeStruct((1, 1 + step, *steps, 3), jnp.float32),)
  else:
    inputs = (jax.ShapeDtypeStruct((1, *model.compression, 3), jnp.float32), jax.random.key(0))
  return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)['params'])


def _compiled(
  codec: LatentCodec,
  topology: Topology,
  params: Tree,
  latents: jax.ShapeDtypeStruct,
  frames: int,
) -> CompiledStep:
  """Compiles the program that decodes, as `LatentCodec.decode` runs it, for one device."""
  mesh = make_mesh(dict.fromkeys(AXES, 1), devices=devices_of(topology)[:1])
  sharding = replicated(mesh)
  decode = jax.jit(codec.decode_bytes, static_argnames='frames')
  arguments = jax.tree.map(lambda leaf: leaf.update(sharding=sharding), (params, latents))
  with jax.set_mesh(mesh):
    return compile_lowered(lambda: decode.lower(*arguments, frames=frames), mesh)
