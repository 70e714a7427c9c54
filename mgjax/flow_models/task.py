"""What every flow model trains on: latents of an autoencoder, read or encoded on the fly."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.checkpoints.warm_start import make_start, parse_sources
from mgjax.checkpoints.workdir import load_params, open_checkpoints, read_config
from mgjax.conditioning.contract import Conditioning
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.core.typing import Array, Batch, Objective, Tree
from mgjax.data.buckets import Shape
from mgjax.data.mixture import ShapeBucket
from mgjax.data.records.reader import Records
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.data.source import Source
from mgjax.data.sources import check_same_shape
from mgjax.flow_models.build import (
  check_learnt,
  check_records,
  make_flops,
  make_flow_model,
  make_objectives,
  make_players,
  make_sampler_of,
)
from mgjax.flow_models.conditions import (
  LATENTS,
  clip_shapes,
  encode_clips,
  encoded_names,
  row_of,
  small_inputs,
)
from mgjax.flow_models.model import FlowModel
from mgjax.flow_models.prompts import study_captions
from mgjax.flow_models.settings import ObjectiveSettings, SampleSettings
from mgjax.flow_models.shape import check_shape
from mgjax.parallel.rules import ambient
from mgjax.parallel.shard import make_place
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.tae.latents import LatentCodec
from mgjax.tae.pipeline import load_codec
from mgjax.tae.tiling import Frames, regroup
from mgjax.text.embeddings import TextSettings, stored_encoders, with_embeddings
from mgjax.text.vocabulary import Vocabulary, words_in
from mgjax.training.settings import BucketSettings, adversary_settings, bucket_settings
from mgjax.training.spec import (
  Adversary,
  EncodePlan,
  MakeSources,
  Outline,
  TrainSpec,
  longest_of,
  make_buckets,
)

Sizes = tuple[tuple[int, ...], tuple[int, ...]]  # of a sample (t h w), of its latents (t h w c)
_READ = 2**30  # bytes of records that keep no captions apart
# Arguments: `generate(params, batch, noise)`, a bucket, parameters, where to write.
Show = Callable[[Callable[..., Array], ShapeBucket, Tree, pathlib.Path], pathlib.Path]


@dataclasses.dataclass(frozen=True)
class FlowSettings:
  """All that the training of a flow model reads of a configuration beside `model`.

  Attributes:
    objective: which times training draws, what it drops.
    sample: how pictures and sounds are made during training.
    data: what it learns from.
    buckets: how many samples come at once, by name.
    text: the frozen encoders whose embeddings it reads.
  """

  objective: ObjectiveSettings
  sample: SampleSettings
  data: DataSettings
  buckets: Mapping[str, BucketSettings]
  text: TextSettings

  @classmethod
  def of(cls, config: Mapping[str, Any]) -> 'FlowSettings':
    """Reads a configuration as a plain dictionary, and nothing else: no data, no weights.

    Raises:
      ConfigError: a field is unknown, missing or out of its range.
    """
    data = data_settings(fields_of(config, 'data'))
    return cls(
      unpack(ObjectiveSettings, fields_of(config, 'objective'), 'objective'),
      unpack(SampleSettings, fields_of(config, 'sample'), 'sample'),
      data,
      bucket_settings(fields_of(config, 'buckets'), data),
      TextSettings.of(config),
    )


def make_flow_spec(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  model: FlowModel,
  settings: FlowSettings,
  codec: Any,
  raw: str,
  make_sources: MakeSources,
  about: Callable[[str], dict[str, Any]],
  show: Show,
  starts: Sequence[str] = (),
  as_video: Callable[[Array], Array] = lambda latents: latents,
  wrap: Callable[[Objective, Objective], tuple[Objective, Objective]] = lambda *both: both,
  adapt: Callable[[Tree], Tree] = lambda params: params,
  encoders: Mapping[str, str] | None = None,
) -> TrainSpec:
  """Makes the `TrainSpec` of a flow model.

  Args:
    config: of the run.
    workdir: of the run.
    model: that `config.model` describes.
    settings: the rest of what `config` says.
    codec: its autoencoder, with `encode`, `statistics` and `model.latent_channels`.
    raw: the field of a sample that the codec encodes, where there are no latents yet.
    make_sources: of the training and validation data: records of latents, or what `raw` names.
    about: bucket -> what its latents depend on beside the data and the codec.
    show: writes samples for the longest validation bucket.
    starts: components beside its own that `config.start_from` may have trained.
    as_video: brings latents as stored into the form (b t h w c).
    wrap: changes the objectives of training and validation.
    adapt: is applied to parameters of `config.start_from`.
    encoders: identities of the frozen encoders that it reads beside those of text, by name.
  """
  statistics, words = codec.statistics.as_dict(), Vocabulary()
  for source in parse_sources(config.start_from).values():
    if record := open_checkpoints(source.workdir).newest_record():
      words.add(words_in(record['meta']['notes']))

  def checked(split: str, report: pathlib.Path) -> Mapping[str, Source]:
    found = make_sources(split, report)
    for name, source in found.items():
      if isinstance(source, Records):
        check_records(source.meta, {'statistics': statistics, **about(name)}, name)
    if split == 'train':
      words.add(study_captions(map(captions_of, found.values()), model.conditionings))
    return found

  transform = functools.partial(row_of, model.conditionings, raw)
  sources = with_embeddings(settings.text, checked)
  shapes, share = settings.buckets, settings.data.share
  buckets, validation = make_buckets(shapes, workdir, sources, transform, share=share)

  clips = (LATENTS, *encoded_names(model.conditionings))

  def prepare(batch: Batch) -> Batch:
    batch = encode_clips(batch, raw, codec.encode)
    latents = {
      name: as_video(jnp.asarray(batch[name], jnp.float32)) for name in clips if name in batch
    }
    return batch | latents

  objective, validate = wrap(*make_objectives(settings.objective, model))
  identities = {**stored_encoders(settings.text), **(encoders or {})}
  learnt = {'latents': statistics, 'encoders': identities}

  def check(notes: dict[str, Any]) -> None:
    check_learnt(config.autoencoder, learnt, notes)
    words.add(words_in(notes))  # data may be new, and of an older run nobody knows what it was

  generate = make_sampler_of(settings.sample, settings.objective, model)
  inputs = small_inputs(model, codec.model.latent_channels)
  return TrainSpec(
    model=model,
    inputs=inputs,
    objective=objective,
    validate=validate,
    buckets=buckets,
    validation=validation,
    prepare=prepare,
    show=functools.partial(show, generate, longest_of(validation, shapes)),
    notes=lambda params: learnt | words.notes(),
    check=check,
    flops=make_flops(model),
    start=make_start(config.start_from, config.component, adapt, starts),
    frozen=_read_teacher(settings.objective.teacher, model, inputs),
    discriminator=make_critic(config, settings.objective, model, inputs, (adapt, starts)),
  )


def make_critic(
  config: ConfigDict,
  objective: ObjectiveSettings,
  model: FlowModel,
  inputs: tuple[Any, ...],
  taken: tuple[Callable[[Tree], Tree], Sequence[str]] = (lambda params: params, ()),
) -> Adversary | None:
  """Makes the second player of distribution matching, a model as its teacher; None without.

  Args:
    config: of the run; its `discriminator` says how the critic learns.
    objective: of the run.
    model: of the student.
    inputs: of `model.init`.
    taken: `adapt` and `starts` of `make_flow_spec`.
  """
  players = make_players(objective, model)
  if players is None:
    return None
  settings, others = adversary_settings(fields_of(config, 'discriminator'))
  if others:
    raise ConfigError(
      f'discriminator has {sorted(others)}; the critic is a network as its teacher: give its '
      "'optimizer' alone"
    )
  return Adversary(
    model=model,
    inputs=inputs,
    generator_objective=players[0],
    objective=players[1],
    optimizer=settings.optimizer,
    start=settings.start,
    begin=make_start(objective.teacher, config.component, *taken),
  )


def _read_teacher(teacher: str, model: FlowModel, inputs: tuple[Any, ...]) -> Tree:
  """Returns the parameters of whom the model learns from, if anybody, on devices of the mesh."""
  if not teacher:
    return None
  boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  mesh = ambient()
  place = None if mesh is None else make_place(boxed, jax.sharding.get_mesh())
  return load_params(teacher, place=place)[0]


def captions_of(source: Any) -> Iterator[dict[str, Any]] | None:
  """Returns {'caption'} of a source's samples, and 'fps' if they have one; None if it is costly."""
  if hasattr(source, 'every_caption'):
    return source.every_caption()
  return source.cheap_captions(_READ) if isinstance(source, Records) else None


