"""The targets of flow models, by their names in configurations (Movie Gen §3.1.2, Table 8),
checked by tests/flow/test_diffusion.py.
"""

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.flow.diffusion import VPrediction
from mgjax.flow.path import FlowMatching
from mgjax.flow.x_prediction import Regression, XPrediction

# Each has `train(data, noise, time)`, which returns the input and the target of a model,
# `weight(time)` of the squared error in the loss, and `as_velocity(predict)`, which converts
# outputs to velocities for solvers.
Prediction = FlowMatching | VPrediction | XPrediction | Regression
PREDICTIONS: dict[str, type[Prediction]] = {
  'flow': FlowMatching,
  'v_prediction': VPrediction,
  'x_prediction': XPrediction,
  'regression': Regression,
}


def make_prediction(fields: Fields) -> Prediction:
  """Makes the prediction that a configuration names: `name`, one of `PREDICTIONS`, and its fields.

  Raises ConfigError if there is no such name, or a field or value is not accepted.
  """
  options = dict(fields)
  name = options.pop('name', None)
  if name not in PREDICTIONS:
    raise ConfigError(f'objective.prediction.name = {name!r}; expected {" or ".join(PREDICTIONS)}')
  return unpack(PREDICTIONS[name], options, 'objective.prediction')
