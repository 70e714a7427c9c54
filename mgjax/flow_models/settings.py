"""The sections `objective` and `sample` of a flow model's configuration, as checked dataclasses."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from mgjax.core.settings import Finite, Fraction, Range, check
from mgjax.flow.prediction import make_prediction


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
  """`config.objective`: which times training draws, and how often it drops conditionings.

  Attributes:
    dropout: conditioning name -> probability that a row does not see it.
    time: `name` of a time sampler (`flow.times.TIMES`) and its parameters.
    drop_all_probability: that a row sees none of those that are ever dropped.
    prediction: `name` of what the model learns to answer (`flow.prediction.PREDICTIONS`) and its
      fields; sampling makes a velocity of it.

  Raises:
    ConfigError: a rate is no probability, or there is no such prediction.
  """

  dropout: Mapping[str, Fraction]
  time: Mapping[str, Any]
  drop_all_probability: Fraction = 0.0
  prediction: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {'name': 'flow'})

  def __post_init__(self):
    check(self)
    make_prediction(self.prediction)


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

  guidance: Mapping[str, Finite]
  schedule: Mapping[str, Any]
  solver: str
  steps: Annotated[int, Range(least=1, most=100_000)]

  def __post_init__(self):
    check(self)

  def changed(self, changes: Mapping[str, Any]) -> 'SampleSettings':
    """Returns them with changes: None keeps a value, a number for `guidance` scales all of it."""
    given = {key: value for key, value in changes.items() if value is not None}
    if isinstance(scale := given.get('guidance'), int | float):
      given['guidance'] = dict.fromkeys(self.guidance, scale)
    return dataclasses.replace(self, **given)
