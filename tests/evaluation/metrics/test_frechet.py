"""The Frechet distance of feature rows, against closed forms and matrix roots in float64."""

import numpy as np
import pytest
import scipy.linalg

from mgjax.core.errors import DataError
from mgjax.evaluation.metrics.frechet import few_rows, frechet_distance


def axes(mean, deviations):
  """2 d rows with this mean and these standard deviations along the axes, exactly, d numbers a row.

  The rows m +- a_i e_i have the unbiased variances 2 a_i^2 / (2 d - 1).
  """
  d = len(mean)
  steps = np.diag(np.asarray(deviations) * np.sqrt((2 * d - 1) / 2))
  return np.asarray(mean) + np.concatenate([steps, -steps])


def correlated(generator, rows, dimensions):
  return generator.normal(size=(rows, dimensions)) @ generator.normal(size=(dimensions, dimensions))


def test_of_diagonal_gaussians_it_is_the_closed_form():
  mean_x, mean_y = np.array([1.0, -2.0, 0.5]), np.array([0.0, 3.0, 0.5])
  std_x, std_y = np.array([1.0, 0.2, 3.0]), np.array([2.0, 0.2, 0.0])
  wanted = np.sum((mean_x - mean_y) ** 2) + np.sum((std_x - std_y) ** 2)
  found = frechet_distance(axes(mean_x, std_x), axes(mean_y, std_y))
  assert found == pytest.approx(wanted, rel=1e-13)  # numbers around 30, sums of a dozen products


def test_it_is_the_formula_with_a_matrix_root():
  generator = np.random.default_rng(0)
  x, y = correlated(generator, 200, 8), 1 + correlated(generator, 150, 8)
  first, second = np.cov(x.T), np.cov(y.T)
  root = scipy.linalg.sqrtm(first @ second)
  wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(first + second - 2 * root.real)
  # The root of a matrix of condition 1e6 keeps about 10 of 16 digits.
  assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-8)
  assert frechet_distance(y, x) == pytest.approx(wanted, rel=1e-8)


def test_equal_rows_are_at_distance_zero_even_when_they_are_few():
  x = np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32)
  # Traces of 40 that cancel: 1e-16 of them times some operations.
  assert 0 <= frechet_distance(x, x) < 1e-12
  assert frechet_distance(x, x + np.float32(2)) == pytest.approx(4 * 40, rel=1e-5)  # float32 rows


def test_fewer_rows_than_dimensions_change_nothing():
  """Three numbers a row, laid into forty dimensions by a rotation, are as far apart as before."""
  generator = np.random.default_rng(2)
  x, y = correlated(generator, 6, 3), correlated(generator, 9, 3)
  turn = np.linalg.qr(generator.normal(size=(40, 40)))[0][:3]
  wanted = frechet_distance(x, y)
  assert frechet_distance(x @ turn, y @ turn) == pytest.approx(wanted, rel=1e-12)
  assert 'of 6 rows in 40 dimensions, too few' in few_rows(6, 40) and '41 and more' in few_rows(
    6, 40
  )
  assert few_rows(41, 40) == ''


def test_rows_that_give_no_distance_are_refused():
  x = np.ones((3, 2))
  with pytest.raises(DataError, match=r'two rows of features or more, got 1; take more samples'):
    frechet_distance(x, x[:1])
  with pytest.raises(DataError, match=r'not all finite'):
    frechet_distance(x, np.full((3, 2), np.nan))
