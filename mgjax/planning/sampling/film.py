"""A film that an upsampler makes, in numbers: calls, operations, memory (Movie Gen §3.1.5)."""

import dataclasses
import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from mgjax.checkpoints.workdir import read_config
from mgjax.conditioning.low_resolution import KEY
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive, check, fields_of, unpack
from mgjax.core.typing import Tree
from mgjax.data.settings import video_shapes
from mgjax.data.sources import longest_bucket
from mgjax.flow.guidance import Guidance, make_guided
from mgjax.flow.multidiffusion import fill_devices
from mgjax.flow.schedules import make_time_grid
from mgjax.flow.streaming import stream_windows
from mgjax.flow.windows import Cover, windows
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.conditions import context_lengths, small_inputs
from mgjax.flow_models.flops import MATRICES, Flops, backbone_flops
from mgjax.flow_models.model import FlowModel
from mgjax.flow_models.settings import SampleSettings
from mgjax.flow_models.shape import check_shape
from mgjax.nn.patch import grid
from mgjax.parallel.chips import Topology
from mgjax.parallel.rules import AXES, BATCH
from mgjax.parallel.torus import assign_axes
from mgjax.planning.efficiency import Ends, rates_of
from mgjax.planning.sampling.products import count_products
from mgjax.planning.search import FREE
from mgjax.planning.text_encoder import weight_bytes
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.tae.tiling import Tiling
from mgjax.upsampler.geometry import CHUNK, Windows, frame_covers

WEIGHTS = jnp.bfloat16  # what the model's are planned in
FLOAT32 = 4
FRAMES, SIZE = 256, (1080, 1920)  # of the report's videos


@dataclasses.dataclass(frozen=True)
class Film:
  """A video that is to be made.

  Attributes:
    frames: how many.
    height: in pixels.
    width: in pixels.
    rows: of a call of the model; 0 is one for every group of chips that shares a row.
  """

  frames: Positive = FRAMES
  height: Positive = SIZE[0]
  width: Positive = SIZE[1]
  rows: Count = 0

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True)
class Work:
  """What makes a film of an upsampler's configuration, in objects and numbers.

  Attributes:
    film: what is made.
    model: the flow model.
    boxes: the shapes of its weights, which name their axes.
    codec: the image autoencoder, without weights.
    sample: the solver's settings.
    crop: frames, height and width of a window.
    overlap: frames that windows share.
    covers: of rows and columns of a frame, in latents.
    flops: of the model, for one window and tile.
    context: tokens of text.
    branches: rows of the model that guidance makes of one.
    fps: frames a second.
    notes: what the configuration leaves open.
  """

  film: Film
  model: FlowModel
  boxes: Tree
  codec: LatentCodec
  sample: SampleSettings
  crop: tuple[int, int, int]
  overlap: int
  covers: tuple[Cover, Cover]
  flops: Flops
  context: int
  branches: int
  fps: float
  notes: tuple[str, ...]

  @property
  def times(self) -> Cover:
    """The windows of frames."""
    return windows(self.film.frames, self.crop[0], self.overlap)

  @property
  def tile(self) -> tuple[int, int, int, int]:
    """The shape (t h w c) of what the model sees at once."""
    rows, columns = self.covers
    return self.times.size, rows.size, columns.size, self.codec.model.latent_channels

  @property
  def window(self) -> tuple[int, int, int, int]:
    """The shape (t h w c) of the latents of whole frames of a window."""
    rows, columns = self.covers
    return self.times.size, rows.length, columns.length, self.codec.model.latent_channels

  @property
  def tiles(self) -> int:
    """How many tiles a frame has."""
    rows, columns = self.covers
    return len(rows.starts) * len(columns.starts)

  @property
  def tokens(self) -> int:
    """n, of a window and tile."""
    return math.prod(grid((1, *self.tile), self.model.backbone.patch))


@dataclasses.dataclass(frozen=True)
class Calls:
  """How often the program of a window's velocity runs.

  Attributes:
    programs: runs of it.
    windows: that one run has, those that only fill it included.
    tiles: of each window, that the model sees at once; the rest follow in a loop.
    needed: pairs of window and evaluation that the film takes.
    held: frames that are under way at the most, on the host.
  """

  programs: int
  windows: int
  tiles: int
  needed: int
  held: int


