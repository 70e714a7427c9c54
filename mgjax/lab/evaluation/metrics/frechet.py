"""Metrics of two sets of features: Frechet and kernel distance, precision, recall, coverage."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from mgjax.core.errors import DataError
from mgjax.core.typing import Float, Int
from mgjax.lab.statistics.values import Value, set_values

NEAREST = 5  # k of neighbours
_DEGREE = 3  # of the kernel

Clips = Sequence[Float[np.ndarray, '_ _']] | Float[np.ndarray, '_ _ _']


def frechet_distance(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> float:
  """Returns ||m1 - m2||^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)) in float64.

  m and C are means and unbiased covariances of the rows, so it is the squared Wasserstein distance
  of the two Gaussians. With C = A^T A the trace of (C1 C2)^(1/2) is the sum of the singular values
  of A1 A2^T. This needs no matrix root, and works for the singular covariances of few rows.

  The value depends on the features, and falls with the number of rows. Compare it only with values
  of the same features and as many rows. FID uses a certain Inception network (Heusel et al., 2017);
  with other features it is not FID. Raises DataError for fewer than two rows or non-finite numbers.
  """
  (mean_x, root_x), (mean_y, root_y) = _gaussian(x), _gaussian(y)
  cross = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
  traces = np.sum(root_x**2) + np.sum(root_y**2)
  return max(0.0, float(np.sum((mean_x - mean_y) ** 2) + traces - 2 * cross))


def frechet_value(x: Clips, y: Clips, **options: Any) -> Value:
  """Returns the Frechet distance between the rows of two sets of clips, with its interval.

  FVD uses one row a clip from an I3D (Unterthiner et al., 2018), FID over frames one row a frame,
  and the Frechet audio distance rows of VGGish (Kilgour et al., 2019). The interval, see
  `set_values`, resamples clips, because rows of one clip are dependent. The limit at infinitely
  many clips needs at least twice as many clips as features: halves of fewer clips have singular
  covariances, and the distance does not fall with 1 / n. Raises DataError as `frechet_distance`, or
  for fewer than four clips.
  """
  counts = (len(x), len(y))
  width = x[0].shape[1] if len(x) else 0

  def distance(of_x: Int[np.ndarray, '_'], of_y: Int[np.ndarray, '_']) -> list[float]:
    rows = ([clips[i] for i in indices] for clips, indices in ((x, of_x), (y, of_y)))
    return [frechet_distance(*map(np.concatenate, rows))]

  enough = min(counts) >= 2 * width
  value = set_values(distance, counts, enough, **options)[0]
  if enough:
    return value
  warning = (
    f'vectors of {width} numbers need {2 * width} clips or more to tell what few samples add; '
    f'there are {counts[0]} and {counts[1]}, so compare only with numbers of as many'
  )
  return dataclasses.replace(value, warning=warning)


def few_rows(rows: int, dimensions: int) -> str:
  """Returns a warning about a distance of too few rows; '' if there are enough."""
  if rows > dimensions:
    return ''
  return (
    f'the Frechet distance is of {rows} rows in {dimensions} dimensions, too few for their '
    f'covariance: compare it only with one of as many rows, or take {dimensions + 1} and more'
  )


def _gaussian(
  rows: Float[np.ndarray, 'n d'],
) -> tuple[Float[np.ndarray, 'd'], Float[np.ndarray, 'r d']]:
  """Returns the mean, and a root A of the covariance A^T A with at most d rows."""
  if len(rows) < 2:
    raise DataError(
      f'the Frechet distance needs two rows of features or more, got {len(rows)}; take more samples'
    )
  if not np.isfinite(rows).all():
    raise DataError(
      'features for the Frechet distance are not all finite; look at the network that made them'
    )
  rows = np.asarray(rows, np.float64)
  mean = rows.mean(0)
  return mean, np.linalg.qr((rows - mean[None]) / np.sqrt(len(rows) - 1), mode='r')


def kernel_distance(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> float:
  """Returns the unbiased MMD^2 of rows under the kernel k(a, b) = (a.b / d + 1)^3, in float64.

    sum_{i != j} k(x_i, x_j) / n (n - 1) + sum_{i != j} k(y_i, y_j) / m (m - 1)
      - 2 sum_{ij} k(x_i, y_j) / n m

  With Inception's features it is KID (Binkowski et al., 2018). Unlike the Frechet distance its mean
  does not depend on the number of rows; for equal distributions it is centred on 0.
  """
  return _mmd(*_kernels(x, y))


def kernel_value(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d'], seed: int = 0) -> Value:
  """Returns `kernel_distance` of one row a clip, with its interval, see `set_values`."""
  of_x, of_y, across = _kernels(x, y)

  def distance(i: Int[np.ndarray, '_'], j: Int[np.ndarray, '_']) -> list[float]:
    return [_mmd(of_x[np.ix_(i, i)], of_y[np.ix_(j, j)], across[np.ix_(i, j)])]

  return set_values(distance, (len(x), len(y)), False, seed=seed)[0]


def _kernels(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> list[np.ndarray]:
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  return [(a @ b.T / x.shape[1] + 1) ** _DEGREE for a, b in ((x, x), (y, y), (x, y))]


def _mmd(of_x: np.ndarray, of_y: np.ndarray, across: np.ndarray) -> float:
  within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (of_x, of_y))
  return float(within - 2 * across.mean())


class Neighbourhood(NamedTuple):
  """Precision, recall, density and coverage of generated rows y; 1 is best, density may exceed 1.

  With true rows x, R(x_i) the distance of x_i to its k-th nearest other row, and R(y_j) for y,

    precision = mean_j max_i [|x_i - y_j| < R(x_i)]
    recall = mean_i max_j [|x_i - y_j| < R(y_j)]
    density = mean_j sum_i [|x_i - y_j| < R(x_i)] / k
    coverage = mean_i max_j [|x_i - y_j| < R(x_i)]

  (Kynkaanniemi et al., 2019; the last two by Naeem et al., 2020, are robust to a single outlier.)
  For equal distributions the mean density is 1. The mean coverage of n rows x and m rows y is then
  1 - (n - 1) ... (n - k) / ((n + m - 1) ... (n + m - k)).
  """

  precision: float
  recall: float
  density: float
  coverage: float


def neighbourhood(
  x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d'], nearest: int = NEAREST
) -> Neighbourhood:
  """Compares generated rows y with true rows x; DataError if one set has k rows or fewer."""
  return _measure(*_distances(x, y), nearest)


def neighbourhood_values(
  x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']
) -> dict[str, Value]:
  """Returns `neighbourhood` of one row a clip by name, with intervals, see `set_values`.

  `count` is that of the generated rows y, `references` that of x. Precision, recall and coverage
  depend on the numbers of rows by no known law, so compare them only for equal numbers. Raises
  DataError if half of a set has k rows or fewer.
  """
  of_x, of_y, across = _distances(x, y)

  def measure(j: Int[np.ndarray, '_'], i: Int[np.ndarray, '_']) -> Neighbourhood:
    return _measure(of_x[np.ix_(i, i)], of_y[np.ix_(j, j)], across[np.ix_(i, j)], NEAREST)

  values = set_values(measure, (len(y), len(x)), False)
  return dict(zip(Neighbourhood._fields, values, strict=True))


def _distances(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> list[np.ndarray]:
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  return [cdist(a, b) for a, b in ((x, x), (y, y), (x, y))]


def _measure(of_x: np.ndarray, of_y: np.ndarray, across: np.ndarray, nearest: int) -> Neighbourhood:
  if min(across.shape) <= nearest:
    raise DataError(
      f'{across.shape[0]} and {across.shape[1]} rows have no {nearest} neighbours each; give '
      f'{nearest + 1} or more of both, and {2 * nearest + 2} for intervals'
    )
  # The nearest row, at distance 0, is the row itself.
  reach_x, reach_y = (
    np.partition(distances, nearest, axis=1)[:, nearest] for distances in (of_x, of_y)
  )
  near_x = across < reach_x[:, None]
  near_y = across < reach_y[None]
  density = near_x.sum() / (nearest * across.shape[1])
  numbers = (near_x.any(0).mean(), near_y.any(1).mean(), density, near_x.any(1).mean())
  return Neighbourhood(*map(float, numbers))
