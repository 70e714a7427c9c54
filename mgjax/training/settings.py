"""The settings of a training run: dataclasses that check what a configuration says, once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mgjax.checkpoints.orbax_io import KEEP_KEYS, Keep, keep_settings
from mgjax.core.errors import ConfigError
from mgjax.runtime.watchdog import Limits
from mgjax.training.guard import UpdateGuard

SCHEDULES = ('constant', 'cosine', 'exponential', 'linear')


@dataclasses.dataclass(frozen=True)
class Patience:
  """When the validation loss stalls, and what follows: `optimizer.plateau` of a configuration.

  Attributes:
    patience: validations in a row without improvement that are a stall; 0 never lowers the rate.
    factor: what the rate is multiplied with at a stall.
    improvement: by which fraction of the best loss so far another one must be lower to be better.
    lowest: the fraction of the schedule's rate below which it never falls.
  """

  patience: int = 0
  factor: float = 0.5
  improvement: float = 1e-3
  lowest: float = 0.1

  def __post_init__(self):
    if self.patience < 0:
      raise ConfigError(
        f'optimizer.plateau.patience is {self.patience}, expected 0 for never, or more'
      )
    for name in ('factor', 'lowest'):
      if not 0 < (value := getattr(self, name)) <= 1:
        raise ConfigError(
          f'optimizer.plateau.{name} is {value}, expected a fraction above 0, at most 1'
        )
    if not 0 <= self.improvement < 1:
      raise ConfigError(
        f'optimizer.plateau.improvement is {self.improvement}, expected a fraction in [0, 1)'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
  """AdamW and its learning rate: `optimizer` of a configuration or of a discriminator.

  Attributes:
    schedule: shape of the learning rate, one of `SCHEDULES`; see `make_learning_rate`.
    learning_rate: after the warm-up.
    warmup: steps of the warm-up.
    final_fraction: where a decay ends, as a fraction of the rate; above 0 if it is exponential.
    beta1: decay of the mean of the gradients.
    beta2: decay of the mean of their squares.
    epsilon: keeps the division finite.
    weight_decay: relative to the learning rate.
    clip: the largest global norm of gradients that passes unchanged; inf never clips.
    plateau: how the rate falls with the validation loss.
  """

  learning_rate: float
  schedule: str = 'constant'
  warmup: int = 0
  final_fraction: float = 0.0
  beta1: float = 0.9
  beta2: float = 0.95
  epsilon: float = 1e-8
  weight_decay: float = 0.1
  clip: float = 1.0
  plateau: Patience = Patience()

  def __post_init__(self):
    if self.schedule not in SCHEDULES:
      raise ConfigError(
        f'optimizer.schedule is {self.schedule!r}, expected one of {", ".join(SCHEDULES)}'
      )
    if not 0 <= self.final_fraction <= 1:
      raise ConfigError(
        f'optimizer.final_fraction is {self.final_fraction}, expected a fraction of the rate in '
        '[0, 1]'
      )
    if self.schedule == 'exponential' and not self.final_fraction:
      raise ConfigError(
        'optimizer.final_fraction is 0, expected more: an exponential schedule does not reach 0'
      )
    for name in ('beta1', 'beta2'):
      if not 0 <= (beta := getattr(self, name)) < 1:
        raise ConfigError(f'optimizer.{name} is {beta}, expected a decay in [0, 1)')
    if not self.clip > 0:
      raise ConfigError(f'optimizer.clip is {self.clip}, expected a norm above 0; inf never clips')
    if not self.weight_decay >= 0:
      raise ConfigError(f'optimizer.weight_decay is {self.weight_decay}, expected at least 0')


def optimizer_settings(fields: Mapping[str, Any]) -> OptimizerSettings:
  """Makes the settings of an optimizer from the keys that configurations have."""
  return OptimizerSettings(**{**fields, 'plateau': Patience(**(fields.get('plateau') or {}))})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
  """How long a run trains and what happens when: `train` of a configuration, and its `seed`.

  What happens every so many steps never happens at 0; the last step always reports and saves.

  Attributes:
    steps: length of the run.
    log_every: a line of metrics, the mean over the steps since the last one.
    save_every: a checkpoint.
    evaluate_every: the validation loss.
    show_every: pictures.
    seed: of all draws.
    ema_decay: of the average of the parameters.
    accumulate: micro-batches that a batch is cut into.
    device_groups: groups of devices that `accumulate` is meant for; 0 for any number.
    validation_batches: of each bucket.
    checkpoints: where checkpoints lie; '' for the work directory.
    keep: which of them stay.
    guard: which updates are skipped.
    limits: seconds that each phase may take.
  """

  steps: int
  log_every: int = 0
  save_every: int = 0
  evaluate_every: int = 0
  show_every: int = 0
  seed: int = 0
  ema_decay: float = 0.999
  accumulate: int = 1
  device_groups: int = 0
  validation_batches: int = 0
  checkpoints: str = ''
  keep: Keep = dataclasses.field(default_factory=Keep)
  guard: UpdateGuard = dataclasses.field(default_factory=UpdateGuard)
  limits: Limits = dataclasses.field(default_factory=Limits)

  def __post_init__(self):
    least = {'steps': 0, 'accumulate': 1, 'device_groups': 0, 'validation_batches': 0}
    least |= dict.fromkeys(('log_every', 'save_every', 'evaluate_every', 'show_every'), 0)
    for name, lowest in least.items():
      if (value := getattr(self, name)) < lowest:
        raise ConfigError(f'train.{name} = {value}; take {lowest} or more')
    if not 0 <= self.ema_decay < 1:
      raise ConfigError(f'train.ema_decay = {self.ema_decay}; take a decay in [0, 1)')
    if self.keep.best and (not self.evaluate_every or self.save_every % self.evaluate_every):
      raise ConfigError(
        f'train.keep_best = {self.keep.best} needs the validation loss of every checkpoint, but '
        f'train.save_every = {self.save_every} is no multiple of '
        f'train.evaluate_every = {self.evaluate_every}'
      )


def run_settings(fields: Mapping[str, Any], seed: int = 0) -> RunSettings:
  """Makes the settings of a run from the keys that configurations have under `train`."""
  others = {key: value for key, value in fields.items() if key not in KEEP_KEYS}
  guard, limits = UpdateGuard(**others.pop('faults', {})), Limits(**others.pop('limits', {}))
  return RunSettings(seed=seed, keep=keep_settings(fields), guard=guard, limits=limits, **others)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BucketSettings:
  """How many samples of a bucket come at once and how often: what batches need of `buckets`.

  Attributes:
    batch_size: samples in a batch over all hosts.
    weight: relative number of batches from this bucket.
    frames: of a video, 1 of an image; None of sounds.
    seconds: of a sound; None of videos.
  """

  batch_size: int
  weight: float = 1
  frames: int | None = None
  seconds: float | None = None

  @property
  def length(self) -> float:
    """Frames or seconds of a sample."""
    return self.frames or self.seconds or 0.0


def bucket_settings(buckets: Mapping[str, Mapping[str, Any]]) -> dict[str, BucketSettings]:
  """Makes the settings of all buckets from the keys that configurations have."""
  read = [field.name for field in dataclasses.fields(BucketSettings)]
  return {
    name: BucketSettings(**{key: fields[key] for key in read if key in fields})
    for name, fields in buckets.items()
  }
