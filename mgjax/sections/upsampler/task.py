"""Trains the spatial upsampler and encodes its data (Movie Gen §3.1.5)."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import Fraction, Magnitude, Positive, Range, check, fields_of, unpack
from mgjax.core.typing import Tree, UInt8
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.buckets import Shape
from mgjax.data.media import compression
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.settings import DataSettings
from mgjax.data.source import Source
from mgjax.data.sources import make_sources
from mgjax.models.conditioning.clips.low_resolution import KEY
from mgjax.models.flow_model.conditions import prepare_samples
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.models.flow_model.model import grow
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.latents import LatentCodec
from mgjax.parallel.distributed import fetch
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.flow.task import (
  FlowSettings,
  about_videos,
  make_flow_spec,
  make_video_encode_plan,
  make_video_outline,
)
from mgjax.sections.upsampler.degradation import SMALL, Degraded
from mgjax.sections.upsampler.geometry import Windows
from mgjax.sections.upsampler.recipe import Degradation, describe
from mgjax.training.spec import EncodePlan, Outline, TrainSpec

SHOWN = 4  # samples in a picture
DEGRADED = 16  # in the picture of degraded samples
SHEET = 'degraded.png'


@dataclasses.dataclass(frozen=True)
class Pairs:
  """`config.pairs`: how a clip becomes a low-resolution one.

  Attributes:
    scale: of the sides, the clip's over the low-resolution one's; 2 in the report.
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
  def of(cls, fields: Mapping[str, Any]) -> 'Pairs':
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
      jpeg=compression.jpeg,
      video_codec=compression.video_codec,
    )

  def about(self) -> dict[str, Any]:
    """Returns what latents depend on, as plain JSON values."""
    return {'pairs': dataclasses.asdict(self)}


def make_pairs(
  pairs: Pairs, seed: int, data: DataSettings, shapes: Mapping[str, Shape], split: str, report: Any
) -> dict[str, Source]:
  """Makes the sources of the buckets' clips, each sample with its 'low_resolution'.

  Beside the report of what was rejected it draws some of them, once.
  """
  found = make_sources(data, shapes, split, report)
  if data.latents:
    return found
  which = 2 * seed + (split != 'train')  # so that validation is degraded otherwise
  made = {name: pairs.degraded(source, which) for name, source in found.items()}
  if split == 'train' and report is not None and jax.process_index() == 0:
    sheet = pathlib.Path(report).with_name(SHEET)
    if not sheet.exists():
      write_degraded(sheet, next(iter(made.values())))
  return dict(made)


def write_degraded(path: pathlib.Path, source: Degraded) -> None:
  """Draws degraded clips below what was done to each."""
  indices = np.unique(np.linspace(0, len(source) - 1, DEGRADED).astype(int)).tolist()
  titles = [describe(source.recipe(index)) for index in indices]
  contact_sheet(path, [source.small(index) for index in indices], titles)


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: latents of clips, and of them degraded, in, velocities out."""
  fields = config.to_dict()
  settings = FlowSettings.of(fields)
  pairs = Pairs.of(fields_of(fields, 'pairs'))
  Windows.of(fields)
  model, shapes = settings.model, settings.shapes
  codec = load_codec(settings.autoencoder)
  for shape in shapes.values():
    check_shape(model.backbone, codec.model, (shape.frames, *shape.size))
  if pairs.reconstructed and not settings.data.latents:
    raise ConfigError(
      f'pairs.reconstructed = {pairs.reconstructed:g} needs clips that launch.data encode made; '
      'give data.latents, or take pairs.reconstructed = 0'
    )

  def show(generate, bucket: ShapeBucket, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    shape = shapes[bucket.name]
    source = bucket.source
    samples = [source[index] for index in range(min(SHOWN, len(source)))]
    batch = prepare_samples(model, samples, codec.encode)
    noise = draw_noise(
      settings.seed, np.arange(len(samples)), codec.latent_shape((shape.frames, *shape.size))
    )
    batch, noise = fetch((batch, noise))
    made = fetch(codec.decode(generate(params, batch, noise), shape.frames))
    truth = 'latents' if 'latents' in samples[0] else 'video'
    shown = [_clip(codec, [sample[name] for sample in samples]) for name in (KEY, truth)]
    path = directory / 'samples.png'
    if jax.process_index() == 0:
      rows = [row for three in zip(shown[0], made, shown[1], strict=True) for row in three]
      titles = [
        f'{title}: {sample["caption"]}'
        for sample in samples
        for title in ('input', 'upsampled', 'truth')
      ]
      contact_sheet(path, rows, titles)
    return path

  return make_flow_spec(
    settings,
    workdir,
    codec=codec,
    raw='video',
    show=show,
    starts=('video',),
    make_sources=functools.partial(make_pairs, pairs, settings.seed, settings.data, shapes),
    about=lambda name: about_videos(shapes[name], model.conditionings, codec) | pairs.about(),
    adapt=lambda params: grow(params, model.backbone.positions),
  )


def _clip(codec: LatentCodec, clips: Sequence[np.ndarray]) -> UInt8[np.ndarray, 'b t h w 3']:
  """Returns clips that are latents as pixels."""
  stacked = np.stack(clips)
  if stacked.dtype == np.uint8:
    return stacked
  return fetch(codec.decode(jax.numpy.asarray(stacked, jax.numpy.float32)))


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration; of an autoencoder that is not there, an image model."""
  fields = config.to_dict()
  Pairs.of(fields_of(fields, 'pairs'))
  Windows.of(fields)
  default = Autoencoder(temporal=False, strides=((1, 2, 2),) * 3)
  return make_video_outline(FlowSettings.of(fields), default)


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns clips and degraded clips into latents."""
  fields = config.to_dict()
  settings = FlowSettings.of(fields)
  pairs = Pairs.of(fields_of(fields, 'pairs'))
  complete = make_reconstruct(pairs) if pairs.reconstructed else lambda samples: samples
  sources = functools.partial(make_pairs, pairs, settings.seed)
  return make_video_encode_plan(settings, sources, pairs.about(), complete)


def make_reconstruct(pairs: Pairs):
  """Makes the `complete` of an `EncodePlan`: the temporal autoencoder's reconstructions.

  Samples of shrunk clips get them, enlarged, as their low-resolution clips: what text-to-video
  models make has the artefacts of their autoencoder (Movie Gen §3.1.5), and with `pairs.noise` of
  latents that are not quite right.
  """
  codec = load_codec(pairs.temporal_autoencoder)

  def complete(samples: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return [finished(sample) if SMALL in sample else sample for sample in samples]

  def finished(sample: Mapping[str, Any]) -> dict[str, Any]:
    small = sample[SMALL]
    size = sample['video'].shape[1:3]
    latents = codec.encode(small[None])
    if pairs.noise:
      # By the clip itself: the same in whatever batch and process it is encoded.
      drawn = np.random.default_rng(list(hashlib.sha256(small.tobytes()).digest()))
      level = drawn.uniform(0, pairs.noise)
      latents += level * drawn.standard_normal(latents.shape, np.float32)
    again = np.asarray(codec.decode(latents, len(small), size=small.shape[1:3]))[0]
    return {**sample, KEY: resize(again, size, 'bilinear')}

  return complete
