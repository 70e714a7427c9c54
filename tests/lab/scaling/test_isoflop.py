"""IsoFLOP parabolas: what they find, by how much they are off, and what has no minimum."""

import math

import numpy as np
import pytest

from mgjax.lab.scaling.isoflop import PowerLaw, find_minima, fit_power, group_budgets
from mgjax.lab.scaling.law import Law
from tests.lab.scaling.test_parametric import SURFACES, runs


def bias(law, width, off=0.0):
  """By how much the size at 1e23 that the minima predict is off, as a factor less one."""
  size, tokens, loss = runs(law, width=width, off=off)
  minima = find_minima(6 * size * tokens, size, loss)
  power = fit_power(
    np.array([each.compute for each in minima]), np.array([each.size for each in minima])
  )
  return power(1e23) / law.optimum(1e23).size - 1, power.exponent


@pytest.mark.parametrize(('width', 'off_by'), ((0.6, 0.004), (1.2, 0.014), (2.4, 0.058)))
def test_the_bias_of_parabolas_without_noise_is_as_large_as_was_measured(width, off_by):
  law = SURFACES['hoffmann']
  found, exponent = bias(law, width)
  assert found == pytest.approx(off_by, abs=0.002)
  assert exponent == pytest.approx(law.exponent, abs=1e-6)


def test_an_uneven_surface_is_misread_by_a_third_where_the_grid_is_wide():
  assert bias(SURFACES['uneven'], 2.4)[0] == pytest.approx(0.31, abs=0.02)


def test_a_surface_that_is_the_same_both_ways_has_no_bias():
  law = Law(1.7, 400.0, 400.0, 0.3, 0.3)
  found, exponent = bias(law, 1.2)
  assert found == pytest.approx(0, abs=1e-9) and exponent == pytest.approx(0.5)


def test_budgets_are_told_apart_whatever_the_order_of_runs():
  compute = np.array([1e20, 1.0e18, 1.02e18, 3e18, 0.99e20, 2.95e18])
  assert group_budgets(compute).tolist() == [2, 0, 0, 1, 2, 1]


def test_a_minimum_beyond_the_runs_says_so():
  size, tokens, loss = runs(SURFACES['hoffmann'], width=0.5, off=0.6)
  minima = find_minima(6 * size * tokens, size, loss)
  assert len(minima) == 5 and not any(each.inside for each in minima)
  assert all(each.curvature > 0 for each in minima)


def test_a_law_of_few_runs_that_is_too_steep_is_infinite_and_no_error():
  assert PowerLaw(2.0, 3.0)(10.0) == 2000 and PowerLaw(1.0, 99.0)(5e11) == math.inf