def make_flow_outline(
  config: ConfigDict,
  make_codec: Callable[[dict[str, Any]], Any],
  default: Any,
  sizes: Callable[[FlowModel, Any, str], Sizes],
) -> Outline:
  """Returns the model of a configuration.

  Args:
    config: of a run.
    make_codec: the fields of `config.model` of its autoencoder -> that.
    default: the report's, which stands in for one that is not trained yet.
    sizes: model, autoencoder, name of a bucket -> sizes of its samples; raises ConfigError if the
      model cannot have them.
  """
  model, codec, notes = make_flow_model(fields_of(config, 'model')), default, []
  settings = FlowSettings.of(config.to_dict())
  make_objectives(settings.objective, model)
  make_sampler_of(settings.sample, settings.objective, model)
  critic = make_critic(config, settings.objective, model, ())
  if settings.objective.teacher:
    others = 'the teacher, and a critic that learns too' if critic else 'the teacher'
    notes.append(f'note: what is counted is the student alone; beside it there is {others}')
  try:
    codec = make_codec(fields_of(read_config(config.autoencoder), 'model'))
  except ConfigError:
    notes.append(
      f'note: no autoencoder at {config.autoencoder!r}; latents of {codec.latent_channels} channels'
    )
  samples = lambda: {name: sizes(model, codec, name) for name in config.buckets}  # noqa: E731
  return Outline(model, small_inputs(model, codec.latent_channels), notes, samples)


