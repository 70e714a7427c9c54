"""Whether an autoencoder fits: its training step and its tiles, compiled without devices."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Tree
from mgjax.data.sources import longest_bucket
from mgjax.parallel.chips import Topology, parse_topology
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import batch_sharding
from mgjax.planning.aot import CompiledStep, compile_for, compile_lowered, tpu_devices
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.tae.objective import LossWeights, make_objective
from mgjax.tae.pipeline import make_tiling
from mgjax.tae.task import make_adversary
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.guard import UpdateGuard
from mgjax.training.optimizer import make_optimizer
from mgjax.training.settings import optimizer_settings
from mgjax.training.state import abstract_state
from mgjax.training.step import make_step

CLIP = (256, 768, 768)  # frames, height, width: the longest clip of the report


def compile_autoencoder(
  config: ConfigDict, topology: str, sizes: Mapping[str, int] | None = None
) -> dict[str, Any]:
  """Compiles the training step of the longest bucket, and one tile of a long clip on one chip.

  Perceptual weights are left out: a file would have to be there.

  Args:
    config: of the component 'autoencoder'.
    topology: of TPUs, as 'v5p:2x2x1'.
    sizes: of the mesh; by default all devices on `fsdp`.

  Returns:
    Plain JSON values: GiB of one chip for `step`, `encode` and `decode`, and seconds to compile.

  Raises:
    ConfigError: the topology is not of TPUs, or the compiler for them is not installed.
  """
  if config.component != 'autoencoder':
    raise ConfigError(f'this compiles autoencoders, the configuration is of {config.component!r}')
  place = parse_topology(topology)
  found = {'step': _step(config, place, sizes or {'fsdp': place.devices}), **_tiles(config, place)}
  memory = place.chip.memory / 2**30
  model, shapes = make_autoencoder(config.model.to_dict()), _shapes(config)
  return {
    'topology': topology,
    'parameters': count_parameters(shapes),
    'compression': list(model.compression),
    'clip': list(CLIP),
    'gib_of_a_chip': memory,
    'notes': ['compiled, not run', 'LPIPS is not in the step'],
    'programs': {
      name: {
        'peak_gib': program.peak_gib,
        'arguments_gib': program.arguments_gib,
        'temporary_gib': program.temporary_gib,
        'compile_seconds': program.seconds,
      }
      for name, program in found.items()
    },
  }


def describe_autoencoder(answer: Mapping[str, Any]) -> str:
  """Returns what `compile_autoencoder` found as a table for people."""
  lines = [
    f'{answer["parameters"]:,} parameters, one chip of {answer["topology"]} has '
    f'{answer["gib_of_a_chip"]:.0f} GiB; {", ".join(answer["notes"])}',
    f'{"program":10} {"peak, GiB":>10} {"arguments":>10} {"temporary":>10} {"compiled in":>12}',
  ]
  for name, row in answer['programs'].items():
    lines.append(
      f'{name:10} {row["peak_gib"]:10.1f} {row["arguments_gib"]:10.1f} '
      f'{row["temporary_gib"]:10.1f} {row["compile_seconds"]:10.0f} s'
    )
  frames, height, width = answer['clip']
  lines.append(
    f'encode and decode: one tile of a clip of {frames} x {height} x {width}, which any number of '
    'tiles follows in the same memory'
  )
  return '\n'.join(lines)


def _step(config: ConfigDict, topology: Topology, sizes: Mapping[str, int]) -> CompiledStep:
  devices = tpu_devices(topology)
  mesh = make_mesh(sizes, devices=devices, torus=topology.torus)
  model, weights = make_autoencoder(config.model.to_dict()), LossWeights(**config.objective)
  _, bucket = longest_bucket(config.buckets)
  options = {
    'seed': config.seed, 'decay': config.train.ema_decay, 'accumulate': config.train.accumulate,
    'guard': UpdateGuard(**config.train.get('faults', {})),
  }  # fmt: skip
  optimizer = make_optimizer(optimizer_settings(**config.optimizer.to_dict()), config.train.steps)
  init = functools.partial(_init, model, (jnp.zeros((1, *model.compression, 3)), jax.random.key(0)))
  discriminator = make_adversary(config, weights, None)
  if discriminator is None:
    step = make_step(model, make_objective(weights), optimizer, **options)
    state = abstract_state(init, optimizer, mesh)
  else:
    other = make_optimizer(discriminator.optimizer, config.train.steps)
    step = make_adversarial_step(model, discriminator, optimizer, other, **options)
    player = (functools.partial(_init, discriminator.model, discriminator.inputs), other)
    state = abstract_state(init, optimizer, mesh, player)
  video = jax.ShapeDtypeStruct(
    (bucket.batch_size, bucket.frames, bucket.height, bucket.width, 3),
    jnp.float32,
    sharding=batch_sharding(mesh),
  )
  return compile_for(mesh, step, state, {'video': video})


def _tiles(config: ConfigDict, topology: Topology) -> dict[str, CompiledStep]:
  device = tpu_devices(topology)[0]
  place = SingleDeviceSharding(device)
  channels = config.model.latent_channels
  statistics = Statistics((0.0,) * channels, (1.0,) * channels)
  model = make_autoencoder(config.model.to_dict())
  codec = LatentCodec(model, {}, statistics, make_tiling(config))

  def on_chip(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

  params = jax.tree.map(on_chip, _shapes(config))
  frames = min(codec.tiling.frames, CLIP[0])
  video = on_chip(jax.ShapeDtypeStruct((1, frames, *CLIP[1:], 3), jnp.uint8))
  latents = on_chip(
    jax.ShapeDtypeStruct((1, *model.latent_shape((frames, *CLIP[1:]))), jnp.float32)
  )
  return {
    name: compile_lowered(lambda run=run, x=x: jax.jit(run).lower(params, x), device)
    for name, run, x in (
      ('encode', codec.encode_tile, video),
      ('decode', codec.decode_tile, latents),
    )
  }


def _init(model, inputs, key: jax.Array) -> Tree:
  return model.init(key, *inputs)['params']


def _shapes(config: ConfigDict) -> Tree:
  model = make_autoencoder(config.model.to_dict())
  inputs = (jnp.zeros((1, *model.compression, 3)), jax.random.key(0))
  return nn.unbox(jax.eval_shape(functools.partial(_init, model, inputs), jax.random.key(0)))
