"""Models that predict the data itself, checked by tests/flow/test_x_prediction.py and
tests/flow/test_regression.py.

With X_t (JiT, Li and He 2025, arXiv 2511.13720): clean data lies near a surface of few dimensions,
noise and velocity fill all of them. A token of more numbers than the model is wide can carry its
share of X_1, but no velocity: a few tokens of many pixels are then enough.

Without X_t, regression to the mean: the baseline of every sampler of an upsampler (§3.1.5). A model
that sees only its conditions, trained on the squared error of X_1, answers E[X_1 | P]. That is the
best answer by that error and by PSNR, and a blurred one wherever several are possible. A perfect
sample of X_1 given P has twice the variance of error: 3 dB less.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from mgjax.core.settings import Checked, Range
from mgjax.core.typing import Array, Float, Predict
from mgjax.flow.path import SIGMA_MIN, AlikeInTime, interpolate

_TIME = 0.5  # time input of a model that does not use it; training has drawn it often


@dataclasses.dataclass(frozen=True)
class XPrediction(Checked):
  """A model that sees X_t and answers X_1, trained by the error of the velocity that follows.

  With x its answer the velocity is (x - X_t) / (1 - t), and so its squared error that of x divided
  by (1 - t)^2. Both stop growing where 1 - t is below `least` (JiT: 0.05).
  Raises ConfigError if `least` is out of its range.
  """

  least: Annotated[float, Range(above=0, most=1)] = 0.05

  def train(
    self, data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], time: Float[Array, ' b']
  ) -> tuple[Float[Array, 'b *axes'], Float[Array, 'b *axes']]:
    """Returns X_t and X_1."""
    return interpolate(data, noise, time, sigma_min=0.0), data

  def weight(self, time: Float[Array, ' b']) -> Float[Array, ' b']:
    """Returns 1 / (1 - t)^2, of the squared error of X_1 in that of the velocity."""
    return 1 / jnp.square(jnp.maximum(1 - time, self.least))

  def as_velocity(self, predict: Predict) -> Predict:
    """Converts a model of X_1 to a model of velocities."""

    def velocity(x, time, batch, drop):
      remaining_time = jnp.maximum(1 - time, SIGMA_MIN).reshape(-1, *[1] * (x.ndim - 1))
      return (predict(x, time, batch, drop) - x) / remaining_time

    return velocity


@dataclasses.dataclass(frozen=True)
class Regression(AlikeInTime):
  """A model that sees no X_t and answers X_1."""

  def train(
    self, data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], time: Float[Array, ' b']
  ) -> tuple[Float[Array, 'b *axes'], Float[Array, 'b *axes']]:
    """Returns zeros in place of X_t, and X_1."""
    return jnp.zeros_like(data), data

  def as_velocity(self, predict: Predict) -> Predict:
    """Returns (E[X_1 | P] - x) / (1 - t), along which Euler ends at the mean, in one step."""

    def velocity(x, time, batch, drop):
      mean = predict(jnp.zeros_like(x), jnp.full_like(time, _TIME), batch, drop)
      return (mean - x) / (1 - time).reshape(-1, *[1] * (x.ndim - 1))

    return velocity
