"""Regression to the mean of the data: the baseline of every sampler of an upsampler (§3.1.5).

A model that sees nothing but its conditions and is trained to answer X_1 by the squared error
answers E[X_1 | P]: the best answer by that error and by PSNR, and a blurred one wherever several
are possible. A perfect sample of X_1 given P has twice the variance of error: 3 dB less.
"""

import dataclasses

import jax.numpy as jnp

from mgjax.core.typing import Array, Float, Predict

_TIME = 0.5  # that the model is told: it means nothing, and training has drawn it often


@dataclasses.dataclass(frozen=True)
class Regression:
  """A model that sees no X_t and answers X_1."""

  def train(
    self, data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], time: Float[Array, ' b']
  ) -> tuple[Float[Array, 'b *axes'], Float[Array, 'b *axes']]:
    """Returns zeros in place of X_t, and X_1."""
    return jnp.zeros_like(data), data

  def weight(self, time: Float[Array, ' b']) -> Float[Array, ' b']:
    """Returns 1: times count alike."""
    return jnp.ones_like(time)

  def as_velocity(self, predict: Predict) -> Predict:
    """Returns (E[X_1 | P] - x) / (1 - t), along which Euler ends at the mean, in one step."""

    def velocity(x, time, batch, drop):
      mean = predict(jnp.zeros_like(x), jnp.full_like(time, _TIME), batch, drop)
      return (mean - x) / (1 - time).reshape(-1, *[1] * (x.ndim - 1))

    return velocity
