"""What a section tells the engine: model, objectives, data, hooks; and its outline and encoding."""

import dataclasses
import fractions
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """A model and everything the common loop needs to train it.

  Attributes:
    inputs: arguments of `model.init` after the key, arrays or shapes.
    validate: the objective of validation, without drawn times or dropped conditions.
    buckets: the training data.
    validation: the validation data, read in order.
    prepare: maps a batch from the loader, on the devices, to what the objective reads.
    show: `show(params, directory) -> path` writes pictures of what the model does, or None.
    notes: `notes(whole) -> dict` what every checkpoint keeps beside the weights, or None; of whole
      parameters, which `whole()` makes: of adapters they are merged only where they are wanted.
    check: takes in the notes of the checkpoint that is gone on from; raises if it was trained on
      something else. Or None.
    start: `start(place) -> params` reads parameters to begin from instead of random ones, each to
      where `place(name, shape)` says; or None.
    frozen: trees of parameters that nothing trains, by name; `objective`, `validate` and the
      discriminator's `generator_objective` take each as an argument of that name, but 'base'.
    init: `init(key) ->` the parameters that train, with their logical axes; None for those of
      `model.init`.
    adapt: `adapt(params, base, key)` makes the model's parameters of those that train, adapters,
      and `frozen['base']`, with the key of a training step or None; None where the model's own
      train.
    reference: whether `objective` and `validate` compare with the model that training starts from,
      whose parameters they then take as `teacher`.
    flops: a prepared batch to the operations of a step on it, by its shapes alone; None where they
      are not known.
  """

  model: nn.Module
  inputs: tuple[Any, ...]
  objective: Objective
  validate: Objective
  buckets: Sequence[ShapeBucket]
  validation: Sequence[ShapeBucket]
  prepare: Callable[[Batch], Batch]
  show: Callable[[Tree, pathlib.Path], pathlib.Path] | None = None
  notes: Callable[[Callable[[], Tree]], dict[str, Any]] | None = None
  check: Callable[[dict[str, Any]], None] | None = None
  start: Callable[[Place], Tree] | None = None
  discriminator: Adversary | None = None
  frozen: Mapping[str, Tree] = dataclasses.field(default_factory=dict)
  init: Callable[[Key], Tree] | None = None
  adapt: Callable[[Tree, Tree, Key | None], Tree] | None = None
  flops: Callable[[Batch], int] | None = None
  reference: bool = False


def init_params(spec: TrainSpec | Adversary, key: Key) -> Tree:
  """Initialises what trains of a component or its discriminator, with its logical axes."""
  if isinstance(spec, TrainSpec) and spec.init is not None:
    return spec.init(key)
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


@dataclasses.dataclass(frozen=True)
class EncodePlan:
  """How the samples of a flow model become records of latents.

  Attributes:
    autoencoder: the fingerprint of its encoder.
    statistics: of the autoencoder's latents, plain JSON values.
    make_sources: `(data, split, report) -> {bucket: source}` of what is encoded.
    raw: the field of a sample that becomes its latents.
    encode: `(clips, put) ->` latents of one tile of time after another, each with all rows; `put`
      brings an array with a row a clip onto the devices.
    about: bucket -> what else than the data its latents depend on.
    tile: bucket -> the shape of what a device takes in of one row at once.
    latents: bucket -> the shape of the latents of one row.
    complete: samples of a batch -> the same with what devices compute of them beside latents.
  """

  autoencoder: str
  statistics: Mapping[str, Any]
  make_sources: Callable[..., Mapping[str, Source]]
  raw: str
  conditionings: Sequence[Any]
  encode: Callable[[Sequence[Any], Callable[[np.ndarray], Any]], Iterator[Any]]
  about: Callable[[str], dict[str, Any]]
  tile: Callable[[str], tuple[int, ...]]
  latents: Callable[[str], tuple[int, ...]]
  complete: Callable[[Sequence[dict[str, Any]]], Sequence[dict[str, Any]]] = lambda samples: samples
