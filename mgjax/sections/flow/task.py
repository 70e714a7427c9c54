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

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.core.typing import Array, Batch, Objective, Tree
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.buckets import Shape
from mgjax.data.records.reader import Records
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.data.source import Source
from mgjax.data.sources import check_same_shape
from mgjax.models.conditioning.contract import Conditioning
from mgjax.models.flow_model.alignment import (
  NAME,
  Projector,
  align,
  make_features,
  without_projector,
)
from mgjax.models.flow_model.build import (
  check_learnt,
  check_records,
  make_discriminator,
  make_flops,
  make_flow_model,
  make_sampler_of,
)
from mgjax.models.flow_model.conditions import (
  LATENTS,
  clip_shapes,
  encode_clips,
  encoded_names,
  row_of,
  small_inputs,
)
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.objectives import Objectives, make_objectives
from mgjax.models.flow_model.prompts import study_captions
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.models.flow_model.shape import check_shape
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.latents import LatentCodec
from mgjax.models.tae.tiling import Frames, regroup
from mgjax.models.text.vocabulary import Vocabulary, words_in
from mgjax.parallel.rules import ambient
from mgjax.parallel.shard import make_place
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.clip.pipeline import make_patches
from mgjax.sections.text.embeddings import TextSettings, stored_encoders, with_embeddings
from mgjax.training.checkpoints.warm_start import make_start, parse_sources
from mgjax.training.checkpoints.workdir import load_params, open_checkpoints, read_config
from mgjax.training.settings import (
  AdversarySettings,
  BucketSettings,
  adversary_settings,
  bucket_settings,
)
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
  """All that the training of a flow model reads of a configuration beside `train`.

  Attributes:
    component: its name in `mgjax.registry`.
    seed: of the run.
    autoencoder: the work directory of the one whose latents it learns.
    start_from: where its first parameters come from; see `training.checkpoints.warm_start`.
    model: the module.
    objective: which times training draws, what it drops.
    objectives: what that makes of the model.
    critic: how the second player, a critic or a discriminator, learns; None without one.
    opponent: its network; None without one.
    sample: how pictures and sounds are made during training.
    data: what it learns from.
    buckets: how many samples come at once, by name.
    shapes: of the samples of each bucket, `Shape` of videos or `AudioShape` of sounds.
    text: the frozen encoders whose embeddings it reads.
  """

  component: str
  seed: int
  autoencoder: str
  start_from: Any
  model: FlowModel
  objective: ObjectiveSettings
  objectives: Objectives
  critic: AdversarySettings | None
  opponent: FlowModel | None
  sample: SampleSettings
  data: DataSettings
  buckets: Mapping[str, BucketSettings]
  shapes: Mapping[str, Any]
  text: TextSettings

  @classmethod
  def of(
    cls, fields: Mapping[str, Any], shapes: Callable[..., Mapping[str, Any]] = video_shapes
  ) -> 'FlowSettings':
    """Reads a configuration as a plain dictionary, and nothing else: no data, no weights.

    `shapes` is `video_shapes`, or as `audio_shapes` without the frame rate. Raises ConfigError if a
    field is unknown, missing or out of its range.
    """
    model, data = (
      make_flow_model(fields_of(fields, 'model')),
      data_settings(fields_of(fields, 'data')),
    )
    objective = unpack(ObjectiveSettings, fields_of(fields, 'objective'), 'objective')
    objectives = make_objectives(objective, model)
    buckets = fields_of(fields, 'buckets')
    critic, opponent = _read_critic(fields, model, objective) if objectives.critic else (None, None)
    return cls(
      component=fields['component'],
      seed=fields['seed'],
      autoencoder=fields['autoencoder'],
      start_from=fields.get('start_from'),
      model=model,
      objective=objective,
      objectives=objectives,
      critic=critic,
      opponent=opponent,
      sample=unpack(SampleSettings, fields_of(fields, 'sample'), 'sample'),
      data=data,
      buckets=bucket_settings(buckets, data),
      shapes=shapes(buckets, data.fps),
      text=TextSettings.of(fields),
    )


def _read_critic(
  fields: Mapping[str, Any], model: FlowModel, objective: ObjectiveSettings
) -> tuple[AdversarySettings, FlowModel]:
  critic, others = adversary_settings(fields_of(fields, 'discriminator'))
  if objective.kind == 'adversarial':
    return critic, make_discriminator(others, fields_of(fields, 'model'))
  if others:
    raise ConfigError(
      f'discriminator has {sorted(others)}; the critic is a network as its teacher: give its '
      "'optimizer' alone"
    )
  return critic, model


