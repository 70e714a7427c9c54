"""How sure an exponent will be: against simulation, and what the cheapest sweep is."""

import numpy as np
import pytest

from mgjax.lab.scaling.design.precision import cheapest_sweep, exponent_error
from mgjax.lab.scaling.parametric import fit_law
from tests.lab.scaling.test_parametric import SURFACES, noisy, runs

LAW = SURFACES['hoffmann']


def test_the_error_foretold_is_the_spread_of_fits_to_noisy_runs():
  grid, generator, noise = runs(LAW), np.random.default_rng(0), 0.001
  found = []
  for _ in range(100):
    fit = fit_law(noisy(LAW, generator, noise), delta=1.0, start=LAW)
    found.append(fit.law.exponent)
  # The spread of 100 draws is known to 7%: three of these.
  assert exponent_error(LAW, grid.size, grid.tokens, noise) == pytest.approx(
    np.std(found), rel=0.21
  )


def test_the_reports_budgets_tell_no_exponent_and_the_cheapest_sweep_does():
  size = np.array([4.9e9, 9.4e9, 17.3e9, 29.3e9] * 2)
  compute = np.repeat([1e22, 1.7e22], 4)
  assert exponent_error(LAW, size, compute / (6 * size), 0.002) > 0.2
  found = cheapest_sweep(LAW, 1.7e22, noise=0.002, half_width=0.02)
  assert found.half_width <= 0.02 and found.flops < compute.sum() / 20
  assert max(found.budgets) >= 1.7e22 / 100 * (1 - 1e-9) and found.decades <= 1.2
  assert max(found.budgets) / min(found.budgets) >= 10 * (1 - 1e-9)
  surer = cheapest_sweep(LAW, 1.7e22, noise=0.002, half_width=0.005)
  assert surer.flops > found.flops and surer.half_width <= 0.005
