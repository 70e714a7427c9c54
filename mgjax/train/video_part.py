"""Text to video as a part to train (Movie Gen §3.1.2-3.1.4)."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.backbone.transformer import Transformer
from mgjax.core.config import build
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.precision import compute_type
from mgjax.core.typing import Batch, Tree
from mgjax.data.contact_sheet import contact_sheet
from mgjax.data.mixture import Bucket
from mgjax.data.sources import longest_bucket, make_source, make_transform
from mgjax.data.video_io import write_video
from mgjax.flow.objective import make_objective
from mgjax.flow.schedules import make_schedule
from mgjax.flow.times import make_sampler
from mgjax.parallel.distributed import fetch
from mgjax.parallel.shard import Place
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.train.part import Part
from mgjax.train.restore import load_codec, load_params, read_config
from mgjax.video.generate import draw_noise, make_generate
from mgjax.video.model import VideoModel, check_shape
from mgjax.video.stages import grow

SHOWN = 8  # samples in a picture


def make_video_model(config: ConfigDict) -> VideoModel:
  """Makes the module that `config.model` describes; a conditioning is built from its `class`."""
  fields = config.model.to_dict()
  dtype = compute_type(fields.pop('compute'))
  described = fields.pop('conditionings')
  fields |= {key: tuple(fields[key]) for key in ('positions', 'patch')}
  conditionings = [
    build(described[name], name=name, dim=fields['dim'], dtype=dtype) for name in sorted(described)
  ]
  backbone = Transformer(**fields, dtype=dtype, name='backbone')
  return VideoModel(backbone, tuple(conditionings))


def make_part(config: ConfigDict, workdir: pathlib.Path) -> Part:
  """Builds the part: latents, read or encoded on the fly, and prompts in, velocities out."""
  model = make_video_model(config)
  stored = bool(config.data.latents)
  prepares = [conditioning.prepare for conditioning in model.conditionings]
  transform = make_transform(prepares, ('latents',) if stored else ('video',))

  def bucket(name: str, split: str) -> Bucket:
    shape = config.buckets[name]
    source = make_source(config.data, name, shape, split, workdir / 'rejected.jsonl')
    return Bucket(name, source, shape.batch_size, shape.weight, transform)

  buckets = [bucket(name, 'train') for name in config.buckets]
  validation = [bucket(name, 'validation') for name in config.buckets]
  codec = load_codec(config.autoencoder)
  for bucket_shape in config.buckets.values():
    sizes = (bucket_shape.frames, bucket_shape.height, bucket_shape.width)
    check_shape(model.backbone, codec.model, sizes)
  for each in (*buckets, *validation) if stored else ():
    _check_latents(each.source.source.meta, codec.statistics, config, each.name)

  def prepare(batch: Batch) -> Batch:
    if not stored:
      return {k: v for k, v in batch.items() if k != 'video'} | {
        'latents': codec.encode(batch['video'])
      }
    return batch | {'latents': batch['latents'].astype(jnp.float32)}

  name, _ = longest_bucket(config.buckets)
  fields = config.objective.to_dict()
  _check_dropout(fields['dropout'], model)
  draw = make_sampler(fields['time'].pop('name'), **fields['time'])

  learnt = {'latents': codec.statistics.as_dict()}

  def check(notes: Mapping[str, Any]) -> None:
    if notes.get('latents', learnt['latents']) != learnt['latents']:
      raise ConfigError(
        f'the autoencoder at {config.autoencoder!r} is not the one that this run learnt the '
        'latents of (was it trained on?); put that one back, or take another --workdir'
      )

  def start(place: Place) -> Tree:
    if (part := read_config(config.start_from).part) != 'video':
      raise ConfigError(
        f'config.start_from={config.start_from!r} trained {part!r}, not a video model'
      )
    return grow(load_params(config.start_from, place=place)[0], tuple(config.model.positions))

  return Part(
    model=model,
    inputs=small_inputs(model, codec.model.latent_channels),
    objective=make_objective(dropout=fields['dropout'], sample_time=draw),
    validate=make_objective(dropout={}, sample_time=make_sampler('stratified')),
    buckets=buckets,
    validation=validation,
    prepare=prepare,
    show=_make_show(config, model, codec, name),
    notes=lambda params: learnt,
    check=check,
    start=start if config.start_from else None,
  )


def _make_show(
  config: ConfigDict, model: VideoModel, codec: LatentCodec, name: str
) -> Callable[[Tree, pathlib.Path], pathlib.Path]:
  """Makes the function that samples captions of a bucket's validation data into a directory."""
  shape = config.buckets[name]
  generate = make_sampler_of(config, model)

  def show(params: Tree, directory: pathlib.Path) -> pathlib.Path:
    source = make_source(config.data, name, shape, 'validation')
    prompts = [source[index]['caption'] for index in range(min(SHOWN, len(source)))]
    batch = prepare_prompts(model, prompts, config.data.fps if shape.frames > 1 else None)
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
        write_video(directory / f'{index:03d}.mp4', video, config.data.fps)
    return path

  return show


