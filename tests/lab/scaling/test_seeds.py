"""Arms of one budget: differences of seeds and their intervals."""

import numpy as np
import pytest
from scipy import stats

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.scaling.seeds import compare_seeds, describe_ranking, describe_seeds, rank_arms


def rows(arm, losses, seeds=None, **fields):
  seeds = range(len(losses)) if seeds is None else seeds
  return [
    {
      'arm': arm,
      'seed': seed,
      'validation_loss': loss,
      'scores': {'all': 1 - loss, 'samples': 27},
      **fields,
    }
    for seed, loss in zip(seeds, losses, strict=True)
  ]


def test_seeds_that_both_have_are_pairs():
  first, second = [0.50, 0.62, 0.55, 0.70], [0.45, 0.58, 0.52, 0.63]
  found = compare_seeds(rows('a', first) + rows('b', second), 'a', 'b')
  difference = found['validation_loss'][2]
  wanted = stats.ttest_rel(second, first).confidence_interval(0.95)
  assert (difference.low, difference.high) == pytest.approx((wanted.low, wanted.high))
  assert found['all'][2].value == pytest.approx(-difference.value) and 'samples' not in found


def test_other_seeds_are_two_samples():
  first, second = [0.50, 0.62, 0.55], [0.45, 0.58, 0.52, 0.63]
  found = compare_seeds(rows('a', first) + rows('b', second, [5, 6, 7, 8]), 'a', 'b')
  wanted = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
  difference = found['validation_loss'][2]
  assert (difference.low, difference.high) == pytest.approx((wanted.low, wanted.high))


def test_intervals_of_three_pairs_have_the_difference_in_95_percent_of_sets():
  generator, covered = np.random.default_rng(0), []
  for _ in range(400):
    luck = generator.normal(0, 0.1, 3)  # of a seed, which both share
    first, second = luck + generator.normal(0, 0.02, (2, 3))
    found = compare_seeds(rows('a', first) + rows('b', second + 0.05), 'a', 'b')
    interval = found['validation_loss'][2]
    covered.append(interval.low <= 0.05 <= interval.high)
  assert 0.95 - 3 * 0.0109 < np.mean(covered) < 0.95 + 3 * 0.0109  # binomial, 400 sets


def test_runs_that_failed_do_not_count_and_one_seed_is_none():
  failed = [{**rows('b', [0.4], [9])[0], 'error': 'nan', 'validation_loss': None, 'scores': None}]
  both = rows('a', [0.5, 0.6]) + rows('b', [0.4, 0.5])
  assert '2 and 2 seeds' in describe_seeds(both + failed, 'a', 'b')
  assert compare_seeds(both + failed, 'a', 'b') == compare_seeds(both, 'a', 'b')
  with pytest.raises(ConfigError, match="arm 'b' has 1 runs; expected 2 seeds at least"):
    compare_seeds(rows('a', [0.5, 0.6]) + rows('b', [0.4]), 'a', 'b')
  with pytest.raises(DataError, match='row 2 has no arm, nor tokens or flops; arms of sizes are'):
    compare_seeds([*rows('a', [0.5]), {'loss': 1.0}], 'a', 'b')


def test_seeds_are_compared_whatever_names_them():
  both = rows('a', [0.5, 0.6]) + rows('b', [0.4, 0.5])
  named = [row | {'seed': [row['seed']]} for row in both]
  assert compare_seeds(named, 'a', 'b') == compare_seeds(both, 'a', 'b')


def test_arms_are_ranked_and_seeds_that_have_the_order_are_counted():
  three = rows('middle', [0.5, 0.6, 0.7]) + rows('best', [0.4, 0.5, 0.8]) + rows('worst', [0.9] * 3)
  assert [arm for arm, _ in rank_arms(three, 'validation_loss')] == ['best', 'middle', 'worst']
  assert [arm for arm, _ in rank_arms(three, 'all')] == ['best', 'middle', 'worst']  # high is good
  lines = describe_ranking(three, 'validation_loss').splitlines()
  assert '2 of 3 seeds' in lines[1] and '3 of 3 seeds' in lines[2]
  assert lines[1].split()[:2] == ['best', '0.5667'] and lines[-1].endswith('in 2 of 3 seeds')


def test_a_ranking_names_what_it_lacks():
  with pytest.raises(
    ConfigError, match=r"0 of 2 arms have a number 'beauty'.*all, validation_loss"
  ):
    rank_arms(rows('a', [0.5]) + rows('b', [0.6]), 'beauty')
  with pytest.raises(ConfigError, match='1 of 1 arms'):
    describe_ranking(rows('a', [0.5]), 'all')
  failed = {**rows('b', [0.4])[0], 'error': 'nan', 'validation_loss': None, 'scores': None}
  with pytest.raises(ConfigError, match='1 of 2 arms'):
    describe_ranking([*rows('a', [0.5]), failed], 'all')
