"""What every flow model trains on: latents of an autoencoder, read or encoded on the fly."""

import abc
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import Array, Batch, Metrics, Objective, Sample, Tree
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.records.reader import Records
from mgjax.data.settings import DataSettings, video_shapes
from mgjax.data.source import Source
from mgjax.models.flow_model.alignment import (
  NAME,
  Projector,
  align,
  make_features,
  without_projector,
)
from mgjax.models.flow_model.build import (
  check_records,
  check_training_inputs,
  make_flops,
  make_sampler_of,
)
from mgjax.models.flow_model.conditions import (
  LATENTS,
  encode_clips,
  encoded_names,
  row_of,
  small_inputs,
)
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.prompts import study_captions
from mgjax.models.text.vocabulary import Vocabulary, words_in
from mgjax.parallel.rules import ambient
from mgjax.parallel.shard import make_place
from mgjax.sections.clip.pipeline import make_patches
from mgjax.sections.flow.settings import FlowSettings
from mgjax.sections.text.embeddings import stored_encoders, with_embeddings
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.warm_start import make_start, parse_sources
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config
from mgjax.training.spec import (
  Adversary,
  Callbacks,
  Outline,
  TrainSpec,
  longest_of,
  make_buckets,
)

Sizes = tuple[tuple[int, ...], tuple[int, ...]]  # of a sample (t h w), of its latents (t h w c)
_READ = 2**30  # bytes of records that keep no captions apart


