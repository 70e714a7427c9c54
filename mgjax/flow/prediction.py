"""What a flow model learns to answer, by the names of configurations (Movie Gen §3.1.2, Table 8),
checked by tests/flow/test_diffusion.py.
"""

from collections.abc import Mapping
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.flow.diffusion import VPrediction
from mgjax.flow.path import FlowMatching
from mgjax.flow.x_prediction import Regression, XPrediction

# Each has `train(data, noise, time)`, what a model sees and should answer, `weight(time)` of the
# squared error in the loss, and `as_velocity(predict)`, which makes of its answers the velocities
# that solvers want.
Prediction = FlowMatching | VPrediction | XPrediction | Regression
PREDICTIONS: dict[str, type[Prediction]] = {
  'flow': FlowMatching,
  'v_prediction': VPrediction,
  'x_prediction': XPrediction,
  'regression': Regression,
}


def make_prediction(fields: Mapping[str, Any]) -> Prediction:
  """Makes what a configuration names: `name`, one of `PREDICTIONS`, and its fields.
  Raises ConfigError if there is none of this name, or it does not take one of the fields or values.
  """
  options = dict(fields)
  name = options.pop('name', None)
  if name not in PREDICTIONS:
    raise ConfigError(f'objective.prediction.name = {name!r}; expected {" or ".join(PREDICTIONS)}')
  return unpack(PREDICTIONS[name], options, 'objective.prediction')
