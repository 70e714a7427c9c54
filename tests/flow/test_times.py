"""Training times follow the distribution that a configuration names."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mgjax.core.errors import ConfigError
from mgjax.flow import times

COUNT = 20_000
# Kolmogorov-Smirnov: a distance that the right distribution exceeds once in a thousand seeds.
DISTANCE = 1.95 / np.sqrt(COUNT)


@pytest.mark.parametrize(('mean', 'std'), [(0.0, 1.0), (-0.5, 0.7)])
def test_logit_normal_has_scipys_quantiles(mean, std):
  drawn = np.asarray(times.logit_normal(jax.random.key(0), (COUNT,), mean, std), np.float64)
  for probability in (0.01, 0.1, 0.5, 0.9, 0.99):
    quantile = scipy.special.expit(scipy.stats.norm(mean, std).ppf(probability))
    deviation = np.sqrt(probability * (1 - probability) / COUNT)
    assert abs(np.mean(drawn < quantile) - probability) < 4 * deviation
  normal = scipy.special.logit(drawn)
  assert scipy.stats.kstest(normal, scipy.stats.norm(mean, std).cdf).statistic < DISTANCE


@pytest.mark.parametrize(('low', 'high'), [(0.0, 0.4), (0.4, 1.0), (0.2, 0.3)])
def test_an_experts_times_are_those_of_all_between_its_bounds(low, high):
  drawn = np.asarray(
    times.logit_normal(jax.random.key(0), (COUNT,), -0.5, 0.7, low, high), np.float64
  )
  assert drawn.min() >= low - 1e-6
  assert drawn.max() <= high + 1e-6
  whole = scipy.stats.norm(-0.5, 0.7).cdf
  first, last = whole(scipy.special.logit([low, high]))
  found = (whole(scipy.special.logit(drawn)) - first) / (last - first)
  assert scipy.stats.kstest(found, 'uniform').statistic < DISTANCE
  with pytest.raises(ConfigError, match=r'low = 0.5, high = 0.5; expected low < high'):
    times.logit_normal(jax.random.key(0), (3,), low=0.5, high=0.5)


def test_uniform_is_uniform():
  drawn = times.uniform(jax.random.key(1), (COUNT,))
  assert scipy.stats.kstest(np.asarray(drawn), 'uniform').statistic < DISTANCE


def test_stratified_is_a_fixed_grid():
  grid = times.stratified(jax.random.key(0), (8,))
  np.testing.assert_allclose(grid, (np.arange(8) + 0.5) / 8, rtol=1e-7)
  np.testing.assert_array_equal(grid, times.stratified(jax.random.key(1), (8,)))


@pytest.mark.parametrize(('mean', 'std'), [(0.0, 1.0), (-1.0, 0.7)])
def test_the_stratified_logit_normal_has_its_quantiles(mean, std):
  grid = times.stratified_logit_normal(jax.random.key(0), (4, 2), mean, std)
  normal = scipy.stats.norm(mean, std).ppf((np.arange(8) + 0.5) / 8)
  # The quantile function of a float32 is good to some 1e-6.
  np.testing.assert_allclose(grid.reshape(-1), scipy.special.expit(normal), rtol=1e-5)


@pytest.mark.parametrize('name', times.TIMES)
def test_every_sampler_makes_float32_times_of_a_shape(name):
  drawn = times.make_sampler(name)(jax.random.key(0), (3, 2))
  assert drawn.shape == (3, 2) and drawn.dtype == np.float32
  assert np.all((drawn >= 0) & (drawn <= 1))


def test_make_sampler_names_the_choices():
  with pytest.raises(ConfigError, match=r"'logitnormal'.*logit_normal, uniform, stratified"):
    times.make_sampler('logitnormal')
  with pytest.raises(ConfigError, match=r'objective\.time\.men; did you mean .*\.mean'):
    times.make_sampler('logit_normal', men=1.0)
  with pytest.raises(ConfigError, match=r'unknown key objective\.time\.'):
    times.make_sampler('uniform', mean=1.0)
