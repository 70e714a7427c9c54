"""The sections `objective` and `sample` of a flow model's configuration, as checked dataclasses."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np

from mgjax.core.configuration.keys import Fields, did_you_mean, join_list, split_list
from mgjax.core.errors import ConfigError
from mgjax.core.precision import stored_type
from mgjax.core.settings import (
  Count,
  Fraction,
  Magnitude,
  Range,
  Strength,
  annotations,
  arguments,
  check,
  checked,
  unpack,
)
from mgjax.flow.distillation.adversarial import Adversarial
from mgjax.flow.distillation.distribution_matching import DistributionMatching, Simulated
from mgjax.flow.distillation.few_steps import FewSteps
from mgjax.flow.distillation.guidance import GuidanceDistillation
from mgjax.flow.distillation.mean_flow import MeanFlow
from mgjax.flow.distillation.preference import Preference
from mgjax.flow.guidance import Guidance, check_guidance
from mgjax.flow.path import FlowMatching
from mgjax.flow.prediction import make_prediction
from mgjax.flow.sample import check_solver
from mgjax.flow.schedules import changed_schedule, make_time_grid
from mgjax.flow.times import make_sampler
from mgjax.models.flow_model.alignment import Alignment
from mgjax.models.foreign_weights.numbers import is_number, number_in

VELOCITY = 'velocity'  # the kind of a model that learns from data alone
# What a model may learn in place of its velocity, of a teacher, of votes or of data, by the field
# that describes it.
STUDENTS = {
  'few_steps': FewSteps,
  'distribution_matching': DistributionMatching,
  'adversarial': Adversarial,
  'guidance_distillation': GuidanceDistillation,
  'preference': Preference,
  'mean_flow': MeanFlow,
}


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
  """`config.objective`: which times training draws, and how often it drops conditionings.

  Attributes:
    dropout: conditioning name -> probability that a row does not see it.
    time: `name` of a time sampler (`flow.times.TIMES`) and its parameters.
    validation_time: the same of validation, which drops nothing.
    drop_all_probability: that a row sees none of those that are ever dropped.
    prediction: `name` of what the model learns to answer (`flow.prediction.PREDICTIONS`) and its
      fields; sampling makes a velocity of it.
    min_snr, time_places: as `min_snr` and `places` of `flow.objective.make_objective`, in training.
    alignment: fields of `models.flow_model.alignment.Alignment`, a further term of the loss of a
      model that learns its velocity; none without it.
    few_steps: fields of `flow.distillation.few_steps.FewSteps`: the model learns to take them in
      place of all that stands before; none learns its velocity.
    distribution_matching: fields of `flow.distillation.distribution_matching.DistributionMatching`:
      the model learns few steps against a critic, which `config.discriminator` describes.
    adversarial: fields of `flow.distillation.adversarial.Adversarial`: the model learns few steps
      against a discriminator of data, a model of `config.model` with what `config.discriminator`
      says of it.
    guidance_distillation: fields of `flow.distillation.guidance.GuidanceDistillation`: the model
      learns the guided velocity of a teacher, at times drawn as above, and drops nothing.
    preference: fields of `flow.distillation.preference.Preference`: the model learns which of two
      samples is the better one, against the model at `start_from`.
    mean_flow: fields of `flow.distillation.mean_flow.MeanFlow`: the model learns steps of any
      length from data.

  Raises:
    ConfigError: a rate is no probability, there is no such prediction, or one that is not 'flow' is
      to learn from a teacher, or two things at once, or to be aligned as well.
  """

  dropout: Mapping[str, Fraction]
  time: Fields
  validation_time: Fields = dataclasses.field(default_factory=lambda: {'name': 'stratified'})
  drop_all_probability: Fraction = 0.0
  prediction: Fields = dataclasses.field(default_factory=lambda: {'name': 'flow'})
  min_snr: Magnitude = 0.0
  time_places: Count = 0
  alignment: Fields = dataclasses.field(default_factory=dict)
  few_steps: Fields = dataclasses.field(default_factory=dict)
  distribution_matching: Fields = dataclasses.field(default_factory=dict)
  adversarial: Fields = dataclasses.field(default_factory=dict)
  guidance_distillation: Fields = dataclasses.field(default_factory=dict)
  preference: Fields = dataclasses.field(default_factory=dict)
  mean_flow: Fields = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(self)
    prediction = make_prediction(self.prediction)
    for name in ('time', 'validation_time'):
      unpack(make_sampler, getattr(self, name), f'objective.{name}')
    learnt = [name for name in STUDENTS if getattr(self, name)]
    if len(learnt) > 1:
      raise ConfigError(
        f'objective.{" and objective.".join(learnt)}; one model learns one of them: the '
        "teacher's guidance is learned with its steps"
      )
    if self.alignment and learnt:
      raise ConfigError(f'objective.alignment and objective.{self.kind}; expected one of them')
    if (self.teacher or self.mean_flow) and not isinstance(prediction, FlowMatching):
      raise ConfigError(
        f'objective.{self.kind} of a model with prediction.name = {self.prediction["name"]!r}; '
        "expected 'flow', whose answer is a velocity"
      )

  @property
  def kind(self) -> str:
    """What is learned: the name of the field that says so, a key of `objectives.OBJECTIVES`."""
    return next((name for name in STUDENTS if getattr(self, name)), VELOCITY)

  @functools.cached_property
  def student(self) -> Any:
    """What the model learns in place of its velocity, of a type in `STUDENTS`; None if that."""
    if self.kind == VELOCITY:
      return None
    return unpack(STUDENTS[self.kind], getattr(self, self.kind), f'objective.{self.kind}')

  @functools.cached_property
  def aligned(self) -> Alignment | None:
    """What a middle layer is aligned to; None if to nothing."""
    return unpack(Alignment, self.alignment, 'objective.alignment') if self.alignment else None

  @property
  def steps_learnt(self) -> FewSteps | Simulated | MeanFlow | None:
    """Which few steps the model learns; None where it learns its velocity."""
    return self.student if isinstance(self.student, FewSteps | Simulated | MeanFlow) else None

  @property
  def guidance_learnt(self) -> GuidanceDistillation | None:
    """Which guidance the model learns in one pass; None where it learns none."""
    return self.student if isinstance(self.student, GuidanceDistillation) else None

  @property
  def teacher(self) -> str:
    """The work directory of whom the model learns from; '' where it learns from data alone."""
    return getattr(self.student, 'teacher', '')

  def in_passes(self, sample: 'SampleSettings') -> 'SampleSettings':
    """Returns the settings of a sampler without the guidance that costs no passes of its own."""
    return sample.changed({'guidance': ()}) if self.guidance_learnt else sample


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """`config.sample`: all that a sample depends on beside weights, conditions, noise and size.

  Attributes:
    guidance: pairs of a conditioning's name and its scale, from the outermost to the innermost
      (`flow.guidance.make_guided`): a number, or (number, (low, high)), an interval of flow time,
      or several of these.
    schedule: `name` of a schedule (`flow.schedules.SCHEDULES`) and its options.
    solver: a name in `flow.solvers.SOLVERS`, or 'dormand_prince'.
    steps: of the solver.
    known_steps: by which latents of video are moved towards frames that are known, where any are
      (`models.tae.fitting.make_fit`); 0 leaves them as the model made them. Not in public sources.
    reuse: relative change of the velocity below which it is not computed anew
      (`flow.sample.sample_reusing`); 0 for at every step.
    shifts: how often a finished video is noised to `shift_time` and sampled from there on. Every
      other time it is moved by half a token, so that no seam between tokens stays
      (`sections/video/shifts.py`). Even, so that the last time is at its place. Not in public
      sources.
    strength: of an editor, which begins at its source noised to t = 1 - strength; 1 at noise.
    lora: adapters that change kernels: files, folders or work directories with a comma between
      them, each with ':weight' behind it if that is not 1 (`sections/flow/lora_files.py`); a comma
      of a path is written '\\,'.
    expert: 'directory@time' of a run of the same model that answers in place of this one from that
      flow time on; '' for none.
    expert_lora: adapters of the expert, written as `lora`, whose adapters change this run alone. A
      file for both models stands in both fields, with a weight in each.
    weights: the type of the backbone's kernels (`core.precision.STORED`, `nn/quantize.py`)
      in a pipeline; '' is the one that they are saved in. Samples during training keep theirs.

  Raises:
    ConfigError: there are no steps, there is no such solver or type, scales of guidance do not go
      together, a solver is to reuse velocities that cannot, or shifts do not lead back. Or there
      are adapters for an expert and no expert.
  """

  guidance: Guidance
  schedule: Fields
  solver: str
  steps: Annotated[int, Range(least=1, most=100_000)]
  known_steps: Count = 10
  reuse: Magnitude = 0.0
  shifts: Count = 0
  shift_time: Annotated[float, Range(above=0, below=1)] = 0.4
  strength: Strength = 1.0
  lora: str = ''
  expert: str = ''
  expert_lora: str = ''
  weights: str = ''

  def __post_init__(self):
    check(self)
    if self.weights:
      stored_type(self.weights)
    arguments(make_time_grid, self.schedule, 'schedule', given=('steps',))
    check_solver(self.solver, self.reuse)
    check_guidance(self.guidance)
    _ = self.expert_since, self.loras, self.expert_loras
    if self.shifts % 2:
      raise ConfigError(f'shifts = {self.shifts}; expected an even number')
    if self.expert_lora and not self.expert:
      raise ConfigError(
        f'expert_lora = {self.expert_lora!r:.100} without an expert; give an expert as well, as '
        "'runs/late@0.125', or the adapters as lora"
      )

  @property
  def loras(self) -> list[tuple[str, float]]:
    """The paths of adapters and their weights."""
    return _weighted('lora', self.lora)

  @property
  def expert_loras(self) -> list[tuple[str, float]]:
    """The paths of the expert's adapters and their weights."""
    return _weighted('expert_lora', self.expert_lora)

  @property
  def expert_since(self) -> tuple[str, float]:
    """The directory of the expert and the flow time from which on it is asked."""
    directory, _, time = self.expert.rpartition('@')
    try:
      since = number_in(time or '1')
    except ValueError:
      since = -1.0
    if self.expert and not (directory and 0 < since < 1):
      raise ConfigError(f"expert = {self.expert!r}; expected directory@time, as in 'runs/late@0.4'")
    return directory, since

  def placed(self, find: Callable[[str], str]) -> 'SampleSettings':
    """Returns settings with `find` applied to the paths of the expert and of adapters.

    Raises ConfigError if a path cannot be checked.
    """
    changes = {}
    expert, since = self.expert_since
    try:
      if self.expert and find(expert) != expert:
        changes['expert'] = f'{find(expert)}@{since!r}'
      for name, loras in (('lora', self.loras), ('expert_lora', self.expert_loras)):
        if any(find(path) != path for path, _ in loras):
          changes[name] = join_list(f'{find(path)}:{weight!r}' for path, weight in loras)
    except OSError as error:
      raise ConfigError(
        f'{self.lora or self.expert!r:.100}: {error.strerror}; expected a file or work directory'
      ) from error
    return dataclasses.replace(self, **changes)

  @property
  def solver_of_windows(self) -> str:
    """The solver of a film that is sampled window by window.
    Raises ConfigError if velocities are to be reused, which windows at different times cannot.
    """
    if self.reuse:
      raise ConfigError(f'reuse = {self.reuse:g} of a film that is made in windows; give 0')
    return self.solver

  def changed(self, changes: Fields) -> 'SampleSettings':
    """Returns them with changes; None keeps a value.

    For `guidance`, pairs replace all of it, and one scale becomes that of every condition. A
    mapping, name -> scale, changes the conditions that it names: they stand in its order in the
    places that they had, and new ones come last. A mapping for `schedule` changes the fields that
    it names; options that a new schedule does not take are left out.
    Raises ConfigError if a value is out of its range, or they do not go together.
    """
    fields = {
      key: value.item() if isinstance(value, np.generic) else value
      for key, value in changes.items()
      if value is not None
    }
    if 'guidance' in fields:
      fields['guidance'] = _changed_guidance(self.guidance, fields['guidance'])
    if 'schedule' in fields:
      schedule = fields['schedule']
      schedule = {'name': schedule} if isinstance(schedule, str) else schedule
      schedule = checked(Fields, schedule, 'schedule')
      fields['schedule'] = changed_schedule(self.schedule, schedule)
    hints = annotations(type(self))
    if unknown := sorted(fields.keys() - hints):
      raise ConfigError(did_you_mean(unknown[0], hints))
    fields = {name: checked(hints[name], value, name) for name, value in fields.items()}
    return dataclasses.replace(self, **fields)