def make_work(config: ConfigDict, film: Film) -> Work:
  """Reads a configuration of an upsampler; arrays are only ever shapes here.

  Raises:
    ConfigError: the film is none that can be made, or a setting is out of its range.
  """
  model = make_flow_model(fields_of(config, 'model'))
  codec, notes = _make_codec(config.autoencoder)
  _, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  crop = (shape.frames, *shape.size)
  check_shape(model.backbone, codec.model, crop)
  shared = unpack(Windows, fields_of(config, 'windows'), 'windows')
  patch, channels = model.backbone.patch, codec.model.latent_channels
  covers = frame_covers(
    (film.height, film.width),
    crop[1:],
    feather=shared.feather,
    compression=codec.model.compression,
    patch=patch,
  )
  inputs = small_inputs(model, channels)
  boxes = jax.eval_shape(lambda key: model.init(key, *inputs)['params'], jax.random.key(0))
  boxes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, WEIGHTS), boxes)
  context, gated = context_lengths(model, inputs[2], (*patch, channels))
  sample = unpack(SampleSettings, fields_of(config, 'sample'), 'sample')
  frames = windows(film.frames, crop[0], shared.overlap).size
  latents = (1, frames, covers[0].size, covers[1].size, channels)
  return Work(
    film=film,
    model=model,
    boxes=boxes,
    codec=codec,
    sample=sample,
    crop=crop,
    overlap=shared.overlap,
    covers=covers,
    flops=backbone_flops(model.backbone, latents, context, gated),
    context=context,
    branches=count_branches(sample.guidance),
    fps=config.data.fps,
    notes=tuple(notes),
  )


def count_branches(guidance: Guidance) -> int:
  """Counts the rows of the model that guidance makes of one, with scales of an interval in it."""
  seen = []

  def predict(x, *_):
    seen.append(len(x))
    return x

  scales = tuple((name, s[0] if isinstance(s, tuple) else s) for name, s in guidance)
  make_guided(predict, {}, scales)(jnp.zeros((1, 1)), jnp.zeros(1))
  return seen[0]


