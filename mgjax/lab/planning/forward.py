"""Plans models that are no flow models, autoencoders, codecs and encoders, by their forward passes.

Operations are those of the traced passes: of a training step three times encoding and decoding, of
a frozen encoder one pass. Convolutions count as linear maps do; norms and element-wise work,
discriminators and perceptual losses do not count, so that no step is faster.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Positive, checked, fields_of
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Key, Tree
from mgjax.data.shape import longest_bucket
from mgjax.lab.planning.efficiency import bounds, describe_efficiency, rates_of, spread
from mgjax.lab.planning.memory import weight_bytes
from mgjax.lab.planning.network import axis_networks
from mgjax.lab.planning.report import table
from mgjax.lab.planning.search import FREE, mesh_flag
from mgjax.models.codec.model import CODEC_RATE
from mgjax.models.flow_model.flops import FORWARD_AND_BACKWARD
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.wan import WanAutoencoder, decode, encode
from mgjax.parallel.chips import GIB, parse_topology
from mgjax.parallel.rules import AXES, BATCH
from mgjax.registry import check_family, find_component
from mgjax.sections.autoencoder.section import AutoencoderSection
from mgjax.sections.codec.section import CodecSection
from mgjax.training.spec import Outline

ENCODE = 'encode'
DECODE = 'decode'
COPIES = 5  # parameters, two moments, average, gradients
Shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Forward:
  """A model and its forward passes over a batch, in shapes.

  Attributes:
    component: its name in `mgjax.registry`.
    init: key -> parameters in the boxes that name their axes.
    passes: name -> `function(params, *inputs)` and the shapes of its inputs, rows first.
    sizes: of the batch, rows first, as people name them.
    unit: what rates count beside rows, as 'frames', and how many of it the batch has.
    stored_dtype: type of the weights as they are stored.
  """

  component: str
  model: nn.Module
  init: Callable[[Key], Tree]
  passes: Mapping[str, tuple[Callable[..., Array], tuple[Shape, ...]]]
  rows: int
  sizes: tuple[int, ...]
  unit: tuple[str, int]
  stored_dtype: jnp.dtype = jnp.float32
  trained: bool = True

  def flops(self) -> dict[str, int]:
    """Counts the operations of every pass over the batch; no mesh may be ambient."""
    params = nn.unbox(jax.eval_shape(self.init, jax.random.key(0)))
    return {
      name: count_products(run, params, *inputs) for name, (run, inputs) in self.passes.items()
    }


def read_forward(
  config: ConfigDict, rows: int = 0, video: tuple[int, ...] | None = None
) -> Forward:
  """Reads a configuration of an autoencoder, a codec or an encoder; 0 rows are those configured.

  `video`, (b t h w), is an autoencoder's batch; by default of the bucket with the most frames.
  Raises ConfigError for a configuration of something else, or sizes that do not divide.
  """
  family = find_component(config.component).family
  if family not in _READERS:
    raise ConfigError(
      f'{config.component!r} is a {family}; expected a configuration of one of the families '
      f'{", ".join(_READERS)}'
    )
  if family == 'autoencoder':
    return _read_autoencoder(config, rows, video)
  return _READERS[family](config, rows)


def make_encoder(config: ConfigDict, rows: int = 0) -> tuple[nn.Module, tuple[Shape, ...]]:
  """Makes the encoder of a configuration, and the shapes of tokens and mask (b m), or images."""
  check_family(config.component, 'encoder')
  model = find_component(config.component).weights.get().make(fields_of(config, 'model'))
  rows = rows or checked(Positive, config.rows, 'rows')
  if 'length' in config:
    shape = (rows, checked(Positive, config.length, 'length'))
    return model, (Shape(shape, jnp.int32), Shape(shape, jnp.bool_))
  return model, (Shape((rows, model.size, model.size, 3), jnp.float32),)


def plan_forward(
  forward: Forward, topology: str, sizes: Mapping[str, int] | None = None
) -> dict[str, Any]:
  """Estimates a model's memory and the time of a training step or, for an encoder, of a pass.

  By default all devices are on `fsdp`. Returns plain JSON values; `gib` is the size of the state on
  one chip alone and sharded over all. Raises ConfigError if sizes do not divide.
  """
  cluster = parse_topology(topology)
  alone = dict.fromkeys(AXES, 1)
  mesh = alone | dict(sizes or {'fsdp': cluster.devices})
  axis_networks(mesh, cluster)
  groups = math.prod(mesh[axis] for axis in BATCH)
  if forward.rows % groups:
    raise ConfigError(
      f'{forward.rows} rows do not divide over the {groups} groups of slice x data x fsdp; take '
      'another --rows or --mesh'
    )
  boxes = jax.eval_shape(forward.init, jax.random.key(0))
  count = count_parameters(nn.unbox(boxes))
  boxes = jax.tree.map(lambda leaf: Shape(leaf.shape, forward.stored_dtype), boxes)
  copies, passes = (COPIES, FORWARD_AND_BACKWARD) if forward.trained else (1, 1)
  gib = {
    name: copies * weight_bytes(boxes, axis_sizes) / GIB
    for name, axis_sizes in (('one chip', alone), (f'{cluster.devices} chips', mesh))
  }
  flops = forward.flops()
  ideal = passes * sum(flops.values()) / (cluster.chip.flops * cluster.devices)
  seconds = rates_of(cluster.chip.name).map(lambda rates: ideal / rates.linear)
  memory = cluster.chip.memory / GIB
  linear, *_ = describe_efficiency(cluster.chip.name)
  return {
    'topology': cluster.name,
    'devices': cluster.devices,
    'mesh': mesh,
    'parameters': count,
    'sizes': list(forward.sizes),
    'rows': forward.rows,
    'flops_of_a_row': {name: operations / forward.rows for name, operations in flops.items()},
    'passes': passes,
    'gib': gib,
    'fits': {name: size <= (1 - FREE) * memory for name, size in gib.items()},
    'gib_of_a_chip': memory,
    'ideal_seconds': ideal,
    'seconds': bounds(seconds),
    'rows_per_second': bounds(seconds.map(lambda time: forward.rows / time)),
    'notes': [
      'estimated by formula; activations, norms, element-wise work and communication are not in '
      'it: nothing is faster than this',
      *(['discriminators and perceptual losses are not counted'] if forward.trained else []),
      f'{linear}; convolutions are assumed to be like them',
    ],
  }


def describe_forward(answer: Fields) -> str:
  """Returns what `plan_forward` found as text."""
  flops = answer['flops_of_a_row']
  parts = ', '.join(f'{name} {value:.4g}' for name, value in flops.items())
  what = 'a training step' if answer['passes'] > 1 else 'a pass'
  rows = [
    (name, f'{value:.2f}', 'fits' if answer['fits'][name] else 'does not fit')
    for name, value in answer['gib'].items()
  ]
  return '\n'.join(
    [
      f'model       {answer["parameters"]:,} parameters; a batch is '
      f'{" x ".join(map(str, answer["sizes"]))}',
      f'work        FLOP of a row: {parts}'
      + ('; a training step is three times both' if answer['passes'] > 1 else ''),
      f'{"state" if answer["passes"] > 1 else "weights":11} GiB a chip, of '
      f'{answer["gib_of_a_chip"]:.0f}:',
      *table(rows),
      f'on          {answer["topology"]}, {mesh_flag(answer["mesh"])}: {what} of {answer["rows"]} '
      f'rows takes {spread(answer["seconds"])} s, {answer["ideal_seconds"]:.3g} at the peak',
      f'rate        {spread(answer["rows_per_second"])} rows a second',
      *answer['notes'],
    ]
  )


def count_products(function: Callable[..., object], *arguments: Tree) -> int:
  """Counts the operations of a function's convolutions and matrix products; a multiply-add is two.

    2 |y| |k| / o    of a convolution with kernel k of o output channels and result y
    2 |y| m          of a product that sums over m numbers

  Loops count as often as they run, but `while`, of which nobody knows, once; of branches the
  largest counts. It is traced outside of `jax.set_mesh`, or its pieces would be counted.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    params = equation.params
    shapes = [variable.aval.shape for variable in equation.invars]
    results = sum(math.prod(variable.aval.shape) for variable in equation.outvars)
    match equation.primitive.name:
      case 'conv_general_dilated':
        outputs = shapes[1][params['dimension_numbers'].rhs_spec[0]]
        total += 2 * results * math.prod(shapes[1]) // outputs
      case 'dot_general':
        (summed, _), _ = params['dimension_numbers']
        total += 2 * results * math.prod(shapes[0][axis] for axis in summed)
      case 'cond':
        total += max(_count(branch.jaxpr) for branch in params['branches'])
      case _:
        inner = sum(map(_count, jax.extend.core.jaxprs_in_params(params)))
        total += params.get('length', 1) * inner
  return total


