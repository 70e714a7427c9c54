"""Trains audio models and encodes their data (Movie Gen §6)."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import arguments, fields_of
from mgjax.core.typing import Array, Float, Tree
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.ingest.entries import Captions
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.settings import AudioShape, DataSettings, audio_shapes
from mgjax.data.source import Source
from mgjax.data.sources import check_same_shape, latent_sources
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.model import RATE, Codec, make_codec
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.conditioning.frame_features import KEY as FRAME_FEATURES
from mgjax.models.flow_model.conditions import clip_shapes, condition_fields, prepare_samples
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.models.flow_model.model import FlowModel
from mgjax.parallel.distributed import fetch
from mgjax.sections.audio.captions import COLUMNS, caption_of_row
from mgjax.sections.audio.frame_features import WAYS, see_samples
from mgjax.sections.audio.masking import make_masked_objective
from mgjax.sections.clip.pipeline import FrameEncoder, tower_identity
from mgjax.sections.codec.pipeline import load_audio_codec
from mgjax.sections.flow.task import (
  FlowSettings,
  Sizes,
  captions_of,
  make_flow_outline,
  make_flow_spec,
)
from mgjax.training.spec import EncodePlan, Outline, TrainSpec

SHOWN = 4  # samples in a picture
VISION = 'vision'  # the encoder of frames, in configurations and notes
CAPTIONS = Captions(COLUMNS, caption_of_row)


@dataclasses.dataclass(frozen=True)
class AudioSettings:
  """All that the training of an audio model reads of a configuration.

  Attributes:
    flow: what every flow model reads.
    masking: how spans of its context are hidden, arguments of `make_masked_objective`.
    vision: the work directory of the encoder of frames, or what needs none: '' where their pixels
      are the features, 'motion' where it is how they move, too.
  """

  flow: FlowSettings
  masking: Mapping[str, Any]
  vision: str

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> 'AudioSettings':
    """Reads a configuration as a plain dictionary.

    Raises:
      ConfigError: a field is unknown, missing or out of its range, or an encoder of text has the
        name of that of frames.
    """
    flow = FlowSettings.of(fields, lambda buckets, fps: audio_shapes(buckets))
    masking = fields_of(fields, 'masking')
    masking = arguments(make_masked_objective, masking, 'masking', ('objective',))
    vision = fields.get(VISION) or ''
    if vision and VISION in flow.text.encoders:
      raise ConfigError(f'config.text.{VISION}: an encoder of text needs another name')
    return cls(flow, masking, vision)

  @property
  def seen_by(self) -> str:
    """The identity of the encoder of frames or its name in `WAYS`; ConfigError if there is none."""
    return self.vision if self.vision in WAYS else tower_identity(self.vision)


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: latents of audio, read or encoded on the fly, and conditions in."""
  settings = AudioSettings.of(config.to_dict())
  flow, vision = settings.flow, settings.seen_by
  model, data, shapes = flow.model, flow.data, flow.shapes
  codec = load_audio_codec(flow.autoencoder)
  if vision not in WAYS and not data.latents:
    raise ConfigError(
      'the model reads features of frames by the encoder that config.vision names, and '
      'config.data.latents is empty: let launch.data encode make both, and name its directory there'
    )
  for name, shape in shapes.items():
    check_length(model, codec.model, shape.seconds, f'bucket {name!r}')

  def show(generate, bucket: ShapeBucket, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    samples = [bucket.source[index] for index in range(min(SHOWN, len(bucket.source)))]
    frames = round(shapes[bucket.name].seconds * codec.latent_rate)
    shape = (frames, 1, 1, codec.model.latent_channels)
    noise = draw_noise(flow.seed, np.arange(len(samples)), shape)
    batch = prepare_samples(model, samples, lambda sounds: as_video(codec.encode(sounds)))
    batch, noise = fetch((batch, noise))
    sounds = fetch(codec.decode(generate(params, batch, noise)[:, :, 0, 0]))
    path = directory / 'samples.png'
    if jax.process_index() == 0:
      audio_sheet(path, list(sounds), [sample['caption'] for sample in samples], codec.rate)
      for index, sound in enumerate(sounds):
        write_wav(directory / f'{index:03d}.wav', sound, codec.rate)
    return path

  return make_flow_spec(
    flow,
    workdir,
    codec=codec,
    raw='audio',
    show=show,
    wrap=functools.partial(make_masked_objective, **settings.masking),
    make_sources=functools.partial(make_audio_samples, data, shapes, codec, vision=vision),
    about=lambda name: _about(shapes[name], model.conditionings, codec, vision),
    as_video=as_video,
    encoders={} if vision in WAYS else {VISION: vision},
  )


def _about(
  shape: AudioShape, conditionings: Sequence[Conditioning], codec: AudioCodec, vision: str
) -> dict[str, Any]:
  """Returns what latents and features depend on beside the data and the codec."""
  latents = (round(shape.seconds * codec.latent_rate), 1, 1, codec.model.latent_channels)
  seen = {VISION: vision} if vision else {}
  return {'seconds': shape.seconds, **clip_shapes(conditionings, latents), **seen}


def as_video(latents: Float[Array, 'b t c']) -> Float[Array, 'b t 1 1 c']:
  """Returns latents of sound in the form of those of a video of one pixel."""
  return latents[:, :, None, None]


def longest_audio_bucket(shapes: Mapping[str, AudioShape]) -> str:
  """Returns the name of the bucket with the longest sounds, the first of several."""
  return max(shapes, key=lambda name: shapes[name].seconds)


def check_length(model: FlowModel, codec: Codec, seconds: float, what: str) -> int:
  """Returns how many latents so many seconds have.

  Raises:
    ConfigError: they are not a whole number of latents, or more than the model has positions for.
  """
  step = codec.compression / RATE
  most = model.backbone.positions[0]
  latents = round(seconds / step)
  if not 1 <= latents <= most or abs(seconds - latents * step) > 1e-6:
    raise ConfigError(
      f'{what} has sounds of {seconds:g} s; expected a multiple of {step:g} s, which one latent '
      f'stands for, and at most {most * step:g} s, for which the model has positions'
    )
  return latents


def make_audio_samples(
  data: DataSettings,
  shapes: Mapping[str, AudioShape],
  codec: AudioCodec,
  split: str,
  report: pathlib.Path | None = None,
  vision: str = '',
) -> dict[str, Source]:
  """Returns the buckets' samples: 'audio' or 'latents', 'frame_features' and 'caption'.

  Those of 'audio' have their 'video' yet where an encoder of frames has to see it.

  Args:
    data: with `latents`, what `launch.data encode` put there is read.
    report: where rejected clips are listed.
    vision: identity of the encoder of frames, or a name in `WAYS`.

  Raises:
    DataError: there is no usable data, or the latents are others.
  """
  if data.latents:
    stored = latent_sources(data, shapes, split)
    for name, records in stored.items():
      if (found := records.meta.get(VISION, '')) != vision:
        raise DataError(
          f'the latents of bucket {name!r} come with features of frames by the encoder '
          f'{found or "of pixels"}; config.vision names {vision or "that of pixels"}: mend it, or '
          'encode the data again with launch.data encode'
        )
    return dict(stored)
  sources = make_audio_sources(data, shapes, split, report, CAPTIONS)
  rate = codec.latent_rate
  if vision not in WAYS:
    return sources
  return {
    name: WithFeatures(source, *WAYS[vision], data.fps, round(shapes[name].seconds * rate), rate)
    for name, source in sources.items()
  }


class WithFeatures:
  """Turns the pictures of samples into features, as `see_samples` does, clip by clip."""

  def __init__(self, source: Source, *how: Any):
    self.source, self._how = source, how

  @property
  def fingerprint(self) -> Any:
    """That of the source."""
    return getattr(self.source, 'fingerprint', None)

  def every_caption(self) -> Iterator[dict[str, Any]] | None:
    """Yields those of the source."""
    return captions_of(self.source)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    (sample,) = see_samples([self.source[index]], *self._how)
    return sample


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration; of a codec that is not there, the report's."""
  flow = AudioSettings.of(config.to_dict()).flow

  def sizes(codec: Codec, name: str) -> Sizes:
    frames = check_length(flow.model, codec, flow.shapes[name].seconds, f'bucket {name!r}')
    return (frames, 1, 1), (frames, 1, 1, codec.latent_channels)

  return make_flow_outline(flow, make_codec, Codec(), sizes)


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns whole audio clips into latents."""
  settings = AudioSettings.of(config.to_dict())
  flow, vision = settings.flow, settings.seen_by
  shapes = flow.shapes
  conditionings = flow.model.conditionings
  codec = load_audio_codec(flow.autoencoder)
  see = None if vision in WAYS else FrameEncoder(settings.vision)
  read = condition_fields(conditionings, (1, 1, 1), (1, 1, 1, 1)).get(FRAME_FEATURES, (1, 0))[-1]
  if see is not None and see.width != read:
    raise ConfigError(
      f'the encoder of frames at {settings.vision!r} gives {see.width} features a frame, and the '
      f'model reads {read}; mend config.vision, or the features of its frame_features conditioning'
    )

  def complete(samples: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    if see is None:
      return samples
    count = round(len(samples[0]['audio']) / codec.rate * codec.latent_rate)
    return see_samples(samples, see, see.width, flow.data.fps, count, codec.latent_rate)

  def sources(data: DataSettings, split: str, report: pathlib.Path | None) -> dict[str, Source]:
    return make_audio_samples(data, shapes, codec, split, report, vision)

  def encode(sounds: Sequence[Any], put: Callable[[np.ndarray], Any]):
    check_same_shape(sounds)
    yield codec.encode(put(np.stack(sounds)))

  def latents(name: str) -> tuple[int, ...]:
    return math.ceil(shapes[name].seconds * codec.latent_rate), codec.model.latent_channels

  return EncodePlan(
    conditionings=conditionings,
    raw='audio',
    autoencoder=codec.fingerprints[-2],  # of the first run with this encoder
    statistics=codec.statistics.as_dict(),
    make_sources=sources,
    encode=encode,
    about=lambda name: _about(shapes[name], conditionings, codec, vision),
    tile=lambda name: (round(shapes[name].seconds * codec.rate),),
    latents=latents,
    complete=complete,
  )