def count_calls(work: Work, sizes: Mapping[str, int]) -> Calls:
  """Counts what the wave front over the windows does, by sending an empty one down the film.

  Args:
    work: what is made.
    sizes: of the mesh.
  """
  groups = math.prod(sizes[axis] for axis in BATCH)
  rows = work.film.rows or groups
  programs = begun = done = held = 0

  def velocity(batch, x, time):
    nonlocal programs, held
    programs, held = programs + 1, max(held, begun - done)
    return np.zeros_like(x)

  def noise(start, stop):
    nonlocal begun
    begun = stop
    return np.zeros((stop - start, 1))

  # Places and their type do not matter, the number of devices does: it fills up rows.
  with jax.sharding.use_abstract_mesh(AbstractMesh(tuple(sizes.values()), tuple(sizes))):
    together = fill_devices(min(max(1, rows // work.tiles), len(work.times.starts)))
    tiles = fill_devices(min(max(1, rows // together), work.tiles), together)
    made = stream_windows(
      velocity,
      [{KEY: np.zeros((work.film.frames, 1), np.int8)}],
      size=work.crop[0],
      overlap=work.overlap,
      times=make_time_grid(steps=work.sample.steps, **work.sample.schedule),
      noise=noise,
      solver=work.sample.solver,
      rows=max(1, rows // work.tiles),
    )
    for part in made:
      done += len(part)
  stages = work.sample.steps * (2 if work.sample.solver == 'midpoint' else 1)
  needed = len(work.times.starts) * stages
  return Calls(programs, together, tiles, needed, held)


def memory(work: Work, calls: Calls, sizes: Mapping[str, int]) -> dict[str, int]:
  """Returns category -> bytes on one chip while the model runs; their sum is the peak.

    weights              in bfloat16, in pieces over fsdp, context and tensor
    weights of a layer   gathered where they lie in pieces: the largest matrix and the next one
    activations          positions, and the larger of attention and FFN, of width d or f:
                         input, norm, q, k, v, result (and those again where heads are exchanged);
                         input, norm and the FFN's 2 or 3 arrays
    windows              latents, their condition and the summed velocities, float32, whole frames

  Args:
    work: what is made.
    calls: from `count_calls`.
    sizes: of the mesh.
  """
  backbone = work.model.backbone
  groups = math.prod(sizes[axis] for axis in BATCH)
  pieces = sizes['context'] * sizes['tensor']
  itemsize = jnp.dtype(backbone.dtype).itemsize
  rows = calls.windows * calls.tiles * work.branches // groups
  tokens = rows * math.ceil(work.tokens / pieces)
  traded = 4 if sizes['context'] > 1 else 0
  widest = max(
    (6 + traded) * backbone.dim,
    2 * backbone.dim + MATRICES[backbone.feed_forward] * backbone.mlp_dim,
  )
  positions = math.ceil(work.tokens / pieces) * backbone.dim * (itemsize + FLOAT32)
  itemsize_of_weights = jnp.dtype(WEIGHTS).itemsize
  matrix = backbone.dim * max(backbone.dim, backbone.mlp_dim)
  cut = sizes['context'] * sizes['fsdp'] > 1
  return {
    'weights': weight_bytes(work.boxes, sizes),
    'weights of a layer': 2 * matrix * itemsize_of_weights // sizes['tensor'] if cut else 0,
    'activations': positions + tokens * widest * itemsize,
    'windows': 3 * math.ceil(calls.windows / groups) * math.prod(work.window) * FLOAT32,
  }


def decode_bytes(work: Work) -> int:
  """Returns the bytes of decoding a few frames, beside the model's weights.

  At full resolution the first residual block reads as many channels as the level below has, and
  writes its own: input, its norm, and two arrays of its own width.
  """
  model = work.codec.model
  _, rows, columns, _ = work.window
  height, width = (n * s for n, s in zip((rows, columns), model.compression[1:], strict=True))
  most = work.codec.tiling.size or max(height, width)
  pixels = CHUNK * min(height, most) * min(width, most) // math.prod(model.patch)
  finest, coarser = model.widths[0], (*model.widths, model.widths[-1])[1]
  return pixels * 2 * (finest + coarser) * jnp.dtype(model.dtype).itemsize


def codec_flops(work: Work) -> tuple[int, int]:
  """Counts the operations of encoding and of decoding the film, from the traced programs."""
  encode, decode = _chunk_flops(work.codec.model, work.codec.tiling, work.window[1:3])
  chunks = math.ceil(work.film.frames / CHUNK)
  return chunks * encode, chunks * decode


@functools.lru_cache(maxsize=64)  # tracing takes seconds
def _chunk_flops(model: Autoencoder, tiling: Tiling, places: tuple[int, int]) -> tuple[int, int]:
  size = tuple(n * step for n, step in zip(places, model.compression[1:], strict=True))
  codec, params = _codec_of(model, tiling), codec_params(model)
  video = jax.ShapeDtypeStruct((1, CHUNK, *size, 3), jnp.uint8)
  latents = jax.ShapeDtypeStruct((1, CHUNK, *places, model.latent_channels), jnp.float32)
  encode = count_products(codec.encode_tile, params, video)
  return encode, count_products(codec.decode_tile, params, latents)


def codec_params(model: Autoencoder) -> Tree:
  """Returns the shapes of an autoencoder's weights."""
  inputs = (jax.ShapeDtypeStruct((1, *model.compression, 3), jnp.float32), jax.random.key(0))
  return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)['params'])


def seconds_of(work: Work, topology: Topology, evaluations: int) -> Ends[float]:
  """Returns the seconds of evaluations of the model at both ends of the chips' efficiencies."""
  kernels, chip = work.flops.self_attention + work.flops.cross_attention, topology.chip
  return rates_of(chip.name).map(
    lambda rates: (
      evaluations
      * (work.flops.linear / rates.linear + rates.attention(kernels))
      / (chip.flops * topology.devices)
    )
  )


def choose_mesh(work: Work, topology: Topology) -> dict[str, int]:
  """Returns windows over `data` and, where that does not fit a chip, tokens over `context`."""
  sizes = dict.fromkeys(AXES, 1)
  for context in range(1, topology.devices + 1):
    if topology.devices % context:
      continue
    found = sizes | {'data': topology.devices // context, 'context': context}
    try:
      if topology.torus:
        assign_axes(found, topology.torus)
    except ConfigError:
      continue
    peak = sum(memory(work, count_calls(work, found), found).values())
    if peak <= (1 - FREE) * topology.chip.memory:
      return found
  return sizes | {'context': topology.devices}


def _make_codec(workdir: str) -> tuple[LatentCodec, list[str]]:
  """Returns the image autoencoder of a work directory, or the report's, and what to say of it."""
  notes = []
  try:
    config = read_config(workdir)
    model = make_autoencoder(fields_of(config, 'model'))
    tiling = Tiling.of(dict(config.get('tiling', {})))
  except ConfigError:
    model = Autoencoder(temporal=False, strides=((1, 2, 2),) * 3, dtype=jnp.bfloat16)
    tiling = Tiling(frames=CHUNK, overlap=0)
    notes.append(
      f'no autoencoder at {workdir!r}: taken is the one of configs/upsampler/image_autoencoder.py'
    )
  return _codec_of(model, tiling), notes


def _codec_of(model: Autoencoder, tiling: Tiling) -> LatentCodec:
  return LatentCodec(model, {}, Statistics.neutral(model.latent_channels), tiling)
