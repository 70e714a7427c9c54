"""The parts of a section that training needs: model, objectives, data, callbacks, and outline."""

import dataclasses
import fractions
import functools
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Array, Batch, Key, Metrics, Objective, Sample, Tree
from mgjax.data.batch_order import ShapeBucket, share_by_samples
from mgjax.data.broken_samples import Replacing
from mgjax.data.source import Source
from mgjax.parallel.shard import Place
from mgjax.training.settings import BucketSettings, OptimizerSettings

# Makes the sources of a split: (split, file that lists rejected samples) -> name -> source.
MakeSources = Callable[[str, pathlib.Path], Mapping[str, Source]]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Adversary:
  """The discriminator that a component trains against; see `adversarial.py`.

  Attributes:
    inputs: arguments of `model.init` after the key, arrays or shapes.
    generator_objective: of the component: `(predict, batch, key, judge) -> (loss, metrics,
      output)`. `judge` is a `Critic`, and `output` is the input of the discriminator.
    objective: of the discriminator: `(predict, batch, output, key) -> (loss, metrics)`. Its metrics
      have other names than those of `generator_objective`.
    start: the first step in which the discriminator has weight, and learns.
    begin: reads the parameters to start from, as `TrainSpec.start`; None for random ones.
  """

  model: nn.Module
  inputs: tuple[Tree, ...]
  generator_objective: Callable[..., tuple[Tree, Metrics, Tree]]
  objective: Callable[..., tuple[Array, Metrics]]
  optimizer: OptimizerSettings
  start: int
  begin: Callable[[Place], Tree] | None = None


class Callbacks:
  """Functions that training calls besides its steps; a subclass overrides those that it needs."""

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path | None:
    """Writes samples of the model, and returns the path of a picture; None if there is none.

    The first process alone writes the picture.
    """

  def notes(self, get_params: Callable[[], Tree]) -> dict[str, Any]:
    """Returns the notes that every checkpoint keeps besides the weights.

    `get_params()` returns the parameters of the model. It merges adapters only when you call it.
    """
    return {}

  def check(self, notes: JSON) -> None:
    """Checks the notes of the checkpoint that training resumes from.
    Raises ConfigError if it was trained with other data or other runs.
    """

  def at_checkpoint(self, step: int, finish: Callable[[], None]) -> Metrics:
    """Returns metrics of a checkpoint, while it is being written.

    `finish()` blocks until the checkpoint is complete, and can be read.
    """
    return {}


class CallbacksAround(Callbacks):
  """Wraps the callbacks of a section; a subclass changes some of them."""

  def __init__(self, callbacks: Callbacks):
    self._callbacks = callbacks

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path | None:
    return self._callbacks.show(params, directory)

  def notes(self, get_params: Callable[[], Tree]) -> dict[str, Any]:
    return self._callbacks.notes(get_params)

  def check(self, notes: JSON) -> None:
    self._callbacks.check(notes)

  def at_checkpoint(self, step: int, finish: Callable[[], None]) -> Metrics:
    return self._callbacks.at_checkpoint(step, finish)


@dataclasses.dataclass(frozen=True)
class Adapters:
  """Adapters that are trained in place of the model's parameters.

  Attributes:
    init: `init(key) ->` adapters with their logical axes.
    adapt: `adapt(adapters, base, key) ->` the parameters of the model. `base` is `frozen['base']`,
      and `key` that of a training step, or None.
  """

  init: Callable[[Key], Tree]
  adapt: Callable[[Tree, Tree, Key | None], Tree]


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """A model and everything the common loop needs to train it.

  Attributes:
    inputs: arguments of `model.init` after the key, arrays or shapes.
    validate: the objective of validation, without random times or dropped conditions.
    buckets: the training data.
    validation: the validation data, read in order.
    prepare: maps a batch from the loader, on the devices, to the input of the objective.
    callbacks: samples, notes and metrics of checkpoints.
    start: `start(place) -> params` reads the parameters to start from, with the sharding
      `place(name, shape)`; None for random ones.
    flops: maps the shapes of a prepared batch to the operations of a step; None if not known.
    frozen: name -> parameters that are not trained. `objective`, `validate` and the
      discriminator's `generator_objective` take each as an argument of that name, except 'base'.
    adapters: trained in place of the model's own parameters; None to train these.
    reference: whether `objective` and `validate` compare with the model that training starts from.
      They take its parameters as `teacher`.
  """

  model: nn.Module
  inputs: tuple[Tree, ...]
  objective: Objective
  validate: Objective
  buckets: Sequence[ShapeBucket]
  validation: Sequence[ShapeBucket]
  prepare: Callable[[Batch], Batch]
  callbacks: Callbacks = Callbacks()  # noqa: RUF009 (it has no state)
  start: Callable[[Place], Tree] | None = None
  flops: Callable[[Batch], int] | None = None
  discriminator: Adversary | None = None
  frozen: Mapping[str, Tree] = dataclasses.field(default_factory=dict)
  adapters: Adapters | None = None
  reference: bool = False

  @property
  def adapt(self) -> Callable[[Tree, Tree, Key | None], Tree] | None:
    """The `adapt` of the adapters, if there are any."""
    return self.adapters and self.adapters.adapt


