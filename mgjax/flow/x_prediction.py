"""A model that answers the data itself (JiT, Li and He 2025, arXiv 2511.13720), checked by
tests/flow/test_x_prediction.py.

Clean data lies near a surface of few dimensions, noise and velocity fill all of them. A token of
more numbers than the model is wide can therefore carry its share of X_1, but no velocity: with this
answer a few tokens of many pixels each are enough, or pixels without an autoencoder.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from mgjax.core.settings import Range, check
from mgjax.core.typing import Array, Float, Predict
from mgjax.flow.path import SIGMA_MIN, interpolate


@dataclasses.dataclass(frozen=True)
class XPrediction:
  """A model that sees X_t and answers X_1, trained by the error of the velocity that follows.

  With x its answer the velocity is (x - X_t) / (1 - t), and so its squared error that of x divided
  by (1 - t)^2. Both stop growing where 1 - t is below `least` (JiT: 0.05).
  Raises ConfigError if `least` is out of its range.
  """

  least: Annotated[float, Range(above=0, most=1)] = 0.05

  def __post_init__(self):
    check(self)

  def train(
    self, data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], time: Float[Array, ' b']
  ) -> tuple[Float[Array, 'b *axes'], Float[Array, 'b *axes']]:
    """Returns X_t and X_1."""
    return interpolate(data, noise, time, sigma_min=0.0), data

  def weight(self, time: Float[Array, ' b']) -> Float[Array, ' b']:
    """Returns 1 / (1 - t)^2, of the squared error of X_1 in that of the velocity."""
    return 1 / jnp.square(jnp.maximum(1 - time, self.least))

  def as_velocity(self, predict: Predict) -> Predict:
    """Makes a model that answers velocities of one that answers X_1."""

    def velocity(x, time, batch, drop):
      left = jnp.maximum(1 - time, SIGMA_MIN).reshape(-1, *[1] * (x.ndim - 1))
      return (predict(x, time, batch, drop) - x) / left

    return velocity
