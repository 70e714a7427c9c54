"""Plans the training step of an autoencoder or a codec by formula, and the encoding of many clips.

Operations are those of traced programs, of one sample:

  step        3 A + (6 + 2) D      A: encoder and decoder forward, D: the discriminators
              3 forward passes of A; the discriminators learn from what is real and what is made, 3
              forward passes each, and judge what is made once more for A, whose gradient passes
              through them (2); where features are matched, they look at what is real as well (1)
  encoding    the encoder, of every tile

Convolutions count as linear maps do. Perceptual losses are left out: their weights are in a file.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from mgjax.audio.codec import objective as sound
from mgjax.audio.codec import task as codec_task
from mgjax.audio.codec.model import RATE, make_codec
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Tree
from mgjax.data.settings import audio_shapes, video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.parallel.chips import GIB, parse_topology
from mgjax.parallel.rules import AXES, BATCH
from mgjax.planning.efficiency import Ends, bounds, describe_efficiency, rates_of, words
from mgjax.planning.network import axis_networks
from mgjax.planning.sampling.products import count_products
from mgjax.planning.text_encoder import weight_bytes
from mgjax.tae import task as tae_task
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.tae.tiling import Tiling
from mgjax.training.spec import Adversary, init_params

FORWARD_AND_BACKWARD = 3
DISCRIMINATOR = 8  # forward passes' worth in a step
COPIES = 5  # parameters, two moments, average, gradients; of discriminators all but the average
DAY = 86_400
CLIP = (256, 768, 768)  # frames, height, width: the longest clip of the report
LEAST = 'norms and element-wise work are not counted: no step is faster than this'
SLOW = 'products in float32 are counted at the peak of bfloat16, which they do not reach'
STORED = 2  # bytes of a number of latents: bfloat16


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """An autoencoder or a codec and one sample, in shapes.

  Attributes:
    model: the Linen module.
    inputs: arguments of its `init` after the key.
    sample: the shape of one sample, rows first.
    described: the sample in words.
    rows: of the configuration's batch.
    adversary: the discriminators, or None.
    judged: forward passes' worth of those in a step.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  sample: tuple[int, ...]
  described: str
  rows: int
  adversary: Adversary | None
  judged: int


def read_reconstruction(config: ConfigDict) -> Reconstruction:
  """Reads a configuration of an autoencoder or a codec; of its buckets the largest samples."""
  buckets = fields_of(config, 'buckets')
  if config.component == 'codec':
    model = make_codec(fields_of(config, 'model'))
    weights = sound.LossWeights.of(fields_of(config, 'objective'))
    shapes = audio_shapes(buckets)
    name = max(shapes, key=lambda each: shapes[each].seconds)
    samples = round(shapes[name].seconds * RATE)
    described = f'{shapes[name].seconds:g} s of {RATE:,} Hz'
    inputs, shape = codec_task.codec_inputs(model), (1, samples, model.channels)
    adversary = codec_task.make_adversary(codec_task.codec_settings(config.to_dict()))
    judged = DISCRIMINATOR + (1 if weights.features else 0)
  else:
    model = make_autoencoder(fields_of(config, 'model'))
    name, video = longest_bucket(video_shapes(buckets, config.data.fps))
    described = f'{video.frames} frames of {video.height} x {video.width}'
    inputs, shape = (jnp.zeros((1, *model.compression, 3)), jax.random.key(0)), (
      1, video.frames, *video.size, 3,
    )  # fmt: skip
    settings = tae_task.autoencoder_settings(config.to_dict())
    adversary, judged = tae_task.make_adversary(settings), DISCRIMINATOR
  rows = config.buckets[name].batch_size
  return Reconstruction(model, inputs, shape, described, rows, adversary, judged)


