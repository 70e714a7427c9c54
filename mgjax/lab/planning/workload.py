"""The workload of a training step: sizes, parameters and operations of a model and its samples."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.models.flow_model.conditions import context_lengths, small_inputs
from mgjax.models.flow_model.flops import Flops, backbone_flops
from mgjax.nn import lora
from mgjax.nn.patch import grid
from mgjax.nn.quantize import stored_shapes
from mgjax.parallel.rules import AXES, Entry, parameter_entries
from mgjax.parallel.shard import named_boxes
from mgjax.training.optimizers.muon import is_matrix
from mgjax.training.optimizers.rates import describe_rates, factor_of
from mgjax.training.spec import Outline

BACKBONE = 'backbone/'
LAYERS = BACKBONE + 'layers/'
READ = LAYERS + 'cross_attention/key/', LAYERS + 'cross_attention/value/'
TIME = BACKBONE + 'time/'


@dataclasses.dataclass(frozen=True)
class Parameter:
  """One array of parameters: its name, logical axes and shape, and whether it trains.

  What adapters change has no average, and `itemsize` bytes a number; what Muon trains one moment.
  """

  name: str
  axes: tuple[str, ...]
  shape: tuple[int, ...]
  trained: bool = True
  averaged: bool = True
  itemsize: int = 4
  moments: int = 2

  @property
  def size(self) -> int:
    """How many numbers it has."""
    return math.prod(self.shape)

  @property
  def depth(self) -> int:
    """Layers of the scan that it is cut into; 0 where it belongs to none."""
    return self.shape[0] if self.name.startswith(LAYERS) else 0

  @property
  def stays(self) -> bool:
    """Whether it multiplies a vector a row, which travels in its place (`stationary.py`)."""
    return self.name.startswith(TIME)

  @property
  def read_once(self) -> bool:
    """Whether all passes of a sample share what it makes: conditions, their keys and values."""
    return not self.name.startswith(BACKBONE) or self.name.startswith(READ)


@dataclasses.dataclass(frozen=True)
class Workload:
  """A flow model and the samples that it is trained on, in numbers.

  Attributes:
    shape: frames, height and width of a sample; of a sound its latents, 1 and 1.
    latents: (t h w c) of a sample.
    tokens: n, of a sample.
    context: m, tokens that cross-attention reads.
    affine: whether norms have weights.
    products: of `nn.linear.PRODUCTS`, how the large maps multiply.
    itemsize: bytes of a number in the compute type.
    stream_itemsize: bytes of a number of the sums that layers add to.
    flops: of one sample's forward pass.
    clips: as of `Outline`.
    mesh, remat, attention, exchange, batch: those of the configuration.
    notes: what the configuration leaves open, or is not counted.
  """

  bucket: str
  shape: tuple[int, int, int]
  latents: tuple[int, int, int, int]
  tokens: int
  context: int
  dim: int
  mlp_dim: int
  feed_forward: str
  affine: bool
  depth: int
  heads: int
  itemsize: int
  stream_itemsize: int
  parameters: tuple[Parameter, ...]
  flops: Flops
  mesh: Mapping[str, int]
  remat: str
  attention: str
  exchange: str
  batch: int
  notes: tuple[str, ...] = ()
  clips: int = 1
  products: str = 'dtype'

  @property
  def is_video(self) -> bool:
    """Whether the samples are videos; a sound is a video of one pixel."""
    return self.shape[1:] != (1, 1)

  @property
  def count(self) -> int:
    """How many numbers the model has."""
    return sum(parameter.size for parameter in self.parameters)


def make_workload(
  run: FlowRun, bucket: str = '', latents: tuple[int, int, int, int] | None = None
) -> Workload:
  """Counts what a run takes; arrays are only ever shapes here.

  Latents (t h w c) are those given, else of the bucket in the configuration's autoencoder, without
  one in the paper's, 8 x 8 x 8 with 16 channels (configs/tae/tae.py). The bucket '' is the one
  with the most tokens. Raises ConfigError where there is no such bucket.
  """
  outline = run.outline
  sample = _read_sample(outline, bucket, latents)
  backbone = outline.model.backbone
  return Workload(
    bucket=sample.bucket,
    shape=sample.shape,
    latents=sample.latents,
    tokens=sample.tokens,
    context=sample.context,
    dim=backbone.dim,
    mlp_dim=backbone.mlp_dim,
    feed_forward=backbone.feed_forward,
    affine=backbone.affine,
    products=backbone.products,
    depth=backbone.depth,
    heads=backbone.heads,
    itemsize=jnp.dtype(backbone.dtype).itemsize,
    stream_itemsize=jnp.dtype(backbone.stream_dtype).itemsize,
    parameters=_parameters(run, sample),
    flops=sample.flops.times(outline.clips),
    mesh=run.mesh,
    remat=backbone.remat,
    attention=backbone.attention,
    exchange=backbone.exchange,
    batch=run.buckets[sample.bucket].batch_size,
    notes=tuple(outline.notes),
    clips=outline.clips,
  )


def count_flops(run: FlowRun) -> tuple[Flops, int]:
  """Returns the operations of the longest sample's forward pass, and its tokens.

  Parameters are not asked for, so it is many times faster than `make_workload`.
  """
  sample = _read_sample(run.outline)
  return sample.flops, sample.tokens


class _Sample(NamedTuple):
  """What a configuration says of a sample, without the shapes of parameters."""

  bucket: str
  shape: tuple[int, int, int]
  latents: tuple[int, int, int, int]
  tokens: int
  batch: JSON
  context: int
  flops: Flops


def _read_sample(
  outline: Outline, bucket: str = '', latents: tuple[int, int, int, int] | None = None
) -> _Sample:
  model = outline.model
  samples = (outline.samples or dict)()
  if not samples:
    raise ConfigError(
      'the outline of this section has no sizes of samples, by which plans are made; give them as '
      '`Outline.samples` in its section.py'
    )

  def count(latents: tuple[int, ...]) -> int:
    return math.prod(grid((1, *latents), model.backbone.patch))

  bucket = bucket or max(samples, key=lambda name: count(samples[name][1]))
  if bucket not in samples:
    raise ConfigError(f'there is no bucket {bucket!r}; take one of {", ".join(samples)}')
  shape = samples[bucket][0]
  latents = latents or samples[bucket][1]
  tokens = count(latents)
  batch = small_inputs(model, latents[-1])[2]
  context, gated = context_lengths(model, batch, (*model.backbone.patch, latents[-1]))
  flops = backbone_flops(model.backbone, (1, *latents), context, gated)
  return _Sample(bucket, shape, latents, tokens, batch, context, flops)


def _parameters(run: FlowRun, sample: _Sample) -> tuple[Parameter, ...]:
  model = run.outline.model
  adapters = run.lora
  rates = run.optimizer.rates
  muon = run.optimizer.name == 'muon'
  first = jnp.zeros((1, *model.backbone.patch, sample.latents[-1]))
  example = (first, jnp.zeros(1), sample.batch, {})
  boxed = jax.eval_shape(lambda key: model.init(key, *example)['params'], jax.random.key(0))
  if not adapters.rank:
    describe_rates(rates, nn.unbox(boxed))

    def read(name: str, box) -> Parameter:
      moments = 1 if muon and is_matrix(name, box.value.ndim) else 2
      trained = factor_of(name, rates) > 0
      return Parameter(name, box.names, box.value.shape, trained, moments=moments)

    return tuple(read(name, box) for name, box in named_boxes(boxed).items())
  frozen = {'trained': False, 'averaged': False}
  base = named_boxes(stored_shapes(boxed, adapters.weights))
  small = named_boxes(jax.eval_shape(lambda: lora.init(jax.random.key(0), adapters, boxed)))
  return (
    *(
      Parameter(name, box.names, box.value.shape, itemsize=box.value.dtype.itemsize, **frozen)
      for name, box in base.items()
    ),
    *(Parameter(name, box.names, box.value.shape) for name, box in small.items()),
  )


def make_sizes(mesh: Mapping[str, int]) -> dict[str, int]:
  """Completes mesh sizes with ones, in the order of the axes; ConfigError: an axis is unknown."""
  if unknown := sorted(set(mesh) - set(AXES)):
    raise ConfigError(f'unknown mesh axes {unknown}; expected some of {", ".join(AXES)}')
  return {axis: mesh.get(axis, 1) for axis in AXES}


@functools.lru_cache(maxsize=4096)
def sharding_axes(parameters: tuple[Parameter, ...], sizes: tuple[int, ...]) -> tuple[Entry, ...]:
  """Returns the mesh axes, slowest first, that shard each parameter (`parallel/rules.py`)."""
  mesh = jax.sharding.AbstractMesh(sizes, AXES)
  entries = (parameter_entries(parameter.axes, parameter.shape, mesh) for parameter in parameters)
  return tuple(tuple(axis for entry in entry_of for axis in entry) for entry_of in entries)
