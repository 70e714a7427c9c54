"""Trains audio models and encodes their data (Movie Gen §6)."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import arguments, fields_of
from mgjax.core.typing import Array, Objective, Sample, Tree
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.ingest.entries import Captions
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.settings import DataSettings, audio_shapes
from mgjax.data.source import Source
from mgjax.data.sources import check_same_shape, latent_sources
from mgjax.models.codec.model import Codec, make_codec
from mgjax.models.conditioning.frame_features import FRAME_FEATURES_KEY as FRAME_FEATURES
from mgjax.models.flow_model.conditions import clip_shapes, condition_fields, prepare_samples
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.parallel.distributed import fetch
from mgjax.sections.audio.captions import CAPTION_COLUMNS, caption_of_row
from mgjax.sections.audio.frame_features import FRAME_ENCODERS, see_samples
from mgjax.sections.audio.length import VISION, as_video, check_length
from mgjax.sections.audio.masking import make_masked_objective
from mgjax.sections.clip.pipeline import FrameEncoder, tower_identity
from mgjax.sections.codec.pipeline import load_audio_codec
from mgjax.sections.flow.section import FlowSection, Sizes, captions_of

_SHOWN = 4  # samples in a picture
CAPTIONS = Captions(CAPTION_COLUMNS, caption_of_row)


class AudioSection(FlowSection):
  """Latents of audio, read or encoded on the fly, and conditions in, velocities out.

  Attributes:
    masking: how spans of its context are hidden, arguments of `make_masked_objective`.
    vision: the work directory of the encoder of frames, or what needs none: '' where their pixels
      are the features, 'motion' where it is how they move, too.
  """

  raw = 'audio'
  load_codec = staticmethod(load_audio_codec)
  make_codec = staticmethod(make_codec)
  shapes = staticmethod(lambda buckets, fps: audio_shapes(buckets))

  def __init__(self, config: ConfigDict):
    super().__init__(config)
    fields = config.to_dict()
    masking = fields_of(fields, 'masking')
    self.masking = arguments(make_masked_objective, masking, 'masking', ('objective',))
    self.vision = fields.get(VISION) or ''
    if self.vision and VISION in self.settings.text.encoders:
      raise ConfigError(f'config.text.{VISION}: an encoder of text needs another name')

  @functools.cached_property
  def seen_by(self) -> str:
    """The frame encoder's name in `FRAME_ENCODERS`, or its identity; ConfigError without one."""
    return self.vision if self.vision in FRAME_ENCODERS else tower_identity(self.vision)

  def check(self) -> None:
    if self.seen_by not in FRAME_ENCODERS and not self.settings.data.latents:
      raise ConfigError(
        'the model reads features of frames by the encoder that config.vision names, and '
        'config.data.latents is empty: let launch.data encode make both, and name its directory '
        'there'
      )
    super().check()

  def stand_in(self) -> Codec:
    return Codec()

  def sizes(self, codec: Codec, bucket: str) -> Sizes:
    settings = self.settings
    seconds = settings.shapes[bucket].seconds
    frames = check_length(settings.model, codec, seconds, f'bucket {bucket!r}')
    return (frames, 1, 1), (frames, 1, 1, codec.latent_channels)

  def about(self, bucket: str) -> JSON:
    seconds = self.settings.shapes[bucket].seconds
    latents = (self._latents(bucket), 1, 1, self.codec.model.latent_channels)
    seen = {VISION: self.seen_by} if self.seen_by else {}
    return {'seconds': seconds, **clip_shapes(self.settings.model.conditionings, latents), **seen}

  def _latents(self, bucket: str) -> int:
    return round(self.settings.shapes[bucket].seconds * self.codec.latent_rate)

  def as_video(self, latents: Array) -> Array:
    return as_video(latents)

  def objective(self) -> Objective:
    return make_masked_objective(super().objective(), **self.masking)

  def encoders(self) -> dict[str, str]:
    return {} if self.seen_by in FRAME_ENCODERS else {VISION: self.seen_by}

  def sources(
    self, data: DataSettings, split: str, report: pathlib.Path | None
  ) -> Mapping[str, Source]:
    """Returns the buckets' samples: 'audio' or 'latents', 'frame_features' and 'caption'.

    Those of 'audio' have their 'video' yet where an encoder of frames has to see it.
    Raises DataError if there is no usable data, or the latents are others.
    """
    shapes, vision = self.settings.shapes, self.seen_by
    if data.latents:
      stored = latent_sources(data, shapes, split)
      for name, records in stored.items():
        if (encoder := records.meta.get(VISION, '')) != vision:
          raise DataError(
            f'the latents of bucket {name!r} come with features of frames by the encoder '
            f'{encoder or "of pixels"}; config.vision names {vision or "that of pixels"}: mend it, '
            'or encode the data again with launch.data encode'
          )
      return dict(stored)
    if vision not in FRAME_ENCODERS:
      self._check_width()
    sources = make_audio_sources(data, shapes, split, report, CAPTIONS)
    if vision not in FRAME_ENCODERS:
      return sources
    rate = self.codec.latent_rate
    return {
      name: WithFeatures(source, *FRAME_ENCODERS[vision], data.fps, self._latents(name), rate)
      for name, source in sources.items()
    }

  def show(
    self, generate: Callable[..., Array], bucket: ShapeBucket, params: Tree, directory: pathlib.Path
  ) -> pathlib.Path:
    codec = self.codec
    samples = [bucket.source[index] for index in range(min(_SHOWN, len(bucket.source)))]
    shape = (self._latents(bucket.name), 1, 1, codec.model.latent_channels)
    noise = draw_noise(self.settings.seed, np.arange(len(samples)), shape)
    encode = lambda sounds: as_video(codec.encode(sounds))  # noqa: E731
    batch = prepare_samples(self.settings.model, samples, encode)
    batch, noise = fetch((batch, noise))
    sounds = fetch(codec.decode(generate(params, batch, noise)[:, :, 0, 0]))
    path = directory / 'samples.png'
    if jax.process_index() == 0:
      audio_sheet(path, list(sounds), [sample['caption'] for sample in samples], codec.rate)
      for index, sound in enumerate(sounds):
        write_wav(directory / f'{index:03d}.wav', sound, codec.rate)
    return path

  def encode(self, clips: Sequence[Any], put: Callable[[np.ndarray], Array]) -> Iterator[Any]:
    check_same_shape(clips)
    yield self.codec.encode(put(np.stack(clips)))

  def tile(self, bucket: str) -> tuple[int, ...]:
    return (round(self.settings.shapes[bucket].seconds * self.codec.rate),)

  def complete(self, samples: Sequence[Sample]) -> Sequence[Sample]:
    """Lets the encoder of frames, if there is one, see the samples' pictures."""
    if self.seen_by in FRAME_ENCODERS:
      return samples
    see, codec = self._see, self.codec
    count = round(len(samples[0]['audio']) / codec.rate * codec.latent_rate)
    return see_samples(samples, see, see.width, self.settings.data.fps, count, codec.latent_rate)

  @functools.cached_property
  def _see(self) -> FrameEncoder:
    return FrameEncoder(self.vision)

  def _check_width(self) -> None:
    fields = condition_fields(self.settings.model.conditionings, (1, 1, 1), (1, 1, 1, 1))
    read = fields.get(FRAME_FEATURES, (1, 0))[-1]
    if self._see.width != read:
      raise ConfigError(
        f'the encoder of frames at {self.vision!r} gives {self._see.width} features a frame, and '
        f'the model reads {read}; mend config.vision, or the features of its frame_features '
        'conditioning'
      )


class WithFeatures:
  """Turns the pictures of samples into features, as `see_samples` does, clip by clip."""

  def __init__(self, source: Source, *how: Any):
    self.source, self._how = source, how

  @property
  def fingerprint(self) -> object:
    """That of the source."""
    return getattr(self.source, 'fingerprint', None)

  def every_caption(self) -> Iterator[Sample] | None:
    """Yields those of the source."""
    return captions_of(self.source)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Sample:
    (sample,) = see_samples([self.source[index]], *self._how)
    return sample