class FlowSection(abc.ABC):
  """A flow model on latents of an autoencoder; a subclass says what the samples are.

  Attributes:
    raw: the field of a sample that the autoencoder encodes, where there are no latents yet.
    starts: components beside its own that `start_from` may have trained.
    shapes: reads the shapes of `config.buckets`, with the frame rate of `config.data`.
    settings: of the configuration.
  """

  raw: ClassVar[str]
  starts: ClassVar[Sequence[str]] = ()
  shapes: ClassVar[Callable[..., Fields]] = staticmethod(video_shapes)

  def __init__(self, config: ConfigDict):
    """Reads a configuration; see `mgjax.training.spec.Section`."""
    self.settings = FlowSettings.of(config.to_dict(), self.shapes)

  # What a subclass says.

  @staticmethod
  @abc.abstractmethod
  def load_codec(workdir: str) -> Any:
    """Reads a trained autoencoder, with `encode`, `statistics` and `model.latent_channels`."""

  @staticmethod
  @abc.abstractmethod
  def make_codec(fields: Fields) -> nn.Module:
    """Makes the model of an autoencoder of the fields of its `config.model`."""

  @abc.abstractmethod
  def stand_in(self) -> Any:
    """Makes the model of an autoencoder that is not there yet, for `outline`."""

  @abc.abstractmethod
  def sizes(self, codec: object, bucket: str) -> Sizes:
    """Returns the sizes of samples of a bucket and their latents, by the model of the autoencoder.
    Raises ConfigError if the flow model cannot have them.
    """

  @abc.abstractmethod
  def sources(
    self, data: DataSettings, split: str, report: pathlib.Path | None
  ) -> Mapping[str, Source]:
    """Returns the samples of each bucket: records of latents, or what `raw` names.

    Args:
      data: as `settings.data`, or the same without latents.
      split: 'train' or 'validation'.
      report: where rejected files are listed.
    """

  @abc.abstractmethod
  def about(self, bucket: str) -> JSON:
    """Returns what latents depend on beside the data and the autoencoder, as plain JSON values.

    Training checks that records of latents say the same.
    """

  @abc.abstractmethod
  def show(
    self, generate: Callable[..., Array], bucket: ShapeBucket, params: Tree, directory: pathlib.Path
  ) -> pathlib.Path:
    """Writes samples of the conditions of a bucket, `generate(params, batch, noise)` each."""

  @abc.abstractmethod
  def encode(self, clips: Sequence[Any], put: Callable[[np.ndarray], Array]) -> Iterable[Any]:
    """Yields latents of one tile of time after another, each with all rows.

    `put` brings an array with a row a clip onto the devices.
    """

  @abc.abstractmethod
  def tile(self, bucket: str) -> tuple[int, ...]:
    """Returns the shape of what a device takes in of one row at once."""

  # What a subclass may change.

  def check(self) -> None:
    """Raises ConfigError if the autoencoder or the buckets do not fit the model."""
    for bucket in self.settings.shapes:
      self.sizes(self.codec.model, bucket)

  def as_video(self, latents: Array) -> Array:
    """Brings latents as stored into the form (b t h w c)."""
    return latents

  def objective(self) -> Objective:
    """Returns what training minimises."""
    return self.settings.objectives.train

  def adapt(self, params: Tree) -> Tree:
    """Fits parameters of `start_from` to the model."""
    return params

  def encoders(self) -> dict[str, str]:
    """Returns identities of the frozen encoders that it reads beside those of text, by name."""
    return {}

  def describe_records(self, bucket: str) -> JSON:
    """Returns what records of latents say of themselves: `about`, and what nothing checks."""
    return self.about(bucket)

  def complete(self, samples: Sequence[Sample]) -> Sequence[Sample]:
    """Returns samples of a batch with what devices compute of them beside latents."""
    return samples

  # What commands use.

  @functools.cached_property
  def codec(self) -> Any:
    """The trained autoencoder."""
    return self.load_codec(self.settings.autoencoder)

  def outline(self) -> Outline:
    """Returns the model; of an autoencoder that is not there, the sizes by `stand_in`."""
    settings = self.settings
    model = settings.model
    notes = []
    clips = 1
    make_sampler_of(settings.sample, settings.objective, model)
    if settings.objective.teacher:
      others = 'the teacher, and a critic that learns too' if settings.critic else 'the teacher'
      notes.append(f'note: what is counted is the student alone; beside it there is {others}')
    if settings.objective.kind == 'preference':
      clips = 2
      notes.append(
        'note: a row is two clips; of the reference, the model without adapters, the forward pass '
        'of both is not counted, a third of the operations more'
      )
    try:
      codec = self.make_codec(fields_of(read_config(settings.autoencoder), 'model'))
    except ConfigError:
      codec = self.stand_in()
      notes.append(
        f'note: no autoencoder at {settings.autoencoder!r}; latents of {codec.latent_channels} '
        'channels'
      )
    samples = lambda: {name: self.sizes(codec, name) for name in settings.buckets}  # noqa: E731
    return Outline(model, small_inputs(model, codec.latent_channels), notes, samples, clips)

  def training(self, workdir: pathlib.Path) -> TrainSpec:
    """Returns what is trained: latents, read or encoded on the fly, in, velocities out."""
    self.check()
    settings = self.settings
    model = settings.model
    codec = self.codec
    words = _words_of(settings.start_from)
    buckets, validation = make_buckets(
      settings.buckets,
      workdir,
      with_embeddings(settings.text, functools.partial(self._checked_sources, words)),
      functools.partial(row_of, model.conditionings, self.raw),
      share=settings.data.share,
    )
    inputs = small_inputs(model, codec.model.latent_channels)
    objective = self.objective()
    validate = settings.objectives.validate
    frozen = _read_teacher(settings.objective.teacher, model, inputs)
    if aligned := settings.objective.aligned:
      patch = model.backbone.patch
      see, tower = make_patches(aligned.features) if '/' in aligned.features else (None, None)
      features, width = make_features(aligned, codec, patch, see, tower)
      model = model.clone(alignment=Projector(width, model.backbone.dtype, name=NAME))
      inputs = (*inputs, aligned.layer)
      frozen = {'autoencoder': (codec.params, tower)}
      objective = align(objective, aligned, features)
      validate = _without_autoencoder(validate)
    return TrainSpec(
      model=model,
      inputs=inputs,
      objective=objective,
      validate=validate,
      buckets=buckets,
      validation=validation,
      prepare=self._prepare,
      callbacks=_FlowCallbacks(self, words, longest_of(validation, settings.buckets)),
      start=self._start(settings.start_from),
      flops=make_flops(model),
      discriminator=self._adversary(inputs),
      frozen=frozen,
      reference=settings.objective.kind == 'preference',
    )

  def _checked_sources(
    self, words: Vocabulary, split: str, report: pathlib.Path
  ) -> Mapping[str, Source]:
    """Returns the samples, checks those of records, and adds the words of captions to `words`."""
    sources = self.sources(self.settings.data, split, report)
    statistics = self.codec.statistics.as_dict()
    for name, source in sources.items():
      if isinstance(source, Records):
        expected = {'statistics': statistics, **self.about(name)}
        check_records(source.meta, self.codec.fingerprints, expected, name)
    if split == 'train':
      captions = map(captions_of, sources.values())
      words.add(study_captions(captions, self.settings.model.conditionings))
    return sources

  def _prepare(self, batch: Batch) -> Batch:
    batch = encode_clips(batch, self.raw, self.codec.encode)
    clips = (LATENTS, *encoded_names(self.settings.model.conditionings))
    latents = {
      name: self.as_video(jnp.asarray(batch[name], jnp.float32)) for name in clips if name in batch
    }
    return batch | latents

  def _start(self, start_from: object) -> Callable[..., Tree] | None:
    return make_start(
      start_from,
      component=self.settings.component,
      others=self.starts,
      adapt=lambda params: self.adapt(without_projector(params)),
    )

  def _adversary(self, inputs: tuple[object, ...]) -> Adversary | None:
    settings = self.settings
    if settings.critic is None:
      return None
    matched = settings.objective.kind == 'distribution_matching'
    return Adversary(
      model=settings.opponent,
      inputs=inputs,
      generator_objective=settings.objectives.student,
      objective=settings.objectives.critic,
      optimizer=settings.critic.optimizer,
      start=settings.critic.start,
      # A critic of samples begins as the teacher, a discriminator with random weights.
      begin=self._start(settings.objective.teacher) if matched else None,
    )


