"""Trains text-to-video models and encodes their data (Movie Gen §3.1.2-3.1.4)."""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.conditioning.contract import Conditioning
from mgjax.core.settings import fields_of
from mgjax.core.typing import Tree
from mgjax.data.buckets import Shape
from mgjax.data.mixture import ShapeBucket
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import check_same_shape, make_sources
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.conditions import clip_shapes, prepare_samples
from mgjax.flow_models.model import FlowModel
from mgjax.flow_models.sampling import draw_noise
from mgjax.flow_models.task import FlowSettings, Sizes, make_flow_outline, make_flow_spec
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.viewing import write_clip
from mgjax.parallel.distributed import fetch
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.tae.latents import LatentCodec
from mgjax.tae.pipeline import load_codec
from mgjax.tae.tiling import Frames, regroup
from mgjax.training.spec import EncodePlan, Outline, TrainSpec
from mgjax.video.shape import check_shape
from mgjax.video.stages import grow

SHOWN = 8  # samples in a picture


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: latents, read or encoded on the fly, and prompts in, velocities out."""
  model, settings = make_flow_model(fields_of(config, 'model')), FlowSettings.of(config.to_dict())
  data = settings.data
  shapes = video_shapes(fields_of(config, 'buckets'), data.fps)
  codec = load_codec(config.autoencoder)
  for shape in shapes.values():
    check_shape(model.backbone, codec.model, (shape.frames, *shape.size))

  def show(generate, bucket: ShapeBucket, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    shape, source = shapes[bucket.name], bucket.source
    samples = [source[index] for index in range(min(SHOWN, len(source)))]
    prompts = [sample['caption'] for sample in samples]
    batch = prepare_samples(model, samples, codec.encode)
    latents = codec.latent_shape((shape.frames, *shape.size))
    noise = draw_noise(config.seed, np.arange(len(prompts)), latents)
    batch, noise = fetch((batch, noise))  # on every host the same
    videos = fetch(codec.decode(generate(params, batch, noise), shape.frames))
    path = directory / 'samples.png'
    if jax.process_index() > 0:
      return path
    contact_sheet(path, list(videos), prompts)
    if shape.frames > 1:
      for index, video in enumerate(videos):
        write_clip(directory / f'{index:03d}.mp4', video, samples[index].get('fps', data.fps))
    return path

  return make_flow_spec(
    config, workdir, model=model, settings=settings, codec=codec, raw='video', show=show,
    make_sources=functools.partial(make_sources, data, shapes),
    about=lambda name: _about(shapes[name], model.conditionings, codec),
    adapt=lambda params: grow(params, tuple(config.model.positions)),
  )  # fmt: skip


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration; of an autoencoder that is not there, the report's."""
  fps = data_settings(fields_of(config, 'data')).fps
  shapes = video_shapes(fields_of(config, 'buckets'), fps)

  def sizes(model: FlowModel, codec: Autoencoder, name: str) -> Sizes:
    shape = (shapes[name].frames, *shapes[name].size)
    check_shape(model.backbone, codec, shape)
    return shape, codec.latent_shape(shape)

  return make_flow_outline(config, make_autoencoder, Autoencoder(), sizes)


def _about(
  shape: Shape, conditionings: Sequence[Conditioning], codec: LatentCodec
) -> dict[str, Any]:
  """Returns what latents depend on beside the data and the autoencoder."""
  clips = clip_shapes(conditionings, codec.latent_shape((shape.frames, *shape.size)))
  return {'shape': [shape.frames, *shape.size], 'fps': list(shape.fps), **clips}


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes the plan by which `launch.encode` turns clips into latents, tile by tile."""
  codec = load_codec(config.autoencoder)
  conditionings = make_flow_model(fields_of(config, 'model')).conditionings
  shapes = video_shapes(fields_of(config, 'buckets'), config.data.fps)
  return EncodePlan(
    conditionings=conditionings,
    raw='video',
    statistics=codec.statistics.as_dict(),
    make_sources=lambda data, split, report: make_sources(data, shapes, split, report),
    encode=make_encode(codec),
    about=lambda name: _about(shapes[name], conditionings, codec),
    tile=lambda name: (min(shapes[name].frames, codec.tiling.frames), *shapes[name].size),
    latents=lambda name: codec.latent_shape((shapes[name].frames, *shapes[name].size)),
  )


def make_encode(codec: LatentCodec):
  """Makes the `encode` of an `EncodePlan`.

  A video is an array (t h w 3), or an iterable of such arrays, its chunks one after another: then
  no more of it is held than one tile of time of each row, however long it is.
  """

  def encode(videos: Sequence[Any], put: Callable[[np.ndarray], Any]):
    return codec.encode_stream(map(put, _tiles(videos, codec.tiling.frames)))

  return encode


def _tiles(videos: Sequence[Any], frames: int) -> Iterator[np.ndarray]:
  """Yields tiles of time (b t h w 3) of rows that are arrays or iterables of chunks (t h w 3)."""
  rows = [regroup(_chunks(video), frames) for video in videos]
  for tiles in itertools.zip_longest(*rows):
    check_same_shape(tiles)
    yield np.concatenate(tiles)


def _chunks(video: Any) -> Iterator[Frames]:
  for chunk in [video] if isinstance(video, np.ndarray) else video:
    yield chunk[None]