def make_flow_spec(
  settings: FlowSettings,
  workdir: pathlib.Path,
  *,
  codec: Any,
  raw: str,
  make_sources: MakeSources,
  about: Callable[[str], dict[str, Any]],
  show: Show,
  starts: Sequence[str] = (),
  as_video: Callable[[Array], Array] = lambda latents: latents,
  wrap: Callable[[Objective], Objective] = lambda objective: objective,
  adapt: Callable[[Tree], Tree] = lambda params: params,
  encoders: Mapping[str, str] | None = None,
) -> TrainSpec:
  """Makes the `TrainSpec` of a flow model.

  Args:
    codec: its autoencoder, with `encode`, `statistics` and `model.latent_channels`.
    raw: the field of a sample that the codec encodes, where there are no latents yet.
    make_sources: of the training and validation data: records of latents, or what `raw` names.
    about: bucket -> what its latents depend on beside the data and the codec.
    show: writes samples for the longest validation bucket.
    starts: components beside its own that `start_from` may have trained.
    as_video: brings latents as stored into the form (b t h w c).
    adapt: is applied to parameters of `start_from`.
    encoders: identities of the frozen encoders that it reads beside those of text, by name.
  """
  model = settings.model
  statistics = codec.statistics.as_dict()
  words = Vocabulary()
  for source in parse_sources(settings.start_from).values():
    if record := open_checkpoints(source.workdir).newest_record():
      words.add(words_in(record['meta']['notes']))

  def checked(split: str, report: pathlib.Path) -> Mapping[str, Source]:
    found = make_sources(split, report)
    for name, source in found.items():
      if isinstance(source, Records):
        wanted = {'statistics': statistics, **about(name)}
        check_records(source.meta, codec.fingerprints, wanted, name)
    if split == 'train':
      words.add(study_captions(map(captions_of, found.values()), model.conditionings))
    return found

  transform = functools.partial(row_of, model.conditionings, raw)
  sources = with_embeddings(settings.text, checked)
  share = settings.data.share
  buckets, validation = make_buckets(settings.buckets, workdir, sources, transform, share=share)

  clips = (LATENTS, *encoded_names(model.conditionings))

  def prepare(batch: Batch) -> Batch:
    batch = encode_clips(batch, raw, codec.encode)
    latents = {
      name: as_video(jnp.asarray(batch[name], jnp.float32)) for name in clips if name in batch
    }
    return batch | latents

  identities = {**stored_encoders(settings.text), **(encoders or {})}
  own = codec.fingerprints[0]
  learnt = {'latents': statistics, 'encoders': identities, 'autoencoder': own}

  def check(notes: dict[str, Any]) -> None:
    check_learnt(settings.autoencoder, codec.fingerprints, learnt, notes)
    words.add(words_in(notes))  # data may be new, and of an older run nobody knows what it was

  generate = make_sampler_of(settings.sample, settings.objective, model)
  inputs = small_inputs(model, codec.model.latent_channels)
  train = wrap(settings.objectives.train)
  validate = settings.objectives.validate
  frozen = _read_teacher(settings.objective.teacher, model, inputs)
  if aligned := settings.objective.aligned:
    patch = model.backbone.patch
    see, tower = make_patches(aligned.features) if '/' in aligned.features else (None, None)
    features, width = make_features(aligned, codec, patch, see, tower)
    model = model.clone(alignment=Projector(width, model.backbone.dtype, name=NAME))
    inputs = (*inputs, aligned.layer)
    frozen = {'autoencoder': (codec.params, tower)}
    train = align(train, aligned, features)
    validate = _without_autoencoder(validate)
  begin = functools.partial(
    make_start,
    component=settings.component,
    others=starts,
    adapt=lambda params: adapt(without_projector(params)),
  )
  return TrainSpec(
    model=model,
    inputs=inputs,
    objective=train,
    validate=validate,
    buckets=buckets,
    validation=validation,
    prepare=prepare,
    show=functools.partial(show, generate, longest_of(validation, settings.buckets)),
    notes=lambda whole: learnt | words.notes(),
    check=check,
    flops=make_flops(model),
    start=begin(settings.start_from),
    frozen=frozen,
    reference=settings.objective.kind == 'preference',
    discriminator=settings.critic
    and Adversary(
      model=settings.opponent,
      inputs=inputs,
      generator_objective=settings.objectives.student,
      objective=settings.objectives.critic,
      optimizer=settings.critic.optimizer,
      start=settings.critic.start,
      # A critic of samples begins as the teacher, a discriminator with random weights.
      begin=begin(settings.objective.teacher)
      if settings.objective.kind == 'distribution_matching'
      else None,
    ),
  )


