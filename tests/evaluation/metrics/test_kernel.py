"""The kernel distance against scikit-learn's kernel and loops, and without bias by simulation."""

import numpy as np
import pytest
import sklearn.metrics.pairwise

from mgjax.core.errors import DataError
from mgjax.evaluation.metrics.kernel import kernel_distance, kernel_value


def reference(x, y):
  """With scikit-learn's polynomial kernel, pair by pair."""
  kernel = sklearn.metrics.pairwise.polynomial_kernel
  width = x.shape[1]

  def within(rows):
    k = kernel(rows, degree=3, gamma=1 / width, coef0=1)
    return np.mean([k[i, j] for i in range(len(k)) for j in range(len(k)) if i != j])

  return within(x) + within(y) - 2 * kernel(x, y, degree=3, gamma=1 / width, coef0=1).mean()


def test_it_is_the_one_of_scikit_learns_kernel():
  generator = np.random.default_rng(0)
  x, y = generator.normal(size=(30, 6)), 1 + generator.normal(size=(20, 6))
  # Sums of 900 numbers around 10 that mostly cancel, to 1e-16 each.
  assert kernel_distance(x, y) == pytest.approx(reference(x, y), abs=1e-12)
  assert kernel_value(x, y).value == kernel_distance(x, y)


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
  found = [
    kernel_distance(generator.normal(size=(rows, 1)), generator.normal(0.5, 1, (rows, 1)))
    for _ in range(400)
  ]
  assert abs(np.mean(found) - expected(0.5)) < 3.5 * np.std(found) / np.sqrt(400)


@pytest.mark.slow
def test_its_interval_covers_what_is_true():
  """Of signs with the means m and n, E k = 4 + 4 m n, so that the distance is 4 (m - n)^2."""
  generator, hits, found = np.random.default_rng(2), [], []
  for trial in range(300):
    x, y = (np.where(generator.random((120, 1)) < share, 1.0, -1.0) for share in (0.5, 0.9))
    found.append(kernel_value(x, y, seed=trial))
    hits.append(found[-1].low <= 4 * 0.8**2 <= found[-1].high)
  # Squares are skewed: .92 to .93 in place of .95 over 600 trials. Of 300 that spreads by .016.
  assert np.mean(hits) > 0.92 - 3.5 * 0.016
  reach = np.mean([each.high - each.low for each in found]) / 2 / 2.06
  # A deviation from 300 numbers spreads by 1 / sqrt(600).
  assert reach == pytest.approx(np.std([each.value for each in found]), rel=3.5 / np.sqrt(600))


def test_few_rows_are_refused():
  with pytest.raises(DataError, match='four or more'):
    kernel_value(np.ones((3, 2)), np.ones((9, 2)))
