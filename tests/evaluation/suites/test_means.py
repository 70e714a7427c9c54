"""Means say how sure they are: over prompts, since videos of one prompt are alike."""

import math

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.evaluation.suites.means import mean_of


def test_the_interval_is_that_of_the_normal_distribution_where_prompts_are_many():
  values = np.random.default_rng(0).normal(3, 2, 1003)
  found = mean_of(values, range(1003))
  half = 1.96 * values.std() / math.sqrt(1003)
  # A quantile of 2,000 resamples has a standard error of 0.06 standard deviations of the mean, and
  # half of the sum of two such 0.04: 4 of them are 8% of 1.96.
  assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)
  assert found.value == pytest.approx(values.mean()) and (found.videos, found.prompts) == (
    1003,
    1003,
  )


def test_the_same_videos_ten_times_make_nothing_surer():
  values = np.random.default_rng(0).normal(0, 1, 100)
  once, often = mean_of(values, range(100)), mean_of(np.tile(values, 10), [*range(100)] * 10)
  assert (often.low, often.high) == pytest.approx((once.low, once.high))
  assert (often.videos, often.prompts) == (1000, 100)


def test_what_was_not_measured_counts_nowhere_and_one_prompt_has_no_interval():
  found = mean_of(np.array([1.0, np.nan, 3.0]), ['a', 'b', 'a'])
  assert (found.value, found.videos, found.prompts) == (2.0, 2, 1) and math.isnan(found.low)
  assert found.as_dict()['low'] is None and str(found) == '2'
  assert mean_of(np.array([np.nan]), ['a']).as_dict()['value'] is None


def test_values_without_prompts_are_refused():
  with pytest.raises(DataError, match='2 numbers of 1 prompts'):
    mean_of(np.zeros(2), ['a'])
