"""UniPC of order 2 (Zhao et al. 2023, arXiv 2302.04867) on the straight path, as Wan is sampled.

With the noise level s = 1 - t, the data that a velocity u predicts are m = x + s u. A step goes
from s to s' with h = log((1 - s') / s') - log((1 - s) / s) and e = expm1(-h):

  predict  x' = (s' / s) x - (1 - s') e (m + (m_before - m) / (2 r)),   r = h_before / h
  correct  the same step once more, with m' of its end as a third point

The correction uses the evaluation of the next step, so a step costs one evaluation.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float
from mgjax.flow.solvers import Velocity, velocity_at

FIRST = 1 - 1e-6  # the noise level of pure noise, whose logarithm would be infinite


def unipc_coefficients(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the coefficients of all steps, in float64.

  Args:
    times: increasing from noise to data, steps + 1 of them; the last one is 1.

  Returns:
    Of corrections (steps, 4): of the x of the previous step, its two data predictions and that of
    its end. Of predictions (steps, 3): of x, the previous and the present data prediction.
  """
  levels = np.minimum(1 - np.asarray(times, np.float64), FIRST)
  steps = len(levels) - 1
  with np.errstate(divide='ignore'):
    ratios = np.log1p(-levels) - np.log(levels)
  correct, predict = np.zeros((steps, 4)), np.zeros((steps, 3))
  correct[0, 0] = 1  # nothing to correct before the first step
  for i in range(steps):
    order = min(2, steps - i, i + 1)  # lower at both ends
    h = ratios[i + 1] - ratios[i]
    factor = -(1 - levels[i + 1]) * np.expm1(-h)
    scale = levels[i + 1] / levels[i]
    before = 0.5 * h / (ratios[i - 1] - ratios[i]) if order == 2 else 0.0
    predict[i] = scale, factor * before, factor * (1 - before)
    if i + 1 < steps:
      weights = _correction(h, ratios[i - 1] - ratios[i]) if order == 2 else (0.0, 0.5, 0.5)
      correct[i + 1] = scale, *(factor * np.array(weights))
  return correct, predict


def _correction(h: float, before: float) -> tuple[float, float, float]:
  """Returns the weights of the three data predictions of a corrected step; they sum to 1."""
  r = before / h
  first = np.expm1(-h) / -h - 1
  moments = np.array([first, (first / -h - 0.5) * 2]) / np.expm1(-h)
  earlier, end = np.linalg.solve([[1, 1], [r, 1]], moments)
  earlier = earlier / r
  return earlier, 1 - earlier - end, end


def sample_unipc(
  velocity: Velocity, noise: Float[Array, 'b *axes'], times: np.ndarray
) -> Float[Array, 'b *axes']:
  """Integrates from noise through `times` in float32, one evaluation a step."""
  x = noise.astype(jnp.float32)
  tables = [jnp.asarray(table, jnp.float32) for table in unipc_coefficients(times)]
  levels = jnp.asarray(np.minimum(1 - np.asarray(times[:-1]), FIRST), jnp.float32)

  def step(state: tuple[Array, ...], inputs: tuple[Array, ...]):
    x, start, older, old = state
    level, correct, predict = inputs
    data = x + level * velocity_at(velocity, x, 1 - level)
    x = correct[0] * start + correct[1] * older + correct[2] * old + correct[3] * data
    return (predict[0] * x + predict[1] * old + predict[2] * data, x, old, data), None

  nothing = jnp.zeros_like(x)
  (x, *_), _ = jax.lax.scan(step, (x, x, nothing, nothing), (levels, *tables))
  return x
