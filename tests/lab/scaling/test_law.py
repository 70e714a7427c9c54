"""What a law says of a budget, against closed forms and a search."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mgjax.lab.scaling.law import Law

HOFFMANN = Law(1.69, 406.4, 410.7, 0.34, 0.28)
UNEVEN = Law(1.5, 1e4, 30.0, 0.5, 0.2)


@pytest.mark.parametrize('law', (HOFFMANN, UNEVEN), ids=('hoffmann', 'uneven'))
@pytest.mark.parametrize('compute', (1e18, 5.76e23))
def test_no_size_is_better_than_the_best_one(law, compute):
  best = law.optimum(compute)
  found = minimize_scalar(
    lambda log: law.at(compute, np.exp(log)),
    (np.log(best.size) - 2, np.log(best.size) + 3),
    options={'xtol': 1e-10},
  )
  # A minimum is flat: its place is known to the root of a float's precision.
  assert np.exp(found.x) == pytest.approx(best.size, rel=1e-6)
  assert best.loss == pytest.approx(found.fun, rel=1e-14)
  assert 6 * best.size * best.tokens == pytest.approx(compute)


def test_the_best_size_grows_by_its_exponent():
  sizes = [HOFFMANN.optimum(compute).size for compute in (1e20, 1e23)]
  assert np.log10(sizes[1] / sizes[0]) / 3 == pytest.approx(0.28 / 0.62)
  assert HOFFMANN.exponent == pytest.approx(0.28 / 0.62)


def test_a_loss_and_the_budget_for_it_belong_together():
  for compute in (1e12, 1e20, 1e27):
    assert HOFFMANN.compute_for(HOFFMANN.optimum(compute).loss) == pytest.approx(compute, rel=1e-8)
  assert HOFFMANN.compute_for(1.69) == np.inf


def test_a_size_off_the_best_one_costs_more_and_none_is_free():
  assert HOFFMANN.price(1e21, 1.0) == pytest.approx(1, rel=1e-9)
  prices = [HOFFMANN.price(1e21, factor) for factor in (0.25, 0.5, 2.0, 4.0)]
  assert prices[0] > prices[1] > 1 < prices[2] < prices[3]
  wrong = HOFFMANN.at(1e21, 2 * HOFFMANN.optimum(1e21).size)
  assert HOFFMANN.optimum(1e21 / prices[2]).loss == pytest.approx(wrong, rel=1e-9)