def plan_reconstruction(
  config: ConfigDict, topology: str, sizes: Mapping[str, int] | None = None, rows: int = 0
) -> dict[str, Any]:
  """Estimates a training step; activations are for the compiler alone to say.

  Args:
    config: of an autoencoder or a codec.
    topology: as 'v5p:2x2x1' or 'h200:8'.
    sizes: of the mesh; by default all devices on `fsdp`.
    rows: of a step; 0 takes the configuration's batch.

  Raises:
    ConfigError: the mesh does not fit the topology, or the rows the mesh.
  """
  place, found = parse_topology(topology), read_reconstruction(config)
  sizes = dict.fromkeys(AXES, 1) | dict(sizes or {'fsdp': place.devices})
  networks, rows = axis_networks(sizes, place), rows or found.rows
  groups = math.prod(sizes[axis] for axis in BATCH)
  if rows % groups:
    raise ConfigError(
      f'{rows} rows do not divide over the {groups} groups of slice x data x fsdp; take another '
      '--rows or --mesh'
    )
  boxes = jax.eval_shape(found.model.init, jax.random.key(0), *found.inputs)['params']
  state, forward = COPIES * weight_bytes(boxes, sizes), _forward(found, nn.unbox(boxes))
  operations = {'autoencoder': FORWARD_AND_BACKWARD * forward}
  if found.adversary is not None:
    judge = jax.eval_shape(lambda key: init_params(found.adversary, key), jax.random.key(0))
    state += (COPIES - 1) * weight_bytes(judge, sizes)
    apply = found.adversary.model.apply
    sample = jax.ShapeDtypeStruct(found.sample, jnp.float32)
    passes = count_products(lambda p, x: apply({'params': p}, x), nn.unbox(judge), sample)
    operations['discriminators'] = found.judged * passes
  count = count_parameters(nn.unbox(boxes))
  travelling = 3 * count * jnp.dtype(found.model.dtype).itemsize  # two gathers, one scatter
  wire = sum(each.gather(travelling) for axis, each in networks.items() if axis in BATCH)
  ideal = rows * sum(operations.values()) / (place.chip.flops * place.devices)
  rates = rates_of(place.chip.name)
  hidden = Ends(0.0, wire if place.chip.gathers_ahead else 0.0)
  seconds = Ends(
    *(ideal / rate.linear + wire - part
      for rate, part in ((rates.slow, hidden.slow), (rates.fast, hidden.fast)))
  )  # fmt: skip
  return {
    'topology': topology, 'devices': place.devices, 'parameters': count, 'mesh': sizes,
    'sample': found.described, 'rows': rows, 'flops_per_sample': operations,
    'state_gib': state / GIB, 'capacity_gib': place.chip.memory / GIB,
    'communication_seconds': wire, 'ideal_seconds': ideal, 'step_seconds': bounds(seconds),
    'mfu': bounds(seconds.map(lambda each: ideal / each)),
    'samples_per_second': bounds(seconds.map(lambda each: rows / each)),
    'days': bounds(seconds.map(lambda each: each * config.train.steps / DAY)),
    'steps': config.train.steps, 'assumed': _assumed(place.chip.name),
    'notes': [
      'estimated by formula; activations only with --compile', LEAST, 'LPIPS is not in it',
      *([SLOW] if jnp.dtype(found.model.dtype).itemsize > STORED else []),
    ],
  }  # fmt: skip


def describe_reconstruction(answer: Mapping[str, Any]) -> str:
  """Returns what `plan_reconstruction` found as text."""
  flops = answer['flops_per_sample']
  parts = ', '.join(f'{name} {value:.4g}' for name, value in flops.items())
  return '\n'.join(
    [
      f'model       {answer["parameters"]:,} parameters; a sample is {answer["sample"]}',
      f'work        {sum(flops.values()):.4g} FLOP a sample ({parts})',
      f'memory      {answer["state_gib"]:.3g} of {answer["capacity_gib"]:.1f} GiB a chip for the '
      'state, discriminators with it',
      f'step        {answer["rows"]} samples on {answer["devices"]} devices of '
      f'{answer["topology"]}: {_range(answer["step_seconds"])} s, '
      f'ideal {answer["ideal_seconds"]:.3g}, communication {answer["communication_seconds"]:.3g}',
      f'MFU         at most {_range(answer["mfu"], ".1%")}, nowhere measured',
      f'samples/s   {_range(answer["samples_per_second"])}',
      f'training    {answer["steps"]:,} steps in {_range(answer["days"])} days',
      *(f'            {line}' for line in answer['assumed']),
      *answer['notes'],
    ]
  )