def make_sampler_of(config: ConfigDict, model: VideoModel, **changes: Any):
  """Makes `generate(params, batch, noise) -> latents` from `config.sample`, with changes."""
  fields = config.sample.to_dict() | {k: v for k, v in changes.items() if v is not None}
  unknown = sorted(set(fields['guidance']) - {each.name for each in model.conditionings})
  if unknown:
    raise ConfigError(f'guidance names {unknown}, which the model has no conditioning for')
  schedule = dict(fields['schedule'])
  times = make_schedule(schedule.pop('name'), fields['steps'], **schedule)
  guidance = fields['guidance']
  return make_generate(model, times=times, solver=fields['solver'], guidance=guidance)


def prepare_prompts(model: VideoModel, prompts: Sequence[str], fps: float | None) -> Batch:
  """Turns prompts into the arrays that the model's conditionings read."""
  rows: list[Mapping[str, np.ndarray]] = []
  for prompt in prompts:
    sample = {'caption': prompt} | ({} if fps is None else {'fps': fps})
    row: dict[str, np.ndarray] = {}
    for conditioning in model.conditionings:
      row |= conditioning.prepare(sample)
    rows.append(row)
  return {key: jnp.asarray(np.stack([row[key] for row in rows])) for key in rows[0]}


def small_inputs(model: VideoModel, channels: int) -> tuple[Any, ...]:
  """Returns the smallest arguments of `model.init` after the key: parameters depend on no more."""
  latents = jnp.zeros((1, *model.backbone.patch, channels))
  return latents, jnp.zeros(1), prepare_prompts(model, ['a'], None), {}


def _check_dropout(dropout: Mapping[str, float], model: VideoModel) -> None:
  names = {each.name for each in model.conditionings}
  if set(dropout) != names:
    raise ConfigError(
      f'objective.dropout names {sorted(dropout)}, the conditionings are {sorted(names)}; give '
      'each a rate, 0 for never: guidance means nothing for a condition that is never dropped'
    )


def _check_latents(
  meta: Mapping[str, Any], statistics: Statistics, config: ConfigDict, name: str
) -> None:
  if Statistics.from_dict(meta['statistics']) != statistics:
    raise DataError(
      f'the latents of bucket {name!r} were normalised for another autoencoder than the one at '
      'config.autoencoder; encode the data again with launch.encode'
    )
  shape = config.buckets[name]
  wanted = ([shape.frames, shape.height, shape.width], config.data.fps)
  if (given := (meta['shape'], meta['fps'])) != wanted:
    raise DataError(
      f'the latents of bucket {name!r} are of {given[0]} (frames, height, width) at {given[1]} '
      f'frames a second, the configuration says {wanted[0]} at {wanted[1]}; encode the data again'
    )