def make_video_outline(config: ConfigDict, default: Autoencoder) -> Outline:
  """Returns the model of a configuration of videos, as `make_flow_outline`."""
  fps = data_settings(fields_of(config, 'data')).fps
  shapes = video_shapes(fields_of(config, 'buckets'), fps)

  def sizes(model: FlowModel, codec: Autoencoder, name: str) -> Sizes:
    shape = (shapes[name].frames, *shapes[name].size)
    check_shape(model.backbone, codec, shape)
    return shape, codec.latent_shape(shape)

  return make_flow_outline(config, make_autoencoder, default, sizes)


def about_videos(
  shape: Shape, conditionings: Sequence[Conditioning], codec: LatentCodec
) -> dict[str, Any]:
  """Returns what latents of videos depend on beside the data and the autoencoder."""
  clips = clip_shapes(conditionings, codec.latent_shape((shape.frames, *shape.size)))
  return {'shape': [shape.frames, *shape.size], 'fps': list(shape.fps), **clips}


def make_video_encode_plan(
  config: ConfigDict,
  make_sources: Callable[..., Mapping[str, Source]],
  about: Mapping[str, Any] = {},
  complete: Callable[..., Sequence[dict[str, Any]]] = lambda samples: samples,
) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns clips into latents, tile by tile.

  Args:
    config: of the run.
    make_sources: `(data, shapes, split, report) -> {bucket: source}` of clips.
    about: what else latents depend on, as plain JSON values.
    complete: of an `EncodePlan`.
  """
  codec = load_codec(config.autoencoder)
  conditionings = make_flow_model(fields_of(config, 'model')).conditionings
  shapes = video_shapes(fields_of(config, 'buckets'), config.data.fps)
  return EncodePlan(
    conditionings=conditionings,
    raw='video',
    statistics=codec.statistics.as_dict(),
    make_sources=lambda data, split, report: make_sources(data, shapes, split, report),
    encode=make_encode(codec),
    about=lambda name: about_videos(shapes[name], conditionings, codec) | dict(about),
    tile=lambda name: (min(shapes[name].frames, codec.tiling.frames), *shapes[name].size),
    latents=lambda name: codec.latent_shape((shapes[name].frames, *shapes[name].size)),
    complete=complete,
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