def plan_encoding(
  config: ConfigDict, topology: str, clips: int, shape: tuple[int, int, int] = CLIP
) -> dict[str, Any]:
  """Says how long it takes to encode clips, and how many bytes their latents are.

  Every chip encodes clips of its own. Reading and decoding videos is not in it.

  Args:
    config: of an autoencoder.
    topology: as 'v5e:16x16'.
    clips: how many.
    shape: frames, height and width of one.

  Raises:
    ConfigError: there is no such topology, or the clip is not whole latents.
  """
  place, model = parse_topology(topology), make_autoencoder(fields_of(config, 'model'))
  tiling = Tiling.of(dict(config.get('tiling', {})))
  codec = LatentCodec(model, {}, Statistics.neutral(model.latent_channels), tiling)
  params = nn.unbox(
    jax.eval_shape(
      model.init, jax.random.key(0), jnp.zeros((1, *model.compression, 3)), jax.random.key(0)
    )['params']
  )
  frames, height, width = shape
  whole, rest = divmod(frames, tiling.frames)
  operations = sum(
    count * count_products(
      codec.encode_tile, params, jax.ShapeDtypeStruct((1, length, height, width, 3), jnp.uint8)
    )
    for length, count in ((tiling.frames, whole), (rest, 1))
    if length and count
  )  # fmt: skip
  latents = model.latent_shape(shape)
  ideal = clips * operations / (place.chip.flops * place.devices)
  seconds = rates_of(place.chip.name).map(lambda rates: ideal / rates.linear)
  return {
    'topology': topology, 'devices': place.devices, 'clips': clips, 'clip': list(shape),
    'latents': list(latents), 'flops_per_clip': operations,
    'bytes_per_clip': math.prod(latents) * STORED, 'bytes': clips * math.prod(latents) * STORED,
    'ideal_days': ideal / DAY, 'days': bounds(seconds.map(lambda each: each / DAY)),
    'chip_days': bounds(seconds.map(lambda each: each * place.devices / DAY)),
    'clips_per_second': bounds(seconds.map(lambda each: clips / each)),
    'pixels_per_second': bounds(seconds.map(lambda each: 3 * clips * math.prod(shape) / each)),
    'assumed': _assumed(place.chip.name),
    'notes': ['estimated by formula; reading and decoding of videos is not in it', LEAST],
  }  # fmt: skip


def describe_encoding(answer: Mapping[str, Any]) -> str:
  """Returns what `plan_encoding` found as text."""
  frames, height, width = answer['clip']
  rate = _range({end: value / 1e9 for end, value in answer['pixels_per_second'].items()})
  return '\n'.join(
    [
      f'clips       {answer["clips"]:,} of {frames} frames of {height} x {width}, '
      f'{answer["flops_per_clip"]:.4g} FLOP each',
      f'latents     {" x ".join(map(str, answer["latents"]))}, '
      f'{answer["bytes_per_clip"] / 1e6:.3g} MB each in bfloat16, '
      f'{answer["bytes"] / 1e12:,.4g} TB in all',
      f'time        {_range(answer["days"])} days on {answer["devices"]} devices of '
      f'{answer["topology"]}, {_range(answer["chip_days"], ",.0f")} chip days',
      f'rate        {_range(answer["clips_per_second"])} clips a second, which want {rate} GB/s of '
      'pixels',
      *(f'            {line}' for line in answer['assumed']),
      *answer['notes'],
    ]
  )


def _forward(found: Reconstruction, params: Tree) -> int:
  """Counts the operations of encoder and decoder, of one sample."""
  sample = jax.ShapeDtypeStruct(found.sample, jnp.float32)

  def encode(params: Tree, x: Any) -> Any:
    return found.model.apply({'params': params}, x, method='encode').mean

  def decode(params: Tree, latents: Any) -> Any:
    return found.model.apply({'params': params}, latents, found.sample[1], method='decode')

  latents = jax.eval_shape(encode, params, sample)
  return count_products(encode, params, sample) + count_products(decode, params, latents)


def _assumed(chip: str) -> list[str]:
  linear, *_ = describe_efficiency(chip)
  return [f'{linear}; convolutions are assumed to be like them']


def _range(values: Mapping[str, float], form: str = '.3g') -> str:
  return words(Ends(values['low'], values['high']), form)
