"""Intervals of metrics cover what is true, and halves tell what few samples add."""

import math

import numpy as np
import pytest
import scipy.stats

from mgjax.lab.evaluation.metrics.frechet import frechet_distance, frechet_value
from mgjax.lab.statistics.intervals import compare, share, share_over_prompts
from mgjax.lab.statistics.values import (
  bias_warning,
  mean_of,
  mean_value,
  set_values,
  share_value,
)

TRIALS = 600
# Of so many trials the share spreads by .0089 around .95; three and a half of that.
LEAST = 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / TRIALS)


def test_the_interval_of_a_mean_is_that_of_students_distribution():
  values = np.random.default_rng(0).normal(3, 2, 400)
  mean = mean_value(values)
  expected = scipy.stats.t.interval(0.95, 399, values.mean(), scipy.stats.sem(values))
  assert mean.value == pytest.approx(values.mean(), rel=1e-12) and mean.count == 400
  # A quantile of 2,000 resamples spreads by .045 deviations of the mean; three of that and a half.
  assert (mean.low, mean.high) == pytest.approx(expected, abs=0.15 * scipy.stats.sem(values))
  assert mean == mean_value(values) and mean.low != mean_value(values, seed=1).low


@pytest.mark.slow
@pytest.mark.parametrize('count', [15, 60])
def test_the_interval_of_a_mean_covers_it_as_often_as_it_says(count):
  clips = np.random.default_rng(count).normal(size=(TRIALS, count))
  assert np.mean([mean.low <= 0 <= mean.high for mean in map(mean_value, clips)]) > LEAST


def test_clips_without_the_number_do_not_count_and_keep_their_place():
  mean = mean_value([1.0, math.nan, 3.0])
  assert (mean.value, mean.count) == (2, 2) and math.isnan(mean.each[1])
  alone = mean_value([math.nan, 4.0])
  assert alone.value == 4 and math.isnan(alone.low) and alone.as_dict()['low'] is None
  assert mean_value([]).count == 0 and math.isnan(mean_value([]).value)
  right = share_value([1.0, 0.0, math.nan, 1.0])
  assert (right.value, right.count, len(right.each)) == (2 / 3, 3, 4)


def test_halves_give_the_bias_and_the_spread_of_a_number_with_a_known_law():
  """Mean of x less mean of y, and c / n: known deviation, known limit."""
  generator = np.random.default_rng(1)
  x, y = generator.normal(1, 1, 301), generator.normal(0, 2, 200)

  def statistic(i, j):
    return [x[i].mean() - y[j].mean() + 30 / len(i) + 10 / len(j)]

  (value,) = set_values(statistic, (300, 200), splits=400)
  # Twice 30 / 300 + 10 / 200 less once; means of halves of even counts average to the whole's.
  assert value.bias == pytest.approx(0.15, rel=1e-12)
  assert value.limit[0] == pytest.approx(x[:300].mean() - y.mean(), rel=1e-12)
  deviation = math.sqrt(x[:300].var(ddof=1) / 300 + y.var(ddof=1) / 200)
  # The deviation from 400 halves is known to 1 / sqrt(800); four of that.
  assert (value.high - value.low) / 2 == pytest.approx(1.966 * deviation, rel=4 / math.sqrt(800))
  assert (value.count, value.references) == (300, 200)
  assert 'n = 300 and 200' in str(value) and 'of infinitely many' in str(value)
  odd = set_values(statistic, (301, 199))[0]
  assert odd.bias == pytest.approx(30 / 301 + 10 / 199, rel=0.1)


@pytest.mark.slow
def test_the_interval_of_the_limit_of_a_frechet_distance_covers_it():
  generator, hits, values = np.random.default_rng(2), [], []
  deviations = np.array([0.5, 1, 1.5, 2])
  true = 4 * 0.3**2 + np.sum((deviations - 1) ** 2)
  for trial in range(TRIALS):
    x = generator.normal(0.3, deviations, (120, 4))
    y = generator.normal(0, 1, (120, 4))
    value = frechet_value(x[:, None], y[:, None], seed=trial)
    hits.append(value.limit[1] <= true <= value.limit[2])
    values.append((value.value, value.limit[0]))
  assert np.mean(hits) > LEAST
  of_all, limit = np.mean(values, axis=0)
  error = np.std(values, axis=0)[1] / math.sqrt(TRIALS)
  assert of_all - true > 3 * error  # the number itself is too large
  assert abs(limit - true) < 3.5 * error


