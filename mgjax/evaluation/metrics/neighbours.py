"""Precision, recall, density and coverage: how two sets of feature rows lie among each other."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from mgjax.core.errors import DataError
from mgjax.core.settings import Positive, arguments
from mgjax.core.typing import Float, Int
from mgjax.evaluation.metrics.values import Value, set_values

NEAREST = 5  # k


class Neighbourhood(NamedTuple):
  """How generated rows y lie among true rows x; 1 is best, and density may be above it.

  With R(x_i) the distance of x_i to its k-th nearest other row, and R(y_j) likewise,

    precision = mean_j max_i [|x_i - y_j| < R(x_i)]
    recall = mean_i max_j [|x_i - y_j| < R(y_j)]
    density = mean_j sum_i [|x_i - y_j| < R(x_i)] / k
    coverage = mean_i max_j [|x_i - y_j| < R(x_i)]

  (Kynkaanniemi et al., 2019, and Naeem et al., 2020, whose last two a single outlier does not
  change.) Rows of one distribution have the mean density 1 and, n of x beside m of y, the mean
  coverage 1 - (n - 1) ... (n - k) / ((n + m - 1) ... (n + m - k)).
  """

  precision: float
  recall: float
  density: float
  coverage: float


def neighbourhood(
  x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d'], nearest: Positive = NEAREST
) -> Neighbourhood:
  """Compares generated rows with true ones by their neighbours, in float64.

  Args:
    x: features of what is true.
    y: of what was generated.
    nearest: k.

  Raises:
    DataError: there are no more than k rows of one.
    ConfigError: k is out of its range.
  """
  arguments(neighbourhood, {'nearest': nearest}, 'neighbourhood', ('x', 'y'))
  return _measure(*_distances(x, y), nearest)


def neighbourhood_values(
  x: Float[np.ndarray, 'n d'],
  y: Float[np.ndarray, 'm d'],
  nearest: Positive = NEAREST,
  confidence: float = 0.95,
  seed: int = 0,
) -> dict[str, Value]:
  """Returns `neighbourhood` by names, of a row a clip, and the intervals, see `set_values`.

  Their count is that of y, what was generated; x are their references.

  Recall, precision and coverage depend on how many rows there are by no law that is known: compare
  them only with those of as many.

  Raises:
    DataError: half of a set has no more than k rows.
    ConfigError: a number is out of its range.
  """
  arguments(neighbourhood, {'nearest': nearest}, 'neighbourhood', ('x', 'y'))
  of_x, of_y, across = _distances(x, y)

  def measure(j: Int[np.ndarray, '_'], i: Int[np.ndarray, '_']) -> Neighbourhood:
    return _measure(of_x[np.ix_(i, i)], of_y[np.ix_(j, j)], across[np.ix_(i, j)], nearest)

  found = set_values(measure, (len(y), len(x)), False, confidence, seed=seed)
  return dict(zip(Neighbourhood._fields, found, strict=True))


def _distances(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> list[np.ndarray]:
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  return [cdist(a, b) for a, b in ((x, x), (y, y), (x, y))]


def _measure(of_x: np.ndarray, of_y: np.ndarray, across: np.ndarray, nearest: int) -> Neighbourhood:
  if min(across.shape) <= nearest:
    raise DataError(
      f'{across.shape[0]} and {across.shape[1]} rows have no {nearest} neighbours each; give '
      f'{nearest + 1} or more of both, and {2 * nearest + 2} for intervals'
    )
  # The row itself, at distance 0, is the first.
  reach_x, reach_y = (np.partition(each, nearest, axis=1)[:, nearest] for each in (of_x, of_y))
  near_x, near_y = across < reach_x[:, None], across < reach_y[None]
  return Neighbourhood(
    float(near_x.any(0).mean()),
    float(near_y.any(1).mean()),
    float(near_x.sum() / (nearest * across.shape[1])),
    float(near_x.any(1).mean()),
  )