def _weighted(name: str, value: str) -> list[tuple[str, float]]:
  """Returns the paths of adapters and their weights in the field of this name."""
  adapters = []
  for entry in split_list(value) if value else ():
    path, colon, text = entry.rpartition(':')
    try:
      float(text if colon else '')
    except ValueError:  # a colon of a path
      path, text = entry, '1'
    weight = math.inf
    with contextlib.suppress(ValueError):
      weight = number_in(text)
    if not (path and is_number(weight)):
      raise ConfigError(
        f'{name} = {value!r:.200}; expected a finite weight behind a place, as in style:0.8, '
        'and one comma between two'
      )
    adapters.append((path, weight))
  return adapters


def _is_scale(value: Any) -> bool:
  """Whether a value is a number or intervals of numbers, and no pairs of names and scales."""
  while isinstance(value, list | tuple) and value:
    value = value[0]
  return isinstance(value, int | float)


def _changed_guidance(old: Guidance, change: Any) -> Guidance:
  if isinstance(change, Mapping):
    named = list(change.items())
    changed = [named.pop(0) if name in change else (name, scale) for name, scale in old]
    change = [*changed, *named]
  elif _is_scale(change):
    if not old and change != 1:
      raise ConfigError(
        f'guidance = {change}: the model guides by no condition; name one, as in '
        f"{{'text': {change}}}"
      )
    change = [(name, change) for name, _ in old]
  return checked(Guidance, change, 'guidance')