def test_equal_sets_have_a_limit_at_zero_and_a_warning():
  generator = np.random.default_rng(3)
  x, y = generator.normal(size=(2, 128, 1, 16))
  value = frechet_value(x, y)
  assert value.value == frechet_distance(x[:, 0], y[:, 0])
  assert value.limit[1] < 0 < value.limit[2] and value.bias > 0.5 * value.value
  assert 'because the samples are few (128 and 128)' in value.warning
  assert frechet_value(x + 5, y).warning == ''  # 16 x 25 is no matter of samples


def test_fewer_clips_than_twice_the_numbers_of_a_row_tell_no_limit():
  x, y = np.random.default_rng(4).normal(size=(2, 31, 1, 16))
  value = frechet_value(x, y)
  assert math.isnan(value.limit[0]) and 'need 32 clips or more' in value.warning
  assert value.as_dict()['limit'] == [None] * 3
  assert 'infinitely' not in str(value)


def test_a_difference_below_the_bias_is_warned_of():
  generator = np.random.default_rng(6)
  y = generator.normal(size=(100, 1, 16))
  near, other = (frechet_value(generator.normal(size=(100, 1, 16)), y) for _ in range(2))
  far = frechet_value(generator.normal(2, 1, size=(100, 1, 16)), y)
  assert 'frechet_videos differs by' in bias_warning('frechet_videos', near, other)
  assert bias_warning('frechet_videos', near, far) == ''


def test_the_interval_over_prompts_is_that_of_the_normal_distribution_where_prompts_are_many():
  values = np.random.default_rng(0).normal(3, 2, 1003)
  mean = mean_of(np.tile(values, 10), [*range(1003)] * 10)  # ten times make nothing surer
  half = 1.96 * values.std() / math.sqrt(1003)
  # A quantile of 2,000 resamples has a standard error of 0.06 standard deviations of the mean, and
  # half of the sum of two such 0.04: 4 of them are 8% of 1.96.
  assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.08)
  assert mean.value == pytest.approx(values.mean())
  assert (mean.videos, mean.prompts) == (10_030, 1003)


@pytest.mark.parametrize('count', [8, 16, 27])
def test_intervals_over_few_captions_cover_what_they_say(count):
  """1,500 studies of four videos a caption: .94 at least, less two standard deviations of that."""
  generator = np.random.default_rng(count)
  prompts = np.repeat(np.arange(count), 4).tolist()
  covered = np.zeros(4)
  for study in range(1500):
    captions = generator.normal(size=count)
    videos = captions.repeat(4) + generator.normal(size=4 * count) / 2
    one, other = mean_of(videos, prompts, seed=study), mean_value(captions, seed=study)
    right = share_over_prompts(
      generator.random(4 * count) < generator.beta(1.6, 0.4, count).repeat(4), prompts
    )
    pair = compare([captions], [2 * captions], resamples=2000, seed=study)
    for index, (interval, true) in enumerate(((one, 0), (other, 0), (right, 0.8), (pair, 0))):
      covered[index] += interval.low <= true <= interval.high
  assert (covered / 1500 >= 0.94 - 2 * math.sqrt(0.94 * 0.06 / 1500)).all(), covered / 1500


def test_fewer_than_five_captions_say_how_many_there_are_and_no_interval():
  values = np.array([0.5, 0.25, 0.75, 1.0, 0.5, 0.25, 0.75, 1.0])
  prompts = [*'abcdabcd']
  for mean in (mean_value(values[:4]), mean_of(values, prompts)):
    assert math.isnan(mean.low) and math.isnan(mean.high)
    assert str(mean) == '0.625 (n = 4)'
  for share_of in (share(values[:4] > 0.5), share_over_prompts(values > 0.5, prompts)):
    assert math.isnan(share_of.low) and str(share_of) == f'0.500 (n = {share_of.count})'
  assert math.isfinite(mean_of(values, [*'abcdeabc']).low) and math.isfinite(
    share(values > 0.5).low
  )
  assert math.isnan(compare([values[:4]], [values[4:][::-1]]).low)


def test_what_was_not_measured_counts_nowhere_and_one_prompt_has_no_interval():
  mean = mean_of(np.array([1.0, np.nan, 3.0]), ['a', 'b', 'a'])
  assert (mean.value, mean.videos, mean.prompts) == (2.0, 2, 1) and math.isnan(mean.low)
  assert mean.as_dict()['low'] is None and str(mean) == '2 (n = 1)'
  assert mean_of(np.array([np.nan]), ['a']).as_dict()['value'] is None