def init_params(spec: TrainSpec | Adversary, key: Key) -> Tree:
  """Initialises the trained parameters of a component or its discriminator, with logical axes."""
  if isinstance(spec, TrainSpec) and spec.adapters is not None:
    return spec.adapters.init(key)
  return spec.model.init(key, *spec.inputs)['params']


def param_shapes(spec: TrainSpec | Adversary) -> Tree:
  """Returns the shapes of the parameters of a component or its discriminator."""
  return nn.unbox(jax.eval_shape(functools.partial(init_params, spec), jax.random.key(0)))


def make_buckets(
  shapes: Mapping[str, BucketSettings],
  workdir: pathlib.Path,
  make_sources: MakeSources,
  transform: Callable[[Sample], dict[str, np.ndarray]],
  *,
  share: str = 'given',
) -> tuple[list[ShapeBucket], list[ShapeBucket]]:
  """Makes the buckets of training and of validation.

  Broken samples are replaced and listed in `quarantine.jsonl`, rejected files in `rejected.jsonl`.
  A group has the images or the videos of one source. A bucket without samples is left out, and the
  others of its group get its weight. With `share` = 'samples' the buckets of a group share its
  weight in proportion to their samples. The weights of groups do not change.

  Raises:
    ConfigError: `share` is 'samples', and buckets of a group have different weights.
    DataError: no bucket of a source has a sample.
  """

  def group(name: str) -> str:
    source = shapes[name].source
    kind = 'image' if shapes[name].frames == 1 else ''
    return f'{source}/{kind}' if source else kind

  first = {group(name): name for name in reversed([*shapes])}
  for name, shape in shapes.items() if share == 'samples' else ():
    if shape.weight != shapes[other := first[group(name)]].weight:
      raise ConfigError(
        f"data.share = 'samples' lets the samples of {other} and {name} decide how often each "
        f'comes, but their weights are {shapes[other].weight:g} and {shape.weight:g}; take '
        "data.share = 'given', or give them one weight"
      )

  def split(which: str) -> list[ShapeBucket]:
    all_sources = make_sources(which, workdir / 'rejected.jsonl')
    sources = {name: source for name, source in all_sources.items() if len(source)}
    lost = {shape.source for shape in shapes.values()} - {shapes[name].source for name in sources}
    if lost:
      of = ''.join(f' of the source {name!r}' for name in sorted(lost)[:1] if name)
      raise DataError(f'no bucket{of} has a sample left to use for {which}; see the lines above')
    for name in all_sources.keys() - sources.keys():
      _log.warning('the bucket %s has no samples left: it is left out', name)
    quarantine = workdir / 'quarantine.jsonl' if which == 'train' else None
    buckets = []
    for name, source in sources.items():
      shape = shapes[name]
      alike = [other for other in shapes if group(other) == group(name)]
      weights = {other: fractions.Fraction(str(shapes[other].weight)) for other in alike}
      present = sum(weights[other] for other in alike if other in sources)
      weight = weights[name] * sum(weights.values()) / present
      source = Replacing(source, name, quarantine)
      buckets.append(ShapeBucket(name, source, shape.batch_size, weight, transform, group(name)))
    return share_by_samples(buckets) if share == 'samples' else buckets

  train, validation = split('train'), split('validation')
  if few := [bucket.name for bucket in validation if len(bucket.source) < bucket.batch_size]:
    _log.warning('too few samples for one batch: no validation of %s', ', '.join(few))
  return train, validation


def longest_of(buckets: Sequence[ShapeBucket], shapes: Mapping[str, BucketSettings]) -> ShapeBucket:
  """Returns the bucket with the most frames or seconds, the first of several."""
  return max(buckets, key=lambda bucket: shapes[bucket.name].length)


@dataclasses.dataclass(frozen=True)
class Outline:
  """A model from its configuration alone, without data or weights. Nothing is allocated.

  Attributes:
    inputs: the smallest arguments of `model.init` after the key that determine the parameters.
    samples: of a flow model, `() -> {bucket: (shape, latents)}`: frames, height and width of a
      sample, and the shape (t h w c) of its latents; None for others.
    clips: in a row of a batch: 2 for training on preferences between clips, else 1.
  """

  model: nn.Module
  inputs: tuple[Tree, ...]
  notes: Sequence[str] = ()
  samples: Callable[[], Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] | None = None
  clips: int = 1


class Section(Protocol):
  """A component as its configuration describes it: one class in `section.py` of its folder.

  Its constructor takes a configuration and reads all settings, but no data or weights. It raises
  ConfigError if a field is unknown, missing or out of range.
  """

  def training(self, workdir: pathlib.Path) -> TrainSpec:
    """Opens the data, and returns all that training needs. Writes rejected files to `workdir`."""
    ...

  def outline(self) -> Outline:
    """Returns the model with its smallest inputs."""
    ...
