"""Text to video as a part to train (Movie Gen §3.1.2-3.1.4)."""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.checkpoints.warm_start import make_start
from mgjax.checkpoints.workdir import read_config
from mgjax.core.errors import ConfigError
from mgjax.core.typing import Batch, Tree
from mgjax.data.buckets import make_shape
from mgjax.data.mixture import ShapeBucket
from mgjax.data.sources import check_same_shape, make_sources, make_transform
from mgjax.flow_models.build import (
  check_learnt,
  check_records,
  make_flops,
  make_flow_model,
  make_objectives,
  make_sampler_of,
  missing_autoencoder,
  prepare_samples,
  small_inputs,
)
from mgjax.flow_models.model import FlowModel
from mgjax.flow_models.sampling import draw_noise
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.video import write_video
from mgjax.parallel.distributed import fetch
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.tae.latents import LatentCodec
from mgjax.tae.pipeline import load_codec
from mgjax.tae.tiling import Frames, regroup
from mgjax.text.embeddings import stored_encoders, with_embeddings
from mgjax.training.settings import bucket_settings
from mgjax.training.spec import EncodePlan, Outline, TrainSpec, longest_of, make_buckets
from mgjax.video.shape import check_shape
from mgjax.video.stages import grow

SHOWN = 8  # samples in a picture


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Builds the part: latents, read or encoded on the fly, and prompts in, velocities out."""
  model = make_flow_model(config)
  stored = bool(config.data.latents)
  prepares = [conditioning.prepare for conditioning in model.conditionings]
  transform = make_transform(prepares, ('latents',) if stored else ('video',))
  shapes = bucket_settings(**config.buckets.to_dict())
  sources = functools.partial(make_sources, config.data, config.buckets)
  sources = with_embeddings(config, sources)
  buckets, validation = make_buckets(
    shapes, workdir, sources, transform, share=config.data.get('share', 'given')
  )
  codec = load_codec(config.autoencoder)
  for bucket_shape in config.buckets.values():
    sizes = (bucket_shape.frames, bucket_shape.height, bucket_shape.width)
    check_shape(model.backbone, codec.model, sizes)
  for each in (*buckets, *validation) if stored else ():
    shape = config.buckets[each.name]
    wanted = {
      'statistics': codec.statistics.as_dict(),
      'shape': [shape.frames, shape.height, shape.width],
      'fps': list(make_shape(shape, config.data.fps).fps),
    }
    check_records(each.source.source.meta, wanted, each.name)

  def prepare(batch: Batch) -> Batch:
    if not stored:
      return {k: v for k, v in batch.items() if k != 'video'} | {
        'latents': codec.encode(batch['video'])
      }
    return batch | {'latents': batch['latents'].astype(jnp.float32)}

  objective, validate = make_objectives(config, model)
  learnt = {'latents': codec.statistics.as_dict(), 'encoders': stored_encoders(config)}

  return TrainSpec(
    model=model,
    inputs=small_inputs(model, codec.model.latent_channels),
    objective=objective,
    validate=validate,
    buckets=buckets,
    validation=validation,
    prepare=prepare,
    show=_make_show(config, model, codec, longest_of(validation, shapes)),
    notes=lambda params: learnt,
    check=functools.partial(check_learnt, config, learnt),
    flops=make_flops(model),
    start=make_start(
      config.start_from,
      config.component,
      lambda params: grow(params, tuple(config.model.positions)),
    ),
  )


def _make_show(
  config: ConfigDict, model: FlowModel, codec: LatentCodec, bucket: ShapeBucket
) -> Callable[[Tree, pathlib.Path], pathlib.Path]:
  """Makes the function that samples captions of a bucket's validation data into a directory."""
  shape, source = config.buckets[bucket.name], bucket.source
  generate = make_sampler_of(config, model)

  def show(params: Tree, directory: pathlib.Path) -> pathlib.Path:
    samples = [source[index] for index in range(min(SHOWN, len(source)))]
    prompts = [sample['caption'] for sample in samples]
    batch = prepare_samples(model, samples)
    latents = codec.latent_shape((shape.frames, shape.height, shape.width))
    noise = draw_noise(config.seed, np.arange(len(prompts)), latents)
    batch, noise = jax.tree.map(np.asarray, (batch, noise))  # on every host the same
    videos = fetch(codec.decode(generate(params, batch, noise), shape.frames))
    path = directory / 'samples.png'
    if jax.process_index() > 0:
      return path
    contact_sheet(path, list(videos), prompts)
    if shape.frames > 1:
      for index, video in enumerate(videos):
        fps = samples[index].get('fps', config.data.fps)
        write_video(directory / f'{index:03d}.mp4', video, fps)
    return path

  return show


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration; of an autoencoder that is not there, the report's."""
  model, notes = make_flow_model(config), []
  try:
    codec = make_autoencoder(read_config(config.autoencoder).model.to_dict())
  except ConfigError:  # not trained yet
    codec = Autoencoder()
    notes.append(missing_autoencoder(config.autoencoder, codec.latent_channels))

  def samples() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    found = {}
    for name, each in config.buckets.items():
      shape = (each.frames, each.height, each.width)
      check_shape(model.backbone, codec, shape)
      found[name] = (shape, codec.latent_shape(shape))
    return found

  return Outline(model, small_inputs(model, codec.latent_channels), notes, samples)


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes what turns the clips of a configuration into latents, a tile of time after another."""
  codec = load_codec(config.autoencoder)

  def sizes(name: str) -> tuple[int, int, int]:
    shape = config.buckets[name]
    return shape.frames, shape.height, shape.width

  def tile(name: str) -> tuple[int, ...]:
    frames, height, width = sizes(name)
    return min(frames, codec.tiling.frames), height, width

  return EncodePlan(
    statistics=codec.statistics.as_dict(),
    make_sources=lambda data, split, report: make_sources(data, config.buckets, split, report),
    encode=make_encode(codec),
    about=lambda name: {
      'shape': list(sizes(name)),
      'fps': list(make_shape(config.buckets[name], config.data.fps).fps),
    },
    tile=tile,
    latents=lambda name: codec.latent_shape(sizes(name)),
  )


def make_encode(codec: LatentCodec):
  """Makes the `encode` of an `EncodePlan`.

  A sample's 'video' is an array (t h w 3), or an iterable of such arrays, its chunks one after
  another: then no more of it is held than one tile of time of each row, however long it is.
  """

  def encode(samples: Sequence[Mapping[str, Any]], put: Callable[[np.ndarray], Any]):
    tiles = _tiles([sample['video'] for sample in samples], codec.tiling.frames)
    return codec.encode_stream(map(put, tiles))

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