class _FlowCallbacks(Callbacks):
  """Samples of the longest validation bucket, and what a model learned on."""

  def __init__(self, section: FlowSection, words: Vocabulary, bucket: ShapeBucket):
    settings = section.settings
    self._section, self._words, self._bucket = section, words, bucket
    self._generate = make_sampler_of(settings.sample, settings.objective, settings.model)
    self._learnt = {
      'latents': section.codec.statistics.as_dict(),
      'encoders': {**stored_encoders(settings.text), **section.encoders()},
      'autoencoder': section.codec.fingerprints[0],
    }

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    return self._section.show(self._generate, self._bucket, params, directory)

  def notes(self, get_params: Callable[[], Tree]) -> dict[str, Any]:
    return self._learnt | self._words.notes()

  def check(self, notes: dict[str, Any]) -> None:
    autoencoder = self._section.settings.autoencoder
    check_training_inputs(autoencoder, self._section.codec.fingerprints, self._learnt, notes)
    # Data may be new, and older runs did not record theirs.
    self._words.add(words_in(notes))


def _words_of(start_from: Any) -> Vocabulary:
  """Returns the words of the models that training starts from."""
  words = Vocabulary()
  for source in parse_sources(start_from).values():
    if record := open_checkpoints(source.workdir).newest_record():
      words.add(words_in(record['meta']['notes']))
  return words


def _without_autoencoder(validate: Objective) -> Callable[..., tuple[Array, Metrics]]:
  return lambda predict, batch, key, autoencoder: validate(predict, batch, key)


def _read_teacher(teacher: str, model: FlowModel, inputs: tuple[Any, ...]) -> dict[str, Tree]:
  """Returns the parameters of a teacher for `TrainSpec.frozen`, on the devices of the mesh."""
  if not teacher:
    return {}
  boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  mesh = ambient()
  sharding_of = None if mesh is None else make_place(boxed, jax.sharding.get_mesh())
  return {'teacher': load_params(teacher, sharding_of=sharding_of)[0]}


def captions_of(source: Source) -> Iterator[JSON] | None:
  """Returns {'caption'} of a source's samples, and 'fps' if they have one; None if it is costly."""
  if hasattr(source, 'every_caption'):
    return source.every_caption()
  return source.cheap_captions(_READ) if isinstance(source, Records) else None
