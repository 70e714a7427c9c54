"""Trains text-to-video models and encodes their data (Movie Gen §3.1.2-3.1.4)."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.typing import Tree
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.viewing import write_clip
from mgjax.data.source import Source
from mgjax.data.sources import make_sources
from mgjax.models.flow_model.conditions import prepare_samples
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.models.flow_model.model import grow
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.parallel.distributed import fetch
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.flow.task import (
  FlowSettings,
  about_videos,
  make_flow_spec,
  make_video_encode_plan,
  make_video_outline,
)
from mgjax.training.spec import EncodePlan, Outline, TrainSpec

SHOWN = 8  # samples in a picture


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: latents, read or encoded on the fly, and prompts in, velocities out."""
  return make_video_spec(FlowSettings.of(config.to_dict()), workdir)


def make_video_spec(
  settings: FlowSettings,
  workdir: pathlib.Path,
  starts: Sequence[str] = (),
  make_sources: Callable[..., Mapping[str, Source]] = make_sources,
) -> TrainSpec:
  """Makes the `TrainSpec` of models that make videos of prompts and whatever else they read.

  Args:
    starts: components beside its own that `start_from` may have trained.
    make_sources: as `mgjax.data.sources.make_sources`.
  """
  model, data, shapes = settings.model, settings.data, settings.shapes
  codec = load_codec(settings.autoencoder)
  for shape in shapes.values():
    check_shape(model.backbone, codec.model, (shape.frames, *shape.size))

  def show(generate, bucket: ShapeBucket, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    shape = shapes[bucket.name]
    source = bucket.source
    samples = [source[index] for index in range(min(SHOWN, len(source)))]
    prompts = [sample['caption'] for sample in samples]
    batch = prepare_samples(model, samples, codec.encode)
    latents = codec.latent_shape((shape.frames, *shape.size))
    noise = draw_noise(settings.seed, np.arange(len(prompts)), latents)
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
    settings,
    workdir,
    codec=codec,
    raw='video',
    show=show,
    starts=starts,
    make_sources=functools.partial(make_sources, data, shapes),
    about=lambda name: about_videos(shapes[name], model.conditionings, codec),
    adapt=lambda params: grow(params, model.backbone.positions),
  )


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration; of an autoencoder that is not there, the report's."""
  return make_video_outline(FlowSettings.of(config.to_dict()), Autoencoder())


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns clips into latents, tile by tile."""
  return make_video_encode_plan(FlowSettings.of(config.to_dict()), make_sources)
