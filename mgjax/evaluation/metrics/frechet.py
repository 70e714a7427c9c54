"""The Frechet distance between two sets of feature rows, and between two sets of clips."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float, Int
from mgjax.evaluation.metrics.values import Value, set_values


def frechet_distance(x: Float[np.ndarray, 'n d'], y: Float[np.ndarray, 'm d']) -> float:
  """Returns ||m1 - m2||^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)) in float64.

  m and C are means and unbiased covariances of the rows, so it is the squared Wasserstein distance
  of the two Gaussians. With C = A^T A the trace of (C1 C2)^(1/2) is the sum of the singular values
  of A1 A2^T: no matrix root is taken, and covariances of few rows, which are singular, do no harm.

  The number depends on the features, and falls with the number of rows: compare it only with one
  of the same features and as many rows. FID is the one of a certain Inception network (Heusel et
  al., 2017); of other features it is not FID.

  Args:
    x: features, one row an image.
    y: features of the other images; their number may differ.

  Raises:
    DataError: fewer than two rows, or numbers that are not finite.
  """
  (mean_x, root_x), (mean_y, root_y) = _gaussian(x), _gaussian(y)
  cross = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
  traces = np.sum(root_x**2) + np.sum(root_y**2)
  return max(0.0, float(np.sum((mean_x - mean_y) ** 2) + traces - 2 * cross))


Clips = Sequence[Float[np.ndarray, '_ _']] | Float[np.ndarray, '_ _ _']


def frechet_value(x: Clips, y: Clips, **options: Any) -> Value:
  """Returns the Frechet distance between all rows of some clips and of others, and its interval.

  FVD is the one of a row a clip from an I3D (Unterthiner et al., 2018), FID over frames that of a
  row a frame, the Frechet audio distance that of rows of VGGish (Kilgour et al., 2019). What is
  drawn for the interval are clips: rows of one clip are like each other. Its limit at infinitely
  many clips is told only of twice as many clips as a row has numbers; halves of fewer have
  singular covariances, and the distance does not fall with 1 / n.

  Args:
    x: rows of each clip.
    y: of the clips that they are compared with.
    **options: of `mgjax.evaluation.metrics.values.set_values`.

  Raises:
    DataError: as of `frechet_distance`, or there are fewer than four clips.
  """
  counts, width = (len(x), len(y)), x[0].shape[1] if len(x) else 0

  def distance(of_x: Int[np.ndarray, '_'], of_y: Int[np.ndarray, '_']) -> list[float]:
    rows = ([clips[i] for i in some] for clips, some in ((x, of_x), (y, of_y)))
    return [frechet_distance(*map(np.concatenate, rows))]

  enough = min(counts) >= 2 * width
  found = set_values(distance, counts, enough, **options)[0]
  if enough:
    return found
  warning = (
    f'vectors of {width} numbers need {2 * width} clips or more to tell what few samples add; '
    f'there are {counts[0]} and {counts[1]}, so compare only with numbers of as many'
  )
  return dataclasses.replace(found, warning=warning)


def few_rows(rows: int, dimensions: int) -> str:
  """Says what too few rows do to the distance; '' if there are enough."""
  if rows > dimensions:
    return ''
  return (
    f'the Frechet distance is of {rows} rows in {dimensions} dimensions, too few for their '
    f'covariance: compare it only with one of as many rows, or take {dimensions + 1} and more'
  )


def _gaussian(
  rows: Float[np.ndarray, 'n d'],
) -> tuple[Float[np.ndarray, 'd'], Float[np.ndarray, 'r d']]:
  """Mean and a root A of the covariance A^T A, with at most d rows."""
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
