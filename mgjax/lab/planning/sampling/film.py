"""Plans a film that an upsampler makes: calls, operations, memory, seconds (Movie Gen §3.1.5).

A call is a forward pass of some tiles of some windows (`sampling/latency.py`); windows of time and
tiles of space are those of `mgjax.sections.upsampler.pipeline`. Windows run down the film as a wave
front: at its two ends some rows of a program only fill it, which is not counted.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive, fields_of
from mgjax.data.shape import longest_bucket
from mgjax.flow.windows import Cover, windows
from mgjax.lab.planning.efficiency import Ends, bounds, describe_efficiency, rates_of, spread
from mgjax.lab.planning.forward import count_products
from mgjax.lab.planning.memory import FLOAT32
from mgjax.lab.planning.roofline import BY_FORMULA
from mgjax.lab.planning.sampling.latency import Sampling, SamplingRequest, sample_on
from mgjax.lab.planning.sampling.passes import HALF, count_branches
from mgjax.lab.planning.search import FREE, mesh_flag
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import Workload, make_sizes, make_workload
from mgjax.models.flow_model.settings import SampleSettings
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics
from mgjax.models.tae.tiling import Tiling
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.rules import AXES, BATCH
from mgjax.sections.upsampler.geometry import CHUNK, frame_covers
from mgjax.sections.upsampler.section import UpsamplerSection
from mgjax.training.checkpoints.workdir import read_config

# of the report's videos
FRAMES = 256
SIZE = (1080, 1920)
ASSUMED = 'convolutions as linear maps, and the autoencoder on one chip (assumed)'


@dataclasses.dataclass(frozen=True)
class Film:
  """A video that is to be made, and what makes it; codecs have no weights here.

  Attributes:
    rows: tiles in a call; 0 is one for every group of chips that shares a row.
    work: the model and one tile of a window.
    overlap: frames that windows share.
    covers: of rows and columns of a frame, in latents.
    times: the windows of frames.
  """

  frames: Positive
  height: Positive
  width: Positive
  rows: Count
  work: Workload
  codec: LatentCodec
  sample: SampleSettings
  overlap: int
  covers: tuple[Cover, Cover]
  times: Cover
  fps: float

  @property
  def window(self) -> tuple[int, int, int, int]:
    """The shape (t h w c) of the latents of whole frames of a window."""
    rows, columns = self.covers
    return self.times.size, rows.length, columns.length, self.codec.model.latent_channels

  @property
  def tiles(self) -> int:
    """How many tiles a frame has."""
    return math.prod(len(cover.starts) for cover in self.covers)

  @property
  def branches(self) -> int:
    """Rows of the model that guidance makes of one."""
    return count_branches(self.sample.guidance)


def read_film(config: ConfigDict, frames: int, size: tuple[int, int], rows: int = 0) -> Film:
  """Reads a configuration of an upsampler; raises ConfigError for a film that cannot be made."""
  for name, value in zip(('frames', 'height', 'width'), (frames, *size), strict=True):
    if value < 1:
      raise ConfigError(f'{name} = {value}; expected 1 at least')
  section = UpsamplerSection(config)
  settings = section.settings
  backbone = settings.model.backbone
  codec, notes = _make_codec(settings.autoencoder)
  name, shape = longest_bucket(settings.shapes)
  check_shape(backbone, codec.model, (shape.frames, *shape.size))
  shared = section.windows
  covers = frame_covers(
    size,
    shape.size,
    feather=shared.feather,
    compression=codec.model.compression,
    patch=backbone.patch,
  )
  times = windows(frames, shape.frames, shared.overlap)
  tile = (times.size, *(cover.size for cover in covers), codec.model.latent_channels)
  work = make_workload(FlowRun.of(config), name, tile)
  return Film(
    frames,
    *size,
    rows,
    dataclasses.replace(work, notes=tuple(notes)),
    codec,
    settings.sample,
    shared.overlap,
    covers,
    times,
    settings.data.fps,
  )


def plan_film(film: Film, topology: str, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
  """Estimates memory, operations and seconds to upsample a video, with weights in bfloat16.

  By default all windows that fit are on `data`, tokens on `context`. Returns plain JSON values:
  memory is of one chip, seconds are of all chips together. Raises ConfigError if something does not
  fit.
  """
  cluster = parse_topology(topology)
  sampling = _on(film, cluster, sizes) if sizes else _spread(film, cluster)
  work = film.work
  codec = film.codec.model
  gib = {name: size / GIB for name, size in film_bytes(film, sampling).items()}
  decoding = decode_bytes(film) / GIB
  peak = max(sum(gib.values()), gib['weights'] + decoding)
  encode, decode = codec_flops(film)
  stages = film.sample.steps * (2 if film.sample.solver == 'midpoint' else 1)
  tiles = len(film.times.starts) * film.tiles * stages
  evaluations = tiles * film.branches
  programs = math.ceil(tiles / sampling.request.samples)
  model = evaluations * work.flops.forward
  seconds = film.frames / film.fps
  estimate = sampling.passes[film.branches]
  chip = cluster.chip
  coded = (encode + decode) / chip.flops
  rates = rates_of(chip.name)
  ends = Ends(
    *(
      programs * roofline.step + coded / rate.linear
      for roofline, rate in ((estimate.time.slow, rates.slow), (estimate.time.fast, rates.fast))
    )
  )
  most = (1 - FREE) * chip.memory / GIB
  notes = [*work.notes, 'estimated by formula', *describe_efficiency(chip.name), BY_FORMULA]
  if gib['weights'] + decoding > most and not film.codec.tiling.size:
    notes.append(
      'decoding whole frames beside the weights does not fit; give the autoencoder tiles of space, '
      'as tiling.size = 512'
    )
  return {
    'topology': cluster.name,
    'mesh': dict(sampling.sizes),
    'frames': film.frames,
    'size': [film.height, film.width],
    'fps': film.fps,
    'seconds_of_film': seconds,
    'parameters': work.count,
    'window': [
      film.times.size,
      *(c.size * step for c, step in zip(film.covers, codec.compression[1:], strict=True)),
    ],
    'windows': len(film.times.starts),
    'overlap': film.overlap,
    'tiles': [len(cover.starts) for cover in film.covers],
    'shared_pixels': [
      c.feather * step for c, step in zip(film.covers, codec.compression[1:], strict=True)
    ],
    'latents': [film.frames, *film.window[1:]],
    'tokens': work.tokens,
    'context': work.context,
    'steps': film.sample.steps,
    'solver': film.sample.solver,
    'branches': film.branches,
    'calls': evaluations,
    'programs': programs,
    'flops': {
      'call': work.flops.forward,
      'model': model,
      'encode': encode,
      'decode': decode,
      'second_of_film': (model + encode + decode) / seconds,
    },
    'seconds_a_second_of_film': {
      'peak': (model / (chip.flops * cluster.devices) + coded) / seconds,
      **bounds(ends.map(lambda time: time / seconds)),
    },
    'gib': gib,
    'decode_gib': decoding,
    'peak_gib': peak,
    'gib_of_a_chip': chip.memory / GIB,
    'fits': peak <= most,
    'notes': [*notes, ASSUMED],
  }


def describe_film(answer: Fields) -> str:
  """Returns what `plan_film` found as a table for people."""
  flops, seconds = answer['flops'], answer['seconds_a_second_of_film']
  (rows, columns), (height, width) = answer['tiles'], answer['size']
  frames, *crop = answer['window']
  shared = ' and '.join(map(str, answer['shared_pixels']))
  gib = answer['gib'] | {'decode, beside the weights': answer['decode_gib']}
  verdict = 'fits' if answer['fits'] else 'does not fit'
  return '\n'.join(
    [
      f'model       {answer["parameters"]:,} parameters in bfloat16',
      f'film        {answer["frames"]} frames of {height} x {width}, {answer["fps"]:g} a second',
      f'windows     {answer["windows"]} of {frames} frames that share {answer["overlap"]}',
      f'tiles       {rows} x {columns} of {crop[0]} x {crop[1]} pixels that share {shared}; '
      f'{answer["tokens"]:,} tokens each, {answer["context"]:,} of text',
      f'calls       {answer["calls"]:,}: {answer["steps"]} steps of {answer["solver"]} x '
      f'{answer["windows"]} windows x {rows * columns} tiles x {answer["branches"]} of guidance, '
      f'in {answer["programs"]:,} programs',
      f'FLOPs       {flops["call"]:.3e} a call, {flops["second_of_film"]:.3e} a second of film; '
      f'the film: model {flops["model"]:.3e}, encode {flops["encode"]:.3e}, decode '
      f'{flops["decode"]:.3e}',
      '',
      f'on {answer["topology"]}, mesh {mesh_flag(answer["mesh"])}: {seconds["peak"]:,.3g} s a '
      f'second of film at 100% of the peak, {spread(seconds, ",.3g")} s at the shares below',
      *(f'  {name:28} {value:8.2f} GiB' for name, value in gib.items()),
      f'  {"peak":28} {answer["peak_gib"]:8.2f} of {answer["gib_of_a_chip"]:.0f} GiB: {verdict}',
      *answer['notes'],
    ]
  )


def film_bytes(film: Film, sampling: Sampling) -> dict[str, int]:
  """Returns category -> bytes on one chip while the model runs; their sum is the peak.

  Weights and what a pass takes (`sampling/latency.py`), and latents, their condition and the summed
  velocities of the windows, float32, whole frames.
  """
  groups = math.prod(sampling.sizes[axis] for axis in BATCH)
  windows = math.ceil(max(1, sampling.request.samples // film.tiles) / groups)
  return {
    'weights': sampling.weights(HALF),
    **{name: sampling.bytes[name] for name in ('weights of a layer', 'activations')},
    'windows': 3 * windows * math.prod(film.window) * FLOAT32,
  }


def decode_bytes(film: Film) -> int:
  """Returns the bytes of decoding a few frames, beside the model's weights.

  At full resolution the first residual block reads as many channels as the level below has, and
  writes its own: input, its norm, and two arrays of its own width.
  """
  model = film.codec.model
  _, rows, columns, _ = film.window
  height, width = (n * s for n, s in zip((rows, columns), model.compression[1:], strict=True))
  most = film.codec.tiling.size or max(height, width)
  pixels = CHUNK * min(height, most) * min(width, most) // math.prod(model.patch)
  finest = model.widths[0]
  coarser = (*model.widths, model.widths[-1])[1]
  return pixels * 2 * (finest + coarser) * jnp.dtype(model.dtype).itemsize


def codec_flops(film: Film) -> tuple[int, int]:
  """Counts the operations of encoding and of decoding the film, from the traced programs."""
  codec = film.codec
  model = film.codec.model
  places = film.window[1:3]
  inputs = (jax.ShapeDtypeStruct((1, *model.compression, 3), jnp.float32), jax.random.key(0))
  params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)['params'])
  size = tuple(n * step for n, step in zip(places, model.compression[1:], strict=True))
  video = jax.ShapeDtypeStruct((1, CHUNK, *size, 3), jnp.uint8)
  latents = jax.ShapeDtypeStruct((1, CHUNK, *places, model.latent_channels), jnp.float32)
  chunks = math.ceil(film.frames / CHUNK)
  encode, decode = ((codec.encode_tile, video), (codec.decode_tile, latents))
  return tuple(chunks * count_products(run, params, x) for run, x in (encode, decode))


def _on(film: Film, topology: Topology, sizes: Mapping[str, int]) -> Sampling:
  """Returns a call with enough tiles to fill a mesh; raises ConfigError if it does not fit."""
  sizes = make_sizes(sizes)
  groups = math.prod(sizes[axis] for axis in BATCH)
  tiles = math.ceil((film.rows or groups) / groups) * groups
  sampling = sample_on(
    SamplingRequest(film.work, film.work.exchange, tiles), topology, sizes, (film.branches,)
  )
  assert sampling is not None  # rows are filled up to what divides
  return sampling


def _spread(film: Film, topology: Topology) -> Sampling:
  """Spreads tiles over `data` and, where that does not fit a chip, tokens over `context`."""
  sizes = dict.fromkeys(AXES, 1)
  sampling = None
  for context in (n for n in range(1, topology.devices + 1) if topology.devices % n == 0):
    mesh = sizes | {'data': topology.devices // context, 'context': context}
    try:
      sampling = _on(film, topology, mesh)
    except ConfigError:  # the torus has no such axes, or heads do not divide: there are others
      continue
    if sum(film_bytes(film, sampling).values()) <= (1 - FREE) * topology.chip.memory:
      return sampling
  return sampling or _on(film, topology, sizes | {'data': topology.devices})


def _make_codec(workdir: str) -> tuple[LatentCodec, list[str]]:
  """Returns the image autoencoder of a work directory, or the paper's, and what to say of it."""
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
  return LatentCodec(model, {}, Statistics.neutral(model.latent_channels), tiling), notes
