"""v-prediction with zero terminal SNR on the straight path (Movie Gen Table 8), checked by
tests/flow/test_diffusion.py.

A diffusion model sees x = alpha X_1 + sigma X_0 with alpha^2 + sigma^2 = 1 and answers
v = alpha X_0 - sigma X_1. The point X_t = t X_1 + (1 - t) X_0 of the straight path is the same
mixture, scaled: alpha = t / r, sigma = (1 - t) / r with r = sqrt(t^2 + (1 - t)^2), x = X_t / r. So
each step k of a diffusion, of signal-to-noise ratio (alpha / sigma)^2, has a flow time
t_k = alpha_k / (alpha_k + sigma_k), and the model's answer a velocity of the straight path,

  u = X_1 - X_0 = (alpha x - sigma v) - (sigma x + alpha v) = (alpha - sigma) x - (alpha + sigma) v.

So solvers, guidance and multi-diffusion are those of flow matching. An Euler step from t_k to t_j
equals the DDIM step from k to j: both recombine the same estimates of X_0 and X_1.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from mgjax.core.settings import Checked, Range
from mgjax.core.typing import Array, Batch, Drop, Float, Predict
from mgjax.flow.path import AlikeInTime

Beta = Annotated[float, Range(above=0, below=1)]


@dataclasses.dataclass(frozen=True)
class VPrediction(Checked, AlikeInTime):
  """A diffusion of `steps` steps with a noise schedule rescaled to zero terminal SNR.

  sqrt(beta_k) goes linearly from sqrt(`first`) to sqrt(`last`), Stable Diffusion's 'scaled linear';
  sqrt(alpha-bar) is shifted and scaled so that the last is 0 and the first stays (Lin et al. 2023,
  algorithm 1). The paper names zero terminal SNR and no more: the rest is not in public sources.

  The model's time is 1 - k / `steps` of step k, so that 0 is noise and 1 is data; flow times
  between steps are interpolated.
  Raises ConfigError if a number is out of its range.
  """

  steps: Annotated[int, Range(least=2, most=100_000)] = 1000
  first: Beta = 0.00085
  last: Beta = 0.012

  def flow_times(self) -> Float[np.ndarray, ' points']:
    """Returns t_k in float64 for k = `steps`, ..., 1, 0: from 0 (noise) to 1 (data)."""
    betas = np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2
    alpha = np.sqrt(np.cumprod(1 - betas))
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha = np.concatenate([alpha[::-1], [1.0]])
    return alpha / (alpha + np.sqrt(1 - alpha**2))

  def train(
    self, data: Float[Array, 'b *axes'], noise: Float[Array, 'b *axes'], time: Float[Array, ' b']
  ) -> tuple[Float[Array, 'b *axes'], Float[Array, 'b *axes']]:
    """Returns x and v at the model's times: its input and its target."""
    table = self.flow_times()
    flow_time = jnp.interp(time, np.linspace(0, 1, len(table)), table)
    alpha, sigma = _levels(flow_time, data)
    return alpha * data + sigma * noise, alpha * noise - sigma * data

  def as_velocity(self, predict: Predict) -> Predict:
    """Converts a model of v to a model of velocities at flow times."""
    table = self.flow_times()

    def velocity(x: Array, time: Array, batch: Batch, drop: Drop) -> Array:
      alpha, sigma = _levels(time, x)
      x = (alpha + sigma) * x  # X_t / r, for 1 / r = alpha + sigma
      v = predict(x, jnp.interp(time, table, np.linspace(0, 1, len(table))), batch, drop)
      return (alpha - sigma) * x - (alpha + sigma) * v

    return velocity


def _levels(flow_time: Float[Array, ' b'], like: Array) -> tuple[Array, Array]:
  """Returns alpha and sigma at flow times, over the axes of `like`."""
  time = jnp.reshape(flow_time, flow_time.shape + (1,) * (like.ndim - 1))
  scale = jnp.sqrt(time**2 + (1 - time) ** 2)
  return time / scale, (1 - time) / scale
