"""Sound for videos and text as a part to train (Movie Gen §6)."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.audio.codec.latents import AudioCodec
from mgjax.audio.codec.model import RATE, Codec, make_codec
from mgjax.audio.codec.pipeline import load_audio_codec
from mgjax.audio.frame_features import PIXELS, pixel_features, resample
from mgjax.audio.masking import make_masked_objective, make_unmasked_objective
from mgjax.checkpoints.warm_start import make_start
from mgjax.checkpoints.workdir import read_config
from mgjax.core.config import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.typing import Batch, Tree
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.mixture import ShapeBucket, Source
from mgjax.data.sources import check_same_shape, make_transform, stored_latents
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
from mgjax.media.audio import write_wav
from mgjax.media.audio_sheet import audio_sheet
from mgjax.parallel.distributed import fetch
from mgjax.text.embeddings import stored_encoders, with_embeddings
from mgjax.training.settings import bucket_settings
from mgjax.training.spec import EncodePlan, Outline, TrainSpec, longest_of, make_buckets

SHOWN = 4  # samples in a picture


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Builds the part: latents of sound, read or encoded on the fly, and conditions in."""
  model = make_flow_model(config)
  codec = load_audio_codec(config.autoencoder)
  for name, shape in config.buckets.items():
    check_length(model, codec.model, shape.seconds, f'bucket {name!r}')
  keep = ('latents',) if config.data.latents else ('audio',)
  transform = make_transform([each.prepare for each in model.conditionings], keep)
  shapes = bucket_settings(**config.buckets.to_dict())
  sources = functools.partial(make_audio_samples, config.data, config.buckets, codec)
  sources = with_embeddings(config, sources)
  buckets, validation = make_buckets(
    shapes, workdir, sources, transform, share=config.data.get('share', 'given')
  )

  def prepare(batch: Batch) -> Batch:
    if 'audio' in batch:
      batch = {k: v for k, v in batch.items() if k != 'audio'} | {
        'latents': codec.encode(batch['audio'])
      }
    return batch | {'latents': batch['latents'].astype(jnp.float32)[:, :, None, None]}

  objective, validate = make_objectives(config, model)
  objective = make_masked_objective(objective, **config.masking)
  validate = make_unmasked_objective(validate)
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
    start=make_start(config.start_from, config.component),
  )


def longest_audio_bucket(config: ConfigDict) -> str:
  """Returns the name of the bucket with the longest sounds, the first of several."""
  return max(config.buckets, key=lambda name: config.buckets[name].seconds)


def check_length(model: FlowModel, codec: Codec, seconds: float, what: str) -> int:
  """Returns how many latents so many seconds have.

  Raises:
    ConfigError: they are not a whole number of latents, or more than the model has positions for.
  """
  step, most = codec.compression / RATE, model.backbone.positions[0]
  latents = round(seconds / step)
  if not 1 <= latents <= most or abs(seconds - latents * step) > 1e-6:
    raise ConfigError(
      f'{what} has sounds of {seconds:g} s; expected a multiple of {step:g} s, which one latent '
      f'stands for, and at most {most * step:g} s, for which the model has positions'
    )
  return latents


def make_audio_samples(
  data: Fields,
  buckets: Fields,
  codec: AudioCodec,
  split: str,
  report: pathlib.Path | None = None,
) -> dict[str, Source]:
  """Returns the buckets' samples: 'audio' or 'latents', 'frame_features' and 'caption'.

  Args:
    data: as a configuration's; with `latents`, what `launch.encode` put there is read.
    buckets: name -> `seconds` and, where there are pictures, `height` and `width`.
    codec: that the latents are of.
    split: 'train' or 'validation'.
    report: where rejected clips are listed.

  Raises:
    DataError: there is no usable data, or the latents are others.
  """
  if data['latents']:
    stored = stored_latents(data, buckets, split)
    for name, records in stored.items():
      wanted = {'statistics': codec.statistics.as_dict(), 'seconds': buckets[name]['seconds']}
      check_records(records.meta, wanted, name)
    return dict(stored)
  rate = codec.latent_rate
  return {
    name: WithFeatures(source, data['fps'], round(buckets[name]['seconds'] * rate), rate)
    for name, source in make_audio_sources(data, buckets, split, report).items()
  }


class WithFeatures:
  """Turns the pictures of samples into features, a vector a latent; zeros where there are none."""

  def __init__(self, source: Source, fps: float, count: int, rate: float):
    self.source, self._how = source, (fps, count, rate)

  @property
  def fingerprint(self) -> Any:
    """That of the source."""
    return getattr(self.source, 'fingerprint', None)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    sample = dict(self.source[index])
    video, (fps, count, rate) = sample.pop('video', None), self._how
    features = np.zeros((count, PIXELS), np.float32)
    if video is not None:
      features = resample(pixel_features(video), fps, count, rate)
    return sample | {'frame_features': features}


def _make_show(
  config: ConfigDict, model: FlowModel, codec: AudioCodec, bucket: ShapeBucket
) -> Callable[[Tree, pathlib.Path], pathlib.Path]:
  """Makes the function that samples sounds for validation data into a directory."""
  generate = make_sampler_of(config, model)

  def show(params: Tree, directory: pathlib.Path) -> pathlib.Path:
    samples = [bucket.source[index] for index in range(min(SHOWN, len(bucket.source)))]
    frames = round(config.buckets[bucket.name].seconds * codec.latent_rate)
    shape = (frames, 1, 1, codec.model.latent_channels)
    samples = [sample | {'context': np.zeros(shape, np.float32)} for sample in samples]
    noise = draw_noise(config.seed, np.arange(len(samples)), shape)
    batch, noise = jax.tree.map(np.asarray, (prepare_samples(model, samples), noise))
    sounds = fetch(codec.decode(generate(params, batch, noise)[:, :, 0, 0]))
    path = directory / 'samples.png'
    if jax.process_index() == 0:
      audio_sheet(path, list(sounds), [sample['caption'] for sample in samples], codec.rate)
      for index, sound in enumerate(sounds):
        write_wav(directory / f'{index:03d}.wav', sound, codec.rate)
    return path

  return show


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration; of a codec that is not there, the report's."""
  model, notes = make_flow_model(config), []
  try:
    codec = make_codec(read_config(config.autoencoder).model.to_dict())
  except ConfigError:  # not trained yet
    codec = Codec()
    notes.append(missing_autoencoder(config.autoencoder, codec.latent_channels))

  def samples() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    found = {}
    for name, each in config.buckets.items():
      frames = check_length(model, codec, each.seconds, f'bucket {name!r}')
      found[name] = ((frames, 1, 1), (frames, 1, 1, codec.latent_channels))
    return found

  return Outline(model, small_inputs(model, codec.latent_channels), notes, samples)


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes what turns the sounds of a configuration into latents, each at once."""
  codec, buckets = load_audio_codec(config.autoencoder), config.buckets

  def encode(samples: Sequence[Mapping[str, Any]], put: Callable[[np.ndarray], Any]):
    sounds = [sample['audio'] for sample in samples]
    check_same_shape(sounds)
    yield codec.encode(put(np.stack(sounds)))

  def latents(name: str) -> tuple[int, ...]:
    return math.ceil(buckets[name].seconds * codec.latent_rate), codec.model.latent_channels

  return EncodePlan(
    statistics=codec.statistics.as_dict(),
    make_sources=lambda data, split, report: make_audio_samples(
      data, buckets, codec, split, report
    ),
    encode=encode,
    about=lambda name: {'seconds': buckets[name].seconds},
    tile=lambda name: (round(buckets[name].seconds * codec.rate),),
    latents=latents,
  )