def _read_autoencoder(
  config: ConfigDict, rows: int, video: tuple[int, ...] | None = None
) -> Forward:
  if 'data' not in config:  # nothing trains it
    return _read_wan(config, video)
  section = AutoencoderSection(config)
  settings = section.settings
  if video is None:
    name, shape = longest_bucket(settings.shapes)
    video = (rows or settings.buckets[name].batch_size, shape.frames, *shape.size)
  return _coder(config.component, section.outline(), (*video, 3), ('frames', video[0] * video[1]))


def _read_wan(config: ConfigDict, video: tuple[int, ...] | None) -> Forward:
  if video is None:
    raise ConfigError(
      'nothing trains this autoencoder, and it has no clips; time it by launch.bench --what=decode '
      '--video=1,81,480,832, or plan it by launch.plan --what=sample --frames=81 --size=480,832'
    )
  model = make_autoencoder(fields_of(config, 'model'))
  assert isinstance(model, WanAutoencoder)
  time, height, width = model.compression

  def init(key: Key) -> Tree:
    return model.init(key, jnp.zeros((1, 1 + time, height, width, 3)))['params']

  passes = {
    ENCODE: (lambda params, x: encode(model, params, x), (Shape((*video, 3), jnp.float32),)),
    DECODE: (
      lambda params, latents: decode(model, params, latents),
      (Shape((video[0], *model.latent_shape(video[1:])), jnp.float32),),
    ),
  }
  unit = 'frames', video[0] * video[1]
  return Forward(config.component, model, init, passes, video[0], video, unit, trained=False)


