"""The sections `objective` and `sample` of a flow model's configuration, as checked dataclasses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mgjax.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
  """`config.objective`: which times training draws, and how often it drops conditionings.

  Attributes:
    dropout: conditioning name -> probability that a row does not see it.
    time: `name` of a time sampler (`flow.times.TIMES`) and its parameters.
    drop_all_probability: that a row sees none of those that are ever dropped.

  Raises:
    ConfigError: a rate is not a probability.
  """

  dropout: Mapping[str, float]
  time: Mapping[str, Any]
  drop_all_probability: float = 0.0

  def __post_init__(self):
    rates = {f'dropout.{name}': rate for name, rate in self.dropout.items()}
    for key, rate in {**rates, 'drop_all_probability': self.drop_all_probability}.items():
      if not 0 <= rate <= 1:
        raise ConfigError(f'objective.{key} = {rate}; expected a probability, 0 to 1')


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """`config.sample`: all that a sample depends on beside weights, conditions, noise and size.

  Attributes:
    guidance: conditioning name -> scale.
    schedule: `name` of a schedule (`flow.schedules.SCHEDULES`) and its options.
    solver: a name in `flow.solvers.SOLVERS`, or 'dormand_prince'.
    steps: of the solver.

  Raises:
    ConfigError: there are no steps.
  """

  guidance: Mapping[str, float]
  schedule: Mapping[str, Any]
  solver: str
  steps: int

  def __post_init__(self):
    if self.steps < 1:
      raise ConfigError(f'sample.steps = {self.steps}; expected 1 or more')

  def changed(self, changes: Mapping[str, Any]) -> 'SampleSettings':
    """Returns them with changes: None keeps a value, a number for `guidance` scales all of it."""
    given = {key: value for key, value in changes.items() if value is not None}
    if isinstance(scale := given.get('guidance'), int | float):
      given['guidance'] = dict.fromkeys(self.guidance, scale)
    return dataclasses.replace(self, **given)
