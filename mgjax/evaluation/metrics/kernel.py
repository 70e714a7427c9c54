"""The kernel distance between two sets of feature rows."""

import numpy as np

from mgjax.core.typing import Float, Int
from mgjax.evaluation.metrics.values import Value, set_values

_DEGREE = 3


def kernel_distance(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> float:
  """Returns the unbiased MMD^2 of rows under the kernel k(a, b) = (a.b / d + 1)^3, in float64.

    sum_{i != j} k(x_i, x_j) / n (n - 1) + sum_{i != j} k(y_i, y_j) / m (m - 1)
      - 2 sum_{ij} k(x_i, y_j) / n m

  Of Inception's features it is KID (Binkowski et al., 2018). Its mean does not depend on how many
  rows there are, unlike the Frechet distance's; of equal sets it is as often below 0 as above.
  """
  return _distance(*_kernels(x, y))


def kernel_value(
  x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d'], confidence: float = 0.95, seed: int = 0
) -> Value:
  """Returns `kernel_distance` of a row a clip, and its interval, see `set_values`.

  Raises:
    DataError: there are fewer than four rows of one.
    ConfigError: a number is out of its range.
  """
  of_x, of_y, across = _kernels(x, y)

  def distance(i: Int[np.ndarray, '_'], j: Int[np.ndarray, '_']) -> list[float]:
    return [_distance(of_x[np.ix_(i, i)], of_y[np.ix_(j, j)], across[np.ix_(i, j)])]

  return set_values(distance, (len(x), len(y)), False, confidence, seed=seed)[0]


def _kernels(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> list[np.ndarray]:
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  return [(a @ b.T / x.shape[1] + 1) ** _DEGREE for a, b in ((x, x), (y, y), (x, y))]


def _distance(of_x: np.ndarray, of_y: np.ndarray, across: np.ndarray) -> float:
  within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (of_x, of_y))
  return float(within - 2 * across.mean())
