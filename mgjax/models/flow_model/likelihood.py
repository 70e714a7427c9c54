"""How likely a flow model finds data under a condition, beside another: a diffusion classifier."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Batch, Drop, Float, Key, Predict
from mgjax.flow.path import interpolate

_TIMES = (0.01, 0.9)  # below and above, what is seen says too little, or all


def make_evidence(
  predict: Predict, points: int = 16
) -> Callable[[Float[Array, 'b *axes'], Batch, Drop, Key], Float[Array, ' b']]:
  """Makes `evidence(data, batch, drop, key)`, log p(data | batch) in nats up to a constant.

  The constant is the data's and the key's own: of one pair, differences between batches are those
  of log likelihoods,

    log p(x | c) - log p(x | c') = 1/2 int (|x - D(X_t, c')|^2 - |x - D(X_t, c)|^2) d snr

  with D = X_t + (1 - t) u(X_t, t, c), what the model expects of x, and snr = t^2 / (1 - t)^2 (Guo,
  Shamai and Verdu 2005; as a classifier, Li et al. 2023, arXiv 2303.16203).

  Args:
    predict: answers velocities.
    points: of the integral, evenly spread over log snr, with one draw of noise each.
  """
  first, last = (np.log(t / (1 - t)) for t in _TIMES)
  half = np.linspace(first, last, points)  # of log snr
  times = 1 / (1 + np.exp(-half))
  weights = np.exp(2 * half) * (half[1] - half[0])  # d snr / 2 = snr d(log snr) / 2

  def evidence(data: Array, batch: Batch, drop: Drop, key: Key) -> Float[Array, ' b']:
    def at(total: Array, point: tuple[Array, Array, Key]) -> tuple[Array, None]:
      time, weight, key = point
      time = jnp.full(data.shape[0], time)
      x = interpolate(data, jax.random.normal(key, data.shape), time, 0.0)
      remaining_time = (1 - time).reshape(-1, *[1] * (data.ndim - 1))
      error = data - x - remaining_time * predict(x, time, batch, drop)
      return total - weight * jnp.sum(jnp.square(error), axis=range(1, data.ndim)), None

    times_and_weights = (jnp.asarray(times, jnp.float32), jnp.asarray(weights, jnp.float32))
    points_of = (*times_and_weights, jax.random.split(key, points))
    return jax.lax.scan(at, jnp.zeros(data.shape[0]), points_of)[0]

  return evidence
