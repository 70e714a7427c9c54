"""Trains the spatial upsampler and encodes its data (Movie Gen §3.1.5)."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import Fraction, Magnitude, Positive, Range, check, fields_of, unpack
from mgjax.core.typing import Sample, UInt8
from mgjax.data.media import compression
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.settings import DataSettings
from mgjax.data.source import Source
from mgjax.models.conditioning.clips.low_resolution import LOW_RESOLUTION_KEY
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.latents import LatentCodec
from mgjax.parallel.distributed import fetch
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.upsampler.degradation import SMALL, Compressors, Degraded
from mgjax.sections.upsampler.geometry import Windows
from mgjax.sections.upsampler.recipe import Degradation, describe_degradation
from mgjax.sections.video.section import VideoSection

DEGRADED = 16  # in the picture of degraded samples
SHEET = 'degraded.png'


@dataclasses.dataclass(frozen=True)
class Pairs:
  """`config.pairs`: how a clip becomes a low-resolution one.

  Attributes:
    scale: of the sides, the clip's over the low-resolution one's; 2 in the paper.
    variants: how many degraded versions of a clip there are.
    degradation: what is done to them.
    temporal_autoencoder: work directory of the one whose reconstructions some of them are, '' for
      none: `launch.data encode` makes them.
    reconstructed: the fraction of them. Not in public sources.
    noise: of the latents of a reconstruction, up to so many deviations: samples of text to video
      are rougher than reconstructions, with seams where tokens disagree. Not in public sources.
  """

  scale: Annotated[float, Range(least=1, most=16)] = 2.0
  variants: Positive = 1
  degradation: Degradation = dataclasses.field(default_factory=Degradation)
  temporal_autoencoder: str = ''
  reconstructed: Fraction = 0.0
  noise: Magnitude = 0.0

  def __post_init__(self):
    check(self)
    for name in ('first', 'second'):
      codecs = getattr(self.degradation, name).codecs
      if unknown := sorted(set(codecs) - set(compression.CODECS)):
        known = ', '.join(compression.CODECS)
        raise ConfigError(
          f'pairs.degradation.{name}.codecs has {unknown[0]!r}; expected some of {known}'
        )
    if self.reconstructed and not self.temporal_autoencoder:
      raise ConfigError(
        f'pairs.reconstructed = {self.reconstructed:g}, and pairs.temporal_autoencoder is empty; '
        'name the work directory of one, or take 0'
      )

  @classmethod
  def of(cls, fields: Fields) -> 'Pairs':
    """Makes it of the fields of a configuration's `pairs`."""
    return unpack(cls, fields, 'pairs')

  def degraded(self, source: Source, seed: int) -> Degraded:
    """Returns a source of clips with their low-resolution versions."""
    return Degraded(
      source,
      self.degradation,
      scale=self.scale,
      variants=self.variants,
      seed=seed,
      reconstructed=self.reconstructed,
      compressors=Compressors(compression.jpeg, compression.video_codec),
    )


def write_degraded(path: pathlib.Path, source: Degraded) -> None:
  """Draws degraded clips below what was done to each."""
  indices = np.unique(np.linspace(0, len(source) - 1, DEGRADED).astype(int)).tolist()
  titles = [describe_degradation(source.recipe(index)) for index in indices]
  contact_sheet(path, [source.small(index) for index in indices], titles)


class UpsamplerSection(VideoSection):
  """Maps latents of clips and of their degraded versions to velocities."""

  starts = ('video',)
  sheet_samples = 4

  def __init__(self, config: ConfigDict):
    super().__init__(config)
    fields = config.to_dict()
    self.pairs = Pairs.of(fields_of(fields, 'pairs'))
    self.windows = Windows.of(fields)

  def check(self) -> None:
    super().check()
    if self.pairs.reconstructed and not self.settings.data.latents:
      raise ConfigError(
        f'pairs.reconstructed = {self.pairs.reconstructed:g} needs clips that launch.data encode '
        'made; give data.latents, or take pairs.reconstructed = 0'
      )

  def stand_in(self) -> Autoencoder:
    return Autoencoder(temporal=False, strides=((1, 2, 2),) * 3)

  def about(self, bucket: str) -> JSON:
    return super().about(bucket) | {'pairs': dataclasses.asdict(self.pairs)}

  def sources(
    self, data: DataSettings, split: str, report: pathlib.Path | None
  ) -> Mapping[str, Source]:
    """Returns clips, each with its 'low_resolution'.

    It draws some of them, degraded, beside the list of rejected clips, once.
    """
    sources = super().sources(data, split, report)
    if data.latents:
      return sources
    which = 2 * self.settings.seed + (split != 'train')  # so that validation is degraded otherwise
    degraded = {name: self.pairs.degraded(source, which) for name, source in sources.items()}
    if split == 'train' and report is not None and jax.process_index() == 0:
      sheet = report.with_name(SHEET)
      if not sheet.exists():
        write_degraded(sheet, next(iter(degraded.values())))
    return dict(degraded)

  def draw(
    self, samples: Sequence[Sample], videos: np.ndarray, directory: pathlib.Path
  ) -> pathlib.Path:
    """Writes a picture of inputs, outputs and ground truth."""
    truth = 'latents' if 'latents' in samples[0] else 'video'
    clips = [
      _clip(self.codec, [sample[name] for sample in samples])
      for name in (LOW_RESOLUTION_KEY, truth)
    ]
    path = directory / 'samples.png'
    if jax.process_index() == 0:
      rows = [row for three in zip(clips[0], videos, clips[1], strict=True) for row in three]
      titles = [
        f'{title}: {sample["caption"]}'
        for sample in samples
        for title in ('input', 'upsampled', 'truth')
      ]
      contact_sheet(path, rows, titles)
    return path

  def complete(self, samples: Sequence[Sample]) -> Sequence[Sample]:
    """Replaces some low-resolution clips by the temporal autoencoder's reconstructions.

    Samples of shrunk clips get them, enlarged: what text-to-video models make has the artefacts of
    their autoencoder (Movie Gen §3.1.5), and with `pairs.noise` of latents that are not quite
    right.
    """
    if not self.pairs.reconstructed:
      return samples
    return [self._reconstructed(sample) if SMALL in sample else sample for sample in samples]

  @functools.cached_property
  def _temporal(self) -> LatentCodec:
    return load_codec(self.pairs.temporal_autoencoder)

  def _reconstructed(self, sample: Fields) -> Sample:
    small = sample[SMALL]
    size = sample['video'].shape[1:3]
    latents = self._temporal.encode(small[None])
    if self.pairs.noise:
      # By the clip itself: the same in whatever batch and process it is encoded.
      drawn = np.random.default_rng(list(hashlib.sha256(small.tobytes()).digest()))
      level = drawn.uniform(0, self.pairs.noise)
      latents += level * drawn.standard_normal(latents.shape, np.float32)
    again = np.asarray(self._temporal.decode(latents, len(small), size=small.shape[1:3]))[0]
    return {**sample, LOW_RESOLUTION_KEY: resize(again, size, 'bilinear')}


def _clip(codec: LatentCodec, clips: Sequence[np.ndarray]) -> UInt8[np.ndarray, 'b t h w 3']:
  """Returns clips that are latents as pixels."""
  stacked = np.stack(clips)
  if stacked.dtype == np.uint8:
    return stacked
  return fetch(codec.decode(jax.numpy.asarray(stacked, jax.numpy.float32)))
