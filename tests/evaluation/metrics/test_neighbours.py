"""Precision, recall, density and coverage: scikit-learn's neighbours, and their known means."""

import numpy as np
import pytest
import sklearn.neighbors

from mgjax.core.errors import ConfigError, DataError
from mgjax.evaluation.metrics.neighbours import neighbourhood, neighbourhood_values


def reference(x, y, nearest):
  """By scikit-learn, row by row."""

  def reach(rows):
    found = sklearn.neighbors.NearestNeighbors(n_neighbors=nearest + 1).fit(rows).kneighbors(rows)
    return found[0][:, -1]

  reach_x, reach_y = reach(x), reach(y)
  inside = [[np.linalg.norm(a - b) < r for b in y] for a, r in zip(x, reach_x, strict=True)]
  there = [[np.linalg.norm(a - b) < r for b, r in zip(y, reach_y, strict=True)] for a in x]
  return (
    np.mean(np.any(inside, axis=0)),
    np.mean(np.any(there, axis=1)),
    np.sum(inside) / (nearest * len(y)),
    np.mean(np.any(inside, axis=1)),
  )


@pytest.mark.parametrize(('shift', 'nearest'), [(0.0, 5), (1.0, 3), (0.5, 1)])
def test_they_are_those_of_scikit_learn(shift, nearest):
  generator = np.random.default_rng(0)
  x, y = generator.normal(size=(60, 4)), shift + generator.normal(size=(45, 4))
  # Counts: no distance is within 1e-14 of a radius, so they are equal, but for the last division.
  assert neighbourhood(x, y, nearest) == pytest.approx(reference(x, y, nearest), rel=1e-15)


def test_sets_apart_have_nothing_in_common_and_equal_ones_all():
  x = np.random.default_rng(1).normal(size=(40, 3))
  assert neighbourhood(x, x + 100) == (0, 0, 0, 0)
  # Each row is a distance 0 from itself, and the k nearest of every row but the k-th are inside.
  assert neighbourhood(x, x)[:2] == (1, 1) and neighbourhood(x, x).coverage == 1
  assert neighbourhood(x, x).density == 1


def test_of_one_distribution_density_and_coverage_have_their_known_means():
  generator, n, m, k = np.random.default_rng(2), 40, 30, 5
  found = np.array(
    [
      neighbourhood(generator.normal(size=(n, 3)), generator.normal(size=(m, 3)), k)[2:]
      for _ in range(300)
    ]
  )
  expected = 1 - np.prod(np.arange(n - k, n) / np.arange(n + m - k, n + m))
  errors = found.std(0) / np.sqrt(300)
  assert (np.abs(found.mean(0) - [1, expected]) < 3.5 * errors).all()


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
  found, whole = neighbourhood_values(x, y), neighbourhood(x, y)
  assert tuple(found) == whole._fields
  for name, value in found.items():
    assert value.value == getattr(whole, name) and value.low < value.value < value.high
    assert (value.count, value.references) == (60, 80)


def test_too_few_rows_are_refused():
  x = np.zeros((5, 2))
  with pytest.raises(DataError, match='have no 5 neighbours each; give 6 or more'):
    neighbourhood(x, np.zeros((9, 2)))
  with pytest.raises(ConfigError, match='nearest'):
    neighbourhood(x, x, 0)
