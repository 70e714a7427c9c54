"""What a flow model learns: `OBJECTIVES`, a maker for each kind of objective."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Objective, Predict, Tree
from mgjax.flow.distillation.adversarial import make_adversarial, make_discriminator_objective
from mgjax.flow.distillation.distribution_matching import (
  make_critic_objective,
  make_distribution_matching,
  make_matching_validation,
)
from mgjax.flow.distillation.few_steps import make_few_steps
from mgjax.flow.distillation.guidance import make_guidance_distillation
from mgjax.flow.distillation.mean_flow import make_mean_flow
from mgjax.flow.distillation.preference import make_preference
from mgjax.flow.objective import make_objective
from mgjax.flow.prediction import make_prediction
from mgjax.flow.times import make_sampler
from mgjax.models.conditioning.clips.rejected import Rejected
from mgjax.models.conditioning.numbers.guidance_scale import GuidanceScale
from mgjax.models.conditioning.numbers.step_size import StepSize
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.settings import VELOCITY, ObjectiveSettings


@dataclasses.dataclass(frozen=True)
class Objectives:
  """What training needs of an objective.

  Those of students take the parameters of their teacher, whose module is the same, as well.

  Attributes:
    train: what training minimises; of a model with a critic that is `student`.
    validate: the same without drawn times and dropped conditions.
    student: what a model minimises against a critic, or None; see `training.spec.Adversary`.
    critic: what that critic minimises, or None.
  """

  train: Objective
  validate: Objective
  student: Callable[..., Tree] | None = None
  critic: Callable[..., Tree] | None = None


def make_objectives(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  """Makes the objectives that `config.objective` describes.

  Raises ConfigError if dropout names other conditionings than the model has, or if a model without
  the conditioning for it is to learn few steps or guidance.
  """
  dropout = settings.dropout
  names = {conditioning.name for conditioning in model.conditionings}
  if set(dropout) != names:
    raise ConfigError(
      f'objective.dropout names {sorted(dropout)}, the conditionings are {sorted(names)}; give '
      'each a rate, 0 for never: guidance means nothing for a condition that is never dropped'
    )
  return OBJECTIVES[settings.kind](settings, model)


def _make_velocity(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  prediction = make_prediction(settings.prediction)
  train = make_objective(
    dropout=settings.dropout,
    drop_all_probability=settings.drop_all_probability,
    sample_time=make_sampler(**settings.time),
    prediction=prediction,
    min_snr=settings.min_snr,
    places=settings.time_places,
  )
  fixed = make_sampler(**settings.validation_time)
  return Objectives(train, make_objective(dropout={}, sample_time=fixed, prediction=prediction))


def _make_few_steps(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  _check_told_step(model)
  objective = make_few_steps(settings.student, _make_teach(model))
  return Objectives(objective, objective)


def _make_distribution_matching(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  _check_told_step(model)
  matching = settings.student
  teach = _make_teach(model)
  drawn, fixed = make_sampler(**settings.time), make_sampler(**settings.validation_time)
  alone = make_matching_validation(matching, teach, sample_time=fixed)
  return Objectives(
    train=alone,
    validate=alone,
    student=make_distribution_matching(matching, teach, sample_time=drawn),
    critic=make_critic_objective(sample_time=drawn),
  )


def _make_adversarial(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  _check_told_step(model)
  adversarial = settings.student
  fixed = make_sampler(**settings.validation_time)
  alone = make_matching_validation(adversarial, _make_teach(model), sample_time=fixed)
  return Objectives(
    train=alone,
    validate=alone,
    student=make_adversarial(adversarial),
    critic=make_discriminator_objective(adversarial),
  )


def _make_guidance(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  distilled = settings.student
  if not any(
    isinstance(conditioning, GuidanceScale) and tuple(conditioning.conditions) == distilled.names
    for conditioning in model.conditionings
  ):
    raise ConfigError(
      'objective.guidance_distillation, but the model reads no scale of guidance; '
      f"give model.conditionings one of {{'kind': 'guidance_scale', 'conditions': "
      f'{distilled.names}}} and objective.dropout its rate, 0'
    )
  make = functools.partial(make_guidance_distillation, distilled, _make_teach(model))
  return Objectives(
    train=make(sample_time=make_sampler(**settings.time)),
    validate=make(sample_time=make_sampler(**settings.validation_time)),
  )


def _make_preference(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  if not any(isinstance(conditioning, Rejected) for conditioning in model.conditionings):
    raise ConfigError(
      'objective.preference, but batches have no sample that lost; give model.conditionings one of '
      "{'kind': 'rejected'} and objective.dropout its rate, 0"
    )
  make = functools.partial(
    make_preference,
    settings.student,
    _make_teach(model),
    prediction=make_prediction(settings.prediction),
  )
  return Objectives(
    train=make(dropout=settings.dropout, sample_time=make_sampler(**settings.time)),
    validate=make(dropout={}, sample_time=make_sampler(**settings.validation_time)),
  )


def _make_mean_flow(settings: ObjectiveSettings, model: FlowModel) -> Objectives:
  _check_told_step(model)
  conditions = [name for name, rate in settings.dropout.items() if rate]
  make = functools.partial(make_mean_flow, settings.student, conditions=conditions)
  return Objectives(
    train=make(
      dropout=settings.dropout,
      drop_all_probability=settings.drop_all_probability,
      sample_time=make_sampler(**settings.time),
    ),
    validate=make(dropout={}, sample_time=make_sampler(**settings.validation_time)),
  )


def _make_teach(model: FlowModel) -> Callable[[Tree], Predict]:
  return lambda frozen: functools.partial(model.apply, {'params': frozen})


def _check_told_step(model: FlowModel) -> None:
  if not any(isinstance(conditioning, StepSize) for conditioning in model.conditionings):
    raise ConfigError(
      'few steps shall be learned, but the model does not read which step to take; give '
      "model.conditionings one of {'kind': 'step_size'} and objective.dropout its rate, 0"
    )


# By `ObjectiveSettings.kind`.
OBJECTIVES: Mapping[str, Callable[[ObjectiveSettings, FlowModel], Objectives]] = {
  VELOCITY: _make_velocity,
  'few_steps': _make_few_steps,
  'distribution_matching': _make_distribution_matching,
  'adversarial': _make_adversarial,
  'guidance_distillation': _make_guidance,
  'preference': _make_preference,
  'mean_flow': _make_mean_flow,
}
