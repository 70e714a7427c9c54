"""Two sets of rows compared, against closed forms; tests/oracles has other implementations."""

import numpy as np
import pytest

from mgjax.lab.evaluation.metrics.frechet import (
  few_rows,
  frechet_distance,
  kernel_distance,
  kernel_value,
  neighbourhood,
  neighbourhood_values,
)

ROWS = np.ones((9, 2))


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
  exact = np.sum((mean_x - mean_y) ** 2) + np.sum((std_x - std_y) ** 2)
  distance = frechet_distance(axes(mean_x, std_x), axes(mean_y, std_y))
  assert distance == pytest.approx(exact, rel=1e-13)  # numbers around 30, sums of a dozen products


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
  distance = frechet_distance(x, y)
  assert frechet_distance(x @ turn, y @ turn) == pytest.approx(distance, rel=1e-12)
  for said in ('of 6 rows in 40 dimensions, too few', '41 and more'):
    assert said in few_rows(6, 40)
  assert few_rows(41, 40) == ''


def expected(mean):
  """Between N(0, 1) and N(mean, 1) in one dimension.

  E k(a, b) = E (ab + 1)^3 = 1 + 3 E[a] E[b] + 3 E[a^2] E[b^2] + E[a^3] E[b^3].
  """

  def of(first, second):
    (a, aa, aaa), (b, bb, bbb) = ((m, m * m + 1, m**3 + 3 * m) for m in (first, second))
    return 1 + 3 * a * b + 3 * aa * bb + aaa * bbb

  return of(0, 0) + of(mean, mean) - 2 * of(0, mean)


@pytest.mark.parametrize('rows', [5, 20])
def test_its_mean_does_not_depend_on_how_many_rows_there_are(rows):
  generator = np.random.default_rng(1)
  x, y = generator.normal(size=(400, rows, 1)), generator.normal(0.5, 1, (400, rows, 1))
  distances = list(map(kernel_distance, x, y))
  assert abs(np.mean(distances) - expected(0.5)) < 3.5 * np.std(distances) / np.sqrt(400)
  x, y = generator.normal(size=(2, rows, 6))
  assert kernel_value(x, y).value == kernel_distance(x, y)


@pytest.mark.slow
def test_its_interval_covers_what_is_true():
  """Of signs with the means m and n, E k = 4 + 4 m n, so that the distance is 4 (m - n)^2."""
  generator, hits, values = np.random.default_rng(2), [], []
  for trial in range(300):
    x, y = (np.where(generator.random((120, 1)) < share, 1.0, -1.0) for share in (0.5, 0.9))
    values.append(kernel_value(x, y, seed=trial))
    hits.append(values[-1].low <= 4 * 0.8**2 <= values[-1].high)
  # Squares are skewed: .92 to .93 in place of .95 over 600 trials. Of 300 that spreads by .016.
  assert np.mean(hits) > 0.92 - 3.5 * 0.016
  reach = np.mean([value.high - value.low for value in values]) / 2 / 2.06
  # A deviation from 300 numbers spreads by 1 / sqrt(600).
  assert reach == pytest.approx(np.std([value.value for value in values]), rel=3.5 / np.sqrt(600))


def test_sets_apart_have_nothing_in_common_and_equal_ones_all():
  x = np.random.default_rng(1).normal(size=(40, 3))
  assert neighbourhood(x, x + 100) == (0, 0, 0, 0)
  # Each row is a distance 0 from itself, and the k nearest of every row but the k-th are inside.
  assert neighbourhood(x, x)[:2] == (1, 1) and neighbourhood(x, x).coverage == 1
  assert neighbourhood(x, x).density == 1


def test_of_one_distribution_density_and_coverage_have_their_known_means():
  generator, n, m, k = np.random.default_rng(2), 40, 30, 5
  x, y = generator.normal(size=(300, n, 3)), generator.normal(size=(300, m, 3))
  measures = np.array([neighbourhood(*pair, k)[2:] for pair in zip(x, y, strict=True)])
  expected = 1 - np.prod(np.arange(n - k, n) / np.arange(n + m - k, n + m))
  errors = measures.std(0) / np.sqrt(300)
  assert (np.abs(measures.mean(0) - [1, expected]) < 3.5 * errors).all()


def test_collapse_lowers_recall_and_coverage_and_outliers_precision():
  generator = np.random.default_rng(3)
  x = generator.normal(size=(200, 4))
  collapsed = neighbourhood(x, 0.1 * generator.normal(size=(200, 4)))
  wild = neighbourhood(x, 4 * generator.normal(size=(200, 4)))
  assert collapsed.precision > 0.95 and collapsed.recall < 0.1 and collapsed.coverage < 0.5
  assert wild.precision < 0.4 and wild.recall > 0.9


def test_values_are_the_same_numbers_with_intervals_and_counts():
  generator = np.random.default_rng(4)
  x, y = generator.normal(size=(80, 4)), 0.5 + generator.normal(size=(60, 4))
  values, whole = neighbourhood_values(x, y), neighbourhood(x, y)
  assert tuple(values) == whole._fields
  for name, value in values.items():
    assert value.value == getattr(whole, name) and value.low < value.value < value.high
    assert (value.count, value.references) == (60, 80)
