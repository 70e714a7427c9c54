"""Correlations against closed forms, and how often their intervals hold the truth."""

import numpy as np
import pytest

from mgjax.lab.statistics.correlations import correlate, correlate_ranks


def test_a_correlation_is_that_of_pearson_with_fishers_interval():
  generator = np.random.default_rng(0)
  x, noise = generator.normal(size=(2, 300))
  correlation = correlate(x, x + noise)
  assert correlation.value == pytest.approx(np.corrcoef(x, x + noise)[0, 1])
  fisher = np.tanh(np.arctanh(correlation.value) + np.array([-1, 1]) * 1.96 / 297**0.5)
  # A quantile of 2,000 resamples and a normal approximation: a tenth of the width.
  assert (correlation.low, correlation.high) == pytest.approx(fisher, abs=0.1 * np.ptp(fisher))
  assert correlation.chance == pytest.approx(1.96 / 300**0.5, rel=0.1)
  assert correlate(x, -2 * x).high == pytest.approx(-1)


def test_pairs_that_are_not_there_do_not_count_and_what_is_constant_has_no_correlation():
  x = np.array([1.0, 2, 3, 4, np.nan])
  assert correlate(x, np.array([1.0, 2, 3, 4, 5])).count == 4
  constant = correlate(x, np.ones(5))
  assert np.isnan(constant.value) and np.isnan(constant.chance)


@pytest.mark.parametrize('count', (12, 40))
def test_the_interval_of_a_rank_correlation_has_its_truth_in_19_of_20_studies(count):
  generator = np.random.default_rng(count)
  rho, studies = -0.8, 500
  truth = 6 / np.pi * np.arcsin(rho / 2)  # of ranks, for normal pairs of correlation rho
  x, noise = generator.normal(size=(2, studies, count))
  y = rho * x + (1 - rho**2) ** 0.5 * noise
  correlations = [correlate_ranks(*pair, resamples=1) for pair in zip(x, np.exp(y), strict=True)]
  covered = np.mean([correlation.low <= truth <= correlation.high for correlation in correlations])
  # .95, give or take three standard errors of 500 studies, .029.
  assert 0.92 <= covered <= 0.98


def test_ranks_in_order_have_a_correlation_of_one_and_an_interval_that_ends_there():
  correlation = correlate_ranks([1, 2, 3, 40, np.nan], [1, 4, 9, 16, 0])
  assert correlation.value == pytest.approx(1) and correlation.count == 4
  assert correlation.high == pytest.approx(1)
  assert np.isnan(correlate_ranks([1, 2, 3], [1, 2, 3]).low)


def test_pasting_is_copying_and_independence_is_not():
  generator = np.random.default_rng(0)
  turn, noise = generator.uniform(-30, 30, 200), generator.normal(size=200)
  assert correlate(turn, turn + noise).low > 0.99
  independent = correlate(generator.uniform(-9, 9, 200), noise)
  assert independent.low < 0 < independent.high and abs(independent.value) < 2 * independent.chance
  # r = 1 / sqrt(2) of signal and noise alike; 4 standard errors (1 - r^2) / sqrt(n).
  assert correlate(turn, turn / 17.3 + noise).value == pytest.approx(
    0.5**0.5, abs=4 * 0.5 / 200**0.5
  )
