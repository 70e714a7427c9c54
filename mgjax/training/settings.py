"""The settings of a training run: dataclasses that check what a configuration says, once."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import (
  Checked,
  Count,
  Fraction,
  Magnitude,
  Positive,
  Range,
  check,
  checked,
  unpack,
)
from mgjax.data.settings import DataSettings
from mgjax.training.checkpoints.orbax_io import Keep
from mgjax.training.guard import UpdateGuard
from mgjax.training.monitoring.watchdog import PhaseLimits

_SCHEDULES = ('constant', 'cosine', 'exponential', 'linear')
_BELOW_1 = Annotated[float, Range(least=0, below=1)]
_SHARE = Annotated[float, Range(above=0, most=1)]


@dataclasses.dataclass(frozen=True)
class Patience(Checked):
  """When the validation loss stalls, and what follows: `optimizer.plateau` of a configuration.

  Attributes:
    patience: validations in a row without improvement that are a stall; 0 never lowers the rate.
    factor: what the rate is multiplied with at a stall.
    improvement: by which fraction of the best loss so far another one must be lower to be better.
    lowest: the fraction of the schedule's rate below which it never falls.
  """

  patience: Count = 0
  factor: _SHARE = 0.5
  improvement: _BELOW_1 = 1e-3
  lowest: _SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
  """An optimizer and its learning rate: `optimizer` of a configuration or of a discriminator.

  Attributes:
    name: one of `OPTIMIZERS` (`training/optimizers/optimizer.py`).
    schedule: the shape of the learning rate, 'constant', 'cosine', 'exponential' or 'linear'.
    learning_rate: after the warm-up; AdamW moves a weight by about as much a step.
    warmup: steps in which it rises from 0.
    beta1, beta2: how much of the running means of gradients and of their squares a step keeps.
    epsilon: is added to the root of the latter.
    final_fraction: where a decay ends, as a fraction of the rate; above 0 if it is exponential.
    weight_decay: relative to the learning rate.
    clip: the largest global norm of gradients that passes unchanged; inf never clips.
    rates: (pattern of names, factor of the rate), the first that matches; see
      `training/optimizers/rates.py`.
  """

  learning_rate: Magnitude
  name: str = 'adamw'
  schedule: str = 'constant'
  warmup: Count = 0
  final_fraction: Fraction = 0.0
  beta1: _BELOW_1 = 0.9
  beta2: _BELOW_1 = 0.95
  epsilon: Annotated[float, Range(above=0)] = 1e-8
  weight_decay: Magnitude = 0.1
  clip: Annotated[float, Range(above=0, infinite=True)] = 1.0
  plateau: Patience = Patience()
  rates: tuple[tuple[str, Magnitude], ...] = ()

  def __post_init__(self):
    check(self)
    check_one_of(f'schedule = {self.schedule!r}', self.schedule, _SCHEDULES)
    if self.schedule == 'exponential' and not self.final_fraction:
      raise ConfigError(
        'final_fraction = 0; expected more, for an exponential schedule does not reach 0'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarySettings(Checked):
  """What the engine reads of `discriminator`, whose other keys are fields of the network.

  `start` is the first step in which it counts and learns.
  """

  optimizer: OptimizerSettings
  start: Count = 0


def adversary_settings(fields: Fields) -> tuple[AdversarySettings, JSON]:
  """Makes the engine's settings of `discriminator`; returns them and the network's fields."""
  names = [field.name for field in dataclasses.fields(AdversarySettings)]
  ours = {name: fields[name] for name in names if name in fields}
  others = {name: value for name, value in fields.items() if name not in names}
  return unpack(AdversarySettings, ours, 'discriminator'), others


def optimizer_settings(fields: Fields) -> OptimizerSettings:
  """Makes the settings of an optimizer from the keys that configurations have."""
  return unpack(OptimizerSettings, fields, 'optimizer')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(Keep):
  """How long a run trains, and its intervals: `train` of a configuration, and its `seed`.

  An interval of 0 steps means never. The last step always reports and saves.

  Attributes:
    steps: of the optimizer in all.
    log_every: a line of metrics, the mean over the steps since the last one.
    save_every, evaluate_every, show_every: a checkpoint, the validation loss, pictures.
    ema_decay: of the average of parameters that samples are made with.
    accumulate: micro-batches that a batch is cut into.
    device_groups: the number of groups of devices that `accumulate` was chosen for; 0 for any.
    validation_batches: of each bucket.
    checkpoints: the directory of checkpoints; '' for the work directory.
    faults: which updates are skipped.
    limits: the most seconds of each phase.
    trackers: names of `training/monitoring/trackers.py` that get the metrics of `metrics.jsonl`.
  """

  steps: Count
  log_every: Count = 0
  save_every: Count = 0
  evaluate_every: Count = 0
  show_every: Count = 0
  seed: Count = 0
  ema_decay: _BELOW_1 = 0.999
  accumulate: Positive = 1
  device_groups: Count = 0
  validation_batches: Count = 0
  checkpoints: str = ''
  faults: UpdateGuard = dataclasses.field(default_factory=UpdateGuard)
  limits: PhaseLimits = dataclasses.field(default_factory=PhaseLimits)
  trackers: tuple[str, ...] = ('tensorboard',)

  @property
  def guard(self) -> UpdateGuard:
    """The update guard, whose configuration key is `train.faults`."""
    return self.faults

  def __post_init__(self):
    super().__post_init__()
    if self.keep_best and (not self.evaluate_every or self.save_every % self.evaluate_every):
      raise ConfigError(
        f'train.keep_best = {self.keep_best} needs the validation loss of every checkpoint, but '
        f'train.save_every = {self.save_every} is no multiple of '
        f'train.evaluate_every = {self.evaluate_every}'
      )


def run_settings(fields: Fields, seed: object = 0) -> RunSettings:
  """Makes the settings of a run from the keys that configurations have under `train`."""
  checked(Count, seed, 'seed')
  return unpack(RunSettings, fields, 'train', seed=seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BucketSettings(Checked):
  """The fields of `buckets` that make batches: the batch size of a bucket, and its weight.

  Attributes:
    batch_size: samples in a batch over all hosts.
    weight: relative number of batches from this bucket.
    frames: of a video, 1 of an image; None of audio.
    seconds: of a sound; None of videos.
    source: of the samples, a name in `data.sources`; '' for the other data.
  """

  batch_size: Positive
  weight: Annotated[float, Range(above=0)] = 1
  frames: Positive | None = None
  seconds: Annotated[float, Range(above=0)] | None = None
  source: str = ''

  @property
  def length(self) -> float:
    """Frames or seconds of a sample."""
    return self.frames or self.seconds or 0.0


def bucket_settings(
  buckets: Mapping[str, Fields], data: DataSettings | None = None
) -> dict[str, BucketSettings]:
  """Makes the settings of all buckets of a configuration; `data` has the sources.
  Raises ConfigError if a value is out of range, a bucket names an unknown source, or no bucket
  names one of the sources.
  """
  keys = [field.name for field in dataclasses.fields(BucketSettings)]
  settings = {
    name: unpack(
      BucketSettings, {key: fields[key] for key in keys if key in fields}, f'buckets.{name}'
    )
    for name, fields in buckets.items()
  }
  if data is not None:
    data.check_named({name: bucket.source for name, bucket in settings.items()})
  return settings