def _without_autoencoder(validate: Objective) -> Callable[..., Any]:
  return lambda predict, batch, key, autoencoder: validate(predict, batch, key)


def _read_teacher(teacher: str, model: FlowModel, inputs: tuple[Any, ...]) -> dict[str, Tree]:
  """Returns the parameters of a teacher as `TrainSpec.frozen` has them, on devices of the mesh."""
  if not teacher:
    return {}
  boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  mesh = ambient()
  place = None if mesh is None else make_place(boxed, jax.sharding.get_mesh())
  return {'teacher': load_params(teacher, place=place)[0]}


def captions_of(source: Any) -> Iterator[dict[str, Any]] | None:
  """Returns {'caption'} of a source's samples, and 'fps' if they have one; None if it is costly."""
  if hasattr(source, 'every_caption'):
    return source.every_caption()
  return source.cheap_captions(_READ) if isinstance(source, Records) else None


def make_flow_outline(
  settings: FlowSettings,
  make_codec: Callable[[dict[str, Any]], Any],
  default: Any,
  sizes: Callable[[Any, str], Sizes],
) -> Outline:
  """Returns the model of a configuration.

  Args:
    settings: of a run.
    make_codec: the fields of `config.model` of its autoencoder -> that.
    default: the report's, which stands in for one that is not trained yet.
    sizes: autoencoder, name of a bucket -> sizes of its samples; raises ConfigError if the model
      cannot have them.
  """
  model = settings.model
  codec = default
  notes = []
  clips = 1
  make_sampler_of(settings.sample, settings.objective, model)
  if settings.objective.teacher:
    others = 'the teacher, and a critic that learns too' if settings.critic else 'the teacher'
    notes.append(f'note: what is counted is the student alone; beside it there is {others}')
  if settings.objective.kind == 'preference':
    clips = 2
    notes.append(
      'note: a row is two clips; of the reference, the model without adapters, the forward pass of '
      'both is not counted, a third of the operations more'
    )
  try:
    codec = make_codec(fields_of(read_config(settings.autoencoder), 'model'))
  except ConfigError:
    notes.append(
      f'note: no autoencoder at {settings.autoencoder!r}; latents of {codec.latent_channels} '
      'channels'
    )
  samples = lambda: {name: sizes(codec, name) for name in settings.buckets}  # noqa: E731
  return Outline(model, small_inputs(model, codec.latent_channels), notes, samples, clips)


def make_video_outline(settings: FlowSettings, default: Autoencoder) -> Outline:
  """Returns the model of a configuration of videos, as `make_flow_outline`."""

  def sizes(codec: Autoencoder, name: str) -> Sizes:
    shape = (settings.shapes[name].frames, *settings.shapes[name].size)
    check_shape(settings.model.backbone, codec, shape)
    return shape, codec.latent_shape(shape)

  return make_flow_outline(settings, make_autoencoder, default, sizes)


def about_videos(
  shape: Shape, conditionings: Sequence[Conditioning], codec: LatentCodec
) -> dict[str, Any]:
  """Returns what latents of videos depend on beside the data and the autoencoder."""
  clips = clip_shapes(conditionings, codec.latent_shape((shape.frames, *shape.size)))
  return {'shape': [shape.frames, *shape.size], 'fps': list(shape.fps), **clips}


def make_video_encode_plan(
  settings: FlowSettings,
  make_sources: Callable[..., Mapping[str, Source]],
  about: Mapping[str, Any] = {},
  complete: Callable[..., Sequence[dict[str, Any]]] = lambda samples: samples,
) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns clips into latents, tile by tile.

  Args:
    make_sources: `(data, shapes, split, report) -> {bucket: source}` of clips.
    about: what else latents depend on, as plain JSON values.
    complete: of an `EncodePlan`.
  """
  codec = load_codec(settings.autoencoder)
  conditionings = settings.model.conditionings
  shapes = settings.shapes
  return EncodePlan(
    conditionings=conditionings,
    raw='video',
    autoencoder=codec.fingerprints[-2],  # of the first run with this encoder
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
