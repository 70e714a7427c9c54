"""Trains text-to-video models and encodes their data (Movie Gen §3.1.2-3.1.4)."""

import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.typing import Array, Tree
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.buckets import Shape
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.viewing import write_clip
from mgjax.data.settings import DataSettings
from mgjax.data.source import Source
from mgjax.data.sources import check_same_shape, make_sources
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.flow_model.conditions import clip_shapes, prepare_samples
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.models.flow_model.model import grow
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.latents import LatentCodec
from mgjax.models.tae.tiling import FrameArray, regroup
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.models.wan.transformer import WanTransformer
from mgjax.parallel.distributed import fetch
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.flow.section import FlowSection, Sizes

_Samples = Sequence[dict[str, Any]]


class VideoSection(FlowSection):
  """Maps latents of videos and the model's conditions to velocities.

  Attributes:
    sheet_samples: samples in a picture.
  """

  raw = 'video'
  load_codec = staticmethod(load_codec)
  make_codec = staticmethod(make_autoencoder)
  sheet_samples: ClassVar[int] = 8

  def stand_in(self) -> Autoencoder | WanAutoencoder:
    backbone = self.settings.model.backbone
    if not isinstance(backbone, WanTransformer):
      return Autoencoder()
    channels = backbone.channels_out
    # That of 2.2 has 48 channels, and cuts pixels into patches first.
    return WanAutoencoder(latent_channels=channels, patch=2 if channels == 48 else 1)

  def sizes(self, codec: Autoencoder | WanAutoencoder, bucket: str) -> Sizes:
    shape = _thw(self.settings.shapes[bucket])
    check_shape(self.settings.model.backbone, codec, shape)
    return shape, codec.latent_shape(shape)

  def sources(
    self, data: DataSettings, split: str, report: pathlib.Path | None
  ) -> Mapping[str, Source]:
    return make_sources(data, self.settings.shapes, split, report)

  def about(self, bucket: str) -> JSON:
    settings = self.settings
    return about_videos(settings.shapes[bucket], settings.model.conditionings, self.codec)

  def adapt(self, params: Tree) -> Tree:
    return grow(params, self.settings.model.backbone.positions)

  def show(
    self, generate: Callable[..., Array], bucket: ShapeBucket, params: Tree, directory: pathlib.Path
  ) -> pathlib.Path:
    shape = self.settings.shapes[bucket.name]
    count = min(self.sheet_samples, len(bucket.source))
    samples = [bucket.source[index] for index in range(count)]
    batch = prepare_samples(self.settings.model, samples, self.codec.encode)
    latents = self.codec.latent_shape(_thw(shape))
    noise = draw_noise(self.settings.seed, np.arange(count), latents)
    batch, noise = fetch((batch, noise))  # on every host the same
    videos = fetch(self.codec.decode(generate(params, batch, noise), shape.frames))
    return self.draw(samples, videos, directory)

  def draw(self, samples: _Samples, videos: np.ndarray, directory: pathlib.Path) -> pathlib.Path:
    """Writes a picture of the first process of videos (b t h w 3) made of samples' conditions."""
    path = directory / 'samples.png'
    if jax.process_index() > 0:
      return path
    contact_sheet(path, list(videos), [sample['caption'] for sample in samples])
    if videos.shape[1] > 1:
      for index, video in enumerate(videos):
        rate = samples[index].get('fps', self.settings.data.fps)
        write_clip(directory / f'{index:03d}.mp4', video, rate)
    return path

  def encode(
    self, clips: Sequence[Any], put: Callable[[np.ndarray], Array]
  ) -> Iterator[np.ndarray]:
    return encode_videos(self.codec, clips, put)

  def tile(self, bucket: str) -> tuple[int, ...]:
    shape = self.settings.shapes[bucket]
    return min(shape.frames, self.codec.tiling.frames), *shape.size


def about_videos(shape: Shape, conditionings: Sequence[Conditioning], codec: LatentCodec) -> JSON:
  """Returns what latents of videos depend on beside the data and the autoencoder."""
  clips = clip_shapes(conditionings, codec.latent_shape(_thw(shape)))
  return {'shape': [shape.frames, *shape.size], 'fps': list(shape.fps), **clips}


def encode_videos(
  codec: LatentCodec, videos: Sequence[Any], put: Callable[[np.ndarray], Array]
) -> Iterator[np.ndarray]:
  """Yields latents of one tile of time after another; see `FlowSection.encode`.

  A video is an array (t h w 3), or an iterable of such arrays, its chunks one after another. Then
  no more of it is held than one tile of time of each row, however long it is.
  """
  return codec.encode_stream(map(put, _tiles(videos, codec.tiling.frames)))


def _thw(shape: Shape) -> tuple[int, int, int]:
  return shape.frames, *shape.size


def _tiles(videos: Sequence[object], frames: int) -> Iterator[np.ndarray]:
  """Yields tiles of time (b t h w 3) of rows that are arrays or iterables of chunks (t h w 3)."""
  rows = [regroup(_chunks(video), frames) for video in videos]
  for tiles in itertools.zip_longest(*rows):
    check_same_shape(tiles)
    yield np.concatenate(tiles)


def _chunks(video: Any) -> Iterator[FrameArray]:
  for chunk in [video] if isinstance(video, np.ndarray) else video:
    yield chunk[None]
