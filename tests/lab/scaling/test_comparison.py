"""Recipes compared: a multiplier that is known, its intervals, and recipes that are the same."""

import numpy as np
import pytest

from mgjax.lab.scaling.comparison import budgets_of, compare_recipes, multiplier
from mgjax.lab.scaling.law import Law
from tests.lab.scaling.test_parametric import SURFACES, noisy, runs

FIRST = SURFACES['hoffmann']
TRUE = 1.3
# N and D count for more by the same factor each: as if every run had that much more compute.
SECOND = Law(
  FIRST.e,
  FIRST.a * TRUE ** (-FIRST.alpha / 2),
  FIRST.b * TRUE ** (-FIRST.beta / 2),
  FIRST.alpha,
  FIRST.beta,
)


def test_a_multiplier_that_is_known_is_found_at_every_budget():
  assert multiplier(FIRST, SECOND, 1e20) == pytest.approx(TRUE, rel=1e-8)
  found = compare_recipes(runs(FIRST), runs(SECOND), budgets_of(runs(FIRST)), resamples=2)
  assert len(found.multipliers) == 5
  for interval in found.multipliers.values():
    assert interval.value == pytest.approx(TRUE, rel=1e-5)
  assert found.exponent.value == pytest.approx(0, abs=1e-6)


def test_a_recipe_beside_itself_needs_as_much():
  generator = np.random.default_rng(0)
  found = compare_recipes(*(noisy(FIRST, generator, 0.002) for _ in range(2)), [1e20], resamples=40)
  interval = found.multipliers[1e20]
  assert interval.low < 1 < interval.high and interval.high / interval.low < 1.3
  assert found.exponent.low < 0 < found.exponent.high


def test_budgets_are_those_of_the_grid():
  assert budgets_of(runs(FIRST)) == pytest.approx(np.logspace(18, 21, 5))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_intervals_of_95_percent_have_the_multiplier_in_95_percent_of_sets():
  generator, covered, widths = np.random.default_rng(2), [], []
  for number in range(400):
    given = (noisy(law, generator, 0.002) for law in (FIRST, SECOND))
    found = compare_recipes(*given, [1e20], resamples=80, seed=number).multipliers[1e20]
    covered.append(found.low <= TRUE <= found.high)
    widths.append((found.high - found.low) / 2)
  print(f'covered {np.mean(covered):.3f}, median half-width {np.median(widths):.3f}')
  assert 0.92 <= np.mean(covered) <= 0.98
