"""Plans the memory of an autoencoder: its step and its tiles, compiled without devices."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Tree
from mgjax.data.settings import video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.parallel.chips import parse_topology
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import batch_sharding
from mgjax.planning.aot import CompiledStep, compile_for, compile_lowered, tpu_devices
from mgjax.planning.step_spec import StepSpec, make_autoencoder_step_spec
from mgjax.registry import check_family
from mgjax.tae.autoencoder import Autoencoder
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.tae.task import autoencoder_settings, make_adversary
from mgjax.tae.tiling import Tiling
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.optimizer import make_optimizer
from mgjax.training.spec import Adversary, init_params
from mgjax.training.state import abstract_state

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
  check_family(config.component, 'autoencoder')
  place = parse_topology(topology)
  spec = make_autoencoder_step_spec(config)
  adversary = make_adversary(autoencoder_settings(config.to_dict()))
  other = adversary and make_optimizer(adversary.optimizer, config.train.steps)
  devices = tpu_devices(place)
  mesh = make_mesh(sizes or {'fsdp': place.devices}, devices=devices, torus=place.torus)
  name, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  video = (config.buckets[name].batch_size, shape.frames, *shape.size, 3)
  params = nn.unbox(jax.eval_shape(spec.init, jax.random.key(0)))
  found = {
    'step': _compile_step(spec, adversary, other, video, mesh),
    **_compile_tiles(spec.model, Tiling.of(dict(config.get('tiling', {}))), params, devices[0]),
  }
  return {
    'topology': topology,
    'parameters': count_parameters(params),
    'compression': list(spec.model.compression),
    'clip': list(CLIP),
    'gib_of_a_chip': place.chip.memory / 2**30,
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


def _compile_step(
  spec: StepSpec,
  adversary: Adversary | None,
  other: optax.GradientTransformation | None,
  shape: tuple[int, ...],
  mesh: Mesh,
) -> CompiledStep:
  """Compiles the step for a batch of videos; `other` is the discriminator's optimizer."""
  if adversary is None:
    step, state = spec.make_step(), abstract_state(spec.init, spec.optimizer, mesh)
  else:
    step = make_adversarial_step(spec.model, adversary, spec.optimizer, other, **spec.options)
    player = (functools.partial(init_params, adversary), other)
    state = abstract_state(spec.init, spec.optimizer, mesh, player)
  video = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=batch_sharding(mesh))
  return compile_for(mesh, step, state, {'video': video})


def _compile_tiles(
  model: Autoencoder, tiling: Tiling, params: Tree, device: Any
) -> dict[str, CompiledStep]:
  """Compiles the encoding and the decoding of one tile of `CLIP` for one chip."""
  channels = model.latent_channels
  codec = LatentCodec(model, {}, Statistics((0.0,) * channels, (1.0,) * channels), tiling)

  def on_chip(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SingleDeviceSharding(device))

  params = jax.tree.map(on_chip, params)
  shape = (min(tiling.frames, CLIP[0]), *CLIP[1:])
  video = on_chip(jax.ShapeDtypeStruct((1, *shape, 3), jnp.uint8))
  latents = on_chip(jax.ShapeDtypeStruct((1, *model.latent_shape(shape)), jnp.float32))
  programs = {'encode': (codec.encode_tile, video), 'decode': (codec.decode_tile, latents)}
  return {
    name: compile_lowered(lambda run=run, x=x: jax.jit(run).lower(params, x), device)
    for name, (run, x) in programs.items()
  }
