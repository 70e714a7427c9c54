"""What a section tells the training loop: model, objectives, data, callbacks; and its outline."""

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

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Batch, Key, Metrics, Objective, Tree
from mgjax.data.batch_order import ShapeBucket, share_by_samples
from mgjax.data.broken_samples import Replacing
from mgjax.data.source import Source
from mgjax.parallel.shard import Place
from mgjax.training.settings import BucketSettings, OptimizerSettings

# Makes the sources of a split: (split, where to list what is rejected) -> name -> source.
MakeSources = Callable[[str, pathlib.Path], Mapping[str, Source]]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Adversary:
  """The discriminator that a component trains against; see `adversarial.py`.

  Attributes:
    inputs: arguments of `model.init` after the key, arrays or shapes.
    generator_objective: what the component minimises against it: `(predict, batch, key, judge) ->
      (loss, metrics, made)`; `judge` is a `Critic`, `made` is what the discriminator has to judge.
    objective: what the discriminator minimises: `(predict, batch, made, key) -> (loss, metrics)`,
      its metrics named unlike those of `generator_objective`.
    start: the first step in which it counts and learns.
    begin: reads parameters to begin from instead of random ones, as `TrainSpec.start`; or None.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  generator_objective: Callable[..., tuple[Any, Metrics, Any]]
  objective: Callable[..., tuple[Any, Metrics]]
  optimizer: OptimizerSettings
  start: int
  begin: Callable[[Place], Tree] | None = None


class Callbacks:
  """What a section does beside training steps; a subclass overrides what it has."""

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path | None:
    """Writes pictures of what the model does and returns the path of one; None without any."""

  def notes(self, whole: Callable[[], Tree]) -> dict[str, Any]:
    """Returns what every checkpoint keeps beside the weights.

    `whole()` makes the model's parameters: of adapters they are merged only where they are wanted.
    """
    return {}

  def check(self, notes: dict[str, Any]) -> None:
    """Takes in the notes of the checkpoint that training resumes from.
    Raises ConfigError if it was trained on something else.
    """

  def at_checkpoint(self, step: int, finish: Callable[[], None]) -> Metrics:
    """Returns numbers for the metrics once a checkpoint is on its way to the disk.

    `finish()` blocks until it is there and may be read.
    """
    return {}


class CallbacksAround(Callbacks):
  """Those of a section, for a subclass that changes some of them."""

  def __init__(self, callbacks: Callbacks):
    self._callbacks = callbacks

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path | None:
    return self._callbacks.show(params, directory)

  def notes(self, whole: Callable[[], Tree]) -> dict[str, Any]:
    return self._callbacks.notes(whole)

  def check(self, notes: dict[str, Any]) -> None:
    self._callbacks.check(notes)

  def at_checkpoint(self, step: int, finish: Callable[[], None]) -> Metrics:
    return self._callbacks.at_checkpoint(step, finish)


@dataclasses.dataclass(frozen=True)
class Adapters:
  """What trains in place of the model's parameters.

  Attributes:
    init: `init(key) ->` adapters with their logical axes.
    adapt: `adapt(adapters, base, key)` makes the model's parameters of adapters and
      `frozen['base']`, with the key of a training step or None.
  """

  init: Callable[[Key], Tree]
  adapt: Callable[[Tree, Tree, Key | None], Tree]


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """A model and everything the common loop needs to train it.

  Attributes:
    inputs: arguments of `model.init` after the key, arrays or shapes.
    validate: the objective of validation, without drawn times or dropped conditions.
    buckets: the training data.
    validation: the validation data, read in order.
    prepare: maps a batch from the loader, on the devices, to what the objective reads.
    callbacks: pictures and notes.
    start: `start(place) -> params` reads parameters to begin from instead of random ones, each to
      where `place(name, shape)` says; or None.
    flops: a prepared batch to the operations of a step on it, by its shapes alone; None where they
      are not known.
    frozen: trees of parameters that nothing trains, by name; `objective`, `validate` and the
      discriminator's `generator_objective` take each as an argument of that name, but 'base'.
    adapters: what trains, where it is not the model's own parameters.
    reference: whether `objective` and `validate` compare with the model that training starts from,
      whose parameters they then take as `teacher`.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
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
    """That of the adapters, if there are any."""
    return self.adapters and self.adapters.adapt


def init_params(spec: TrainSpec | Adversary, key: Key) -> Tree:
  """Initialises what trains of a component or its discriminator, with its logical axes."""
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
  transform: Callable[[dict[str, Any]], dict[str, np.ndarray]],
  *,
  share: str = 'given',
) -> tuple[list[ShapeBucket], list[ShapeBucket]]:
  """Makes the buckets of training and of validation.

  Broken samples are replaced and listed in `quarantine.jsonl`, rejected files in `rejected.jsonl`.
  A bucket without samples is left out, its weight goes to the others of its group, which are the
  images or the videos of one source; with `share` = 'samples' the weights of a group are shared out
  by its samples. What groups, and so sources, are to each other the weights alone say.

  Raises:
    ConfigError: samples shall share a group whose buckets have different weights.
    DataError: no bucket of a source has a sample.
  """

  def group(name: str) -> str:
    source = shapes[name].source
    kind = 'image' if shapes[name].frames == 1 else ''
    return f'{source}/{kind}' if source else kind

  first = {group(name): name for name in reversed(shapes)}
  for name, shape in shapes.items() if share == 'samples' else ():
    if shape.weight != shapes[other := first[group(name)]].weight:
      raise ConfigError(
        f"data.share = 'samples' lets the samples of {other} and {name} decide how often each "
        f'comes, but their weights are {shapes[other].weight:g} and {shape.weight:g}; take '
        "data.share = 'given', or give them one weight"
      )

  def split(which: str) -> list[ShapeBucket]:
    made = make_sources(which, workdir / 'rejected.jsonl')
    sources = {name: source for name, source in made.items() if len(source)}
    lost = {shape.source for shape in shapes.values()} - {shapes[name].source for name in sources}
    if lost:
      of = ''.join(f' of the source {name!r}' for name in sorted(lost)[:1] if name)
      raise DataError(f'no bucket{of} has a sample left to use for {which}; see the lines above')
    for name in made.keys() - sources.keys():
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
  """A model from its configuration alone: no data, no weights, nothing allocated.

  Attributes:
    inputs: the smallest arguments of `model.init` after the key; parameters depend on no more.
    samples: of a flow model, `() -> {bucket: (shape, latents)}`: frames, height and width of a
      sample, and the shape (t h w c) of its latents; None for others.
    clips: that a row of a batch holds, 2 where preferences between such are learnt.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  notes: Sequence[str] = ()
  samples: Callable[[], Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] | None = None
  clips: int = 1


class Section(Protocol):
  """A component as its configuration describes it: one class in `section.py` of its folder.

  It is made of a configuration, which reads all settings, and no data or weights, and raises
  ConfigError if a field is unknown, missing or out of its range.
  """

  def training(self, workdir: pathlib.Path) -> TrainSpec:
    """Opens the data and says what is trained on them; lists of rejected files go to `workdir`."""
    ...

  def outline(self) -> Outline:
    """Returns the model with the smallest inputs that it takes."""
    ...
