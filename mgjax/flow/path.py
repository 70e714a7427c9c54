"""The straight path from noise to data (Movie Gen §3.1.2), checked by tests/flow/test_path.py.

X_0 is noise, X_1 is data, t = 0 is noise and t = 1 is data. The noise level never quite reaches
zero: sigma_min of it is left at t = 1.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from mgjax.core.settings import Checked, Range
from mgjax.core.typing import Array, Float, Predict

SIGMA_MIN = 1e-5


class AlikeInTime:
  """A prediction whose squared errors have equal weight at every time."""

  def weight(self, time: Float[Array, ' b']) -> Float[Array, ' b']:
    """Returns 1 for every time."""
    return jnp.ones_like(time)


@dataclasses.dataclass(frozen=True)
class FlowMatching(Checked, AlikeInTime):
  """A model that sees X_t and predicts V_t: flow matching, the objective of Movie Gen.

  `sigma_min` is the noise left at t = 1. Raises ConfigError if it is out of its range.
  """

  sigma_min: Annotated[float, Range(least=0, below=1)] = SIGMA_MIN

  def train(
    self, data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], time: Float[Array, ' b']
  ) -> tuple[Float[Array, 'b *axes'], Float[Array, 'b *axes']]:
    """Returns X_t and V_t."""
    x = interpolate(data, noise, time, self.sigma_min)
    return x, velocity_target(data, noise, self.sigma_min)

  def as_velocity(self, predict: Predict) -> Predict:
    """Returns the model unchanged: its output is the velocity."""
    return predict


def interpolate(
  data: Float[Array, 'b *axes'],
  noise: Float[Array, 'b *axes'],
  time: Float[Array, ' b'],
  sigma_min: float = SIGMA_MIN,
) -> Float[Array, 'b *axes']:
  """Returns the point of the path, `X_t = t X_1 + (1 - (1 - sigma_min) t) X_0` (Movie Gen §3.1.2).

  Every row has its own time; the trailing axes are free.
  """
  time = jnp.reshape(time, time.shape + (1,) * (data.ndim - 1))
  # 1 - (1 - sigma_min) t, arranged so that float32 cancels nothing near t = 1.
  level = (1 - time) + sigma_min * time
  return time * data + level * noise


def velocity_target(
  data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], sigma_min: float = SIGMA_MIN
) -> Float[Array, 'b *axes']:
  """Returns the path's velocity, `V_t = X_1 - (1 - sigma_min) X_0` (Movie Gen §3.1.2)."""
  return data - (1 - sigma_min) * noise