def _read_codec(config: ConfigDict, rows: int) -> Forward:
  section = CodecSection(config)
  settings = section.settings
  model, shapes = settings.model, settings.shapes
  name = max(shapes, key=lambda bucket: shapes[bucket].seconds)
  rows = rows or settings.buckets[name].batch_size
  samples = round(shapes[name].seconds * CODEC_RATE)
  shape = (rows, samples, model.channels)
  latents = rows * math.ceil(samples / model.compression)
  return _coder(config.component, section.outline(), shape, ('latents', latents))


def _coder(
  component: str, outline: Outline, shape: tuple[int, ...], unit: tuple[str, int]
) -> Forward:
  """Returns the passes of what encodes samples (rows first, channels last) and decodes them."""
  model = outline.model

  def init(key: Key) -> Tree:
    return model.init(key, *outline.inputs)['params']

  def encode(params: Tree, x: Array) -> Array:
    return model.apply({'params': params}, x, method='encode').mean

  def decode(params: Tree, latents: Array) -> Array:
    return model.apply({'params': params}, latents, shape[1], method='decode')

  x = Shape(shape, jnp.float32)
  params = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
  latents = Shape(jax.eval_shape(encode, params, x).shape, jnp.float32)
  passes = {ENCODE: (encode, (x,)), DECODE: (decode, (latents,))}
  return Forward(component, model, init, passes, shape[0], shape[:-1], unit)


def _read_encoder(config: ConfigDict, rows: int) -> Forward:
  model, shapes = make_encoder(config, rows)

  def init(key: Key) -> Tree:
    return model.init(key, *(jnp.ones(shape.shape, shape.dtype) for shape in shapes))['params']

  def encode(params: Tree, *inputs: Array) -> Array:
    output = model.apply({'params': params}, *inputs)
    # The states; a row's vector costs none.
    return output[0] if isinstance(output, tuple) else output

  rows, length = shapes[0].shape[:2]
  if len(shapes) == 1:  # a token of the whole image, and its patches
    length = 1 + (length // model.patch) ** 2
  # Large encoders are published in the compute type.
  stored_dtype = model.dtype if config.keep_type else jnp.float32
  return Forward(
    component=config.component,
    model=model,
    init=init,
    passes={ENCODE: (encode, shapes)},
    rows=rows,
    sizes=(rows, length),
    unit=('tokens', rows * length),
    stored_dtype=stored_dtype,
    trained=False,
  )


_READERS = {'autoencoder': _read_autoencoder, 'codec': _read_codec, 'encoder': _read_encoder}
