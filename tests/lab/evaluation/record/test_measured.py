"""Metrics of samples: which are the best and the worst, and how sure a number of prompts is."""

import math

import numpy as np
import pytest

from mgjax.lab.evaluation.record.measured import (
  EXTREMES,
  Measured,
  Metric,
  extremes,
  mean_metric,
  pooled_metric,
  share_metric,
  spread,
  table_of,
)
from mgjax.lab.statistics.intervals import apart, share, share_over_prompts
from mgjax.lab.statistics.values import Value, mean_of


def test_best_and_worst_go_by_what_is_better():
  numbers = [5, math.nan, 1, 9, 3, 7, 2, 8, 4, 6]
  assert extremes(numbers, 1) == ([3, 7, 5, 9], [2, 6, 4, 8])
  assert extremes(numbers, -1) == ([2, 6, 4, 8], [3, 7, 5, 9])
  assert extremes(numbers[:5], 1) == ([3, 0, 4, 2], [])  # no sample is both
  assert extremes([1, 1, 1]) == extremes([]) == extremes([math.nan]) == ([], [])
  assert extremes([1, 0, math.nan, 1], 1, share=True) == ([0, 3], [1])
  assert len(extremes([1] * 9, 1, share=True)[0]) == EXTREMES


def test_what_is_shown_is_some_of_all_and_the_extremes_of_each_metric():
  prompts = [f'p{index // 2}' for index in range(40)]
  measured = Measured({'x': mean_metric(np.arange(40.0), better=1)}, prompts)
  assert spread(prompts, 4) == [0, 10, 20, 30]
  assert measured.samples_to_show(4) == [0, 1, 2, 3, 10, 20, 30, 36, 37, 38, 39]


def test_samples_of_one_prompt_do_not_count_as_many():
  correct = np.repeat([1, 0, 1, 1, 1, 0], 5).astype(float)
  prompts = [name for name in 'abcdef' for _ in range(5)]
  measured = Measured({'x': share_metric(correct), 'y': mean_metric(correct)}, prompts)
  metrics = measured.as_dict()['metrics']
  alone = share(correct > 0)
  assert metrics['x']['value'] == alone.value and metrics['x']['count'] == 30
  assert metrics['x']['high'] - metrics['x']['low'] > 1.5 * (alone.high - alone.low)
  over = mean_of(correct, prompts)
  assert (metrics['y']['low'], metrics['y']['high']) == (over.low, over.high)
  metrics = Measured({'x': share_metric(correct)}, [str(n) for n in range(30)]).as_dict()['metrics']
  assert (metrics['x']['low'], metrics['x']['high']) == (alone.low, alone.high)


@pytest.mark.parametrize('captions', ['a', 'ab', 'abcd'])
def test_a_share_of_many_clips_of_few_captions_says_how_few_and_has_no_interval(captions):
  right = np.arange(24) % 3 > 0
  measured = Measured({'x': share_metric(right, 'right')}, [*captions * (24 // len(captions))])
  metric = measured.as_dict()['metrics']['x']
  assert metric['value'] == 2 / 3 and metric['low'] is None and metric['high'] is None
  said = f'an interval needs 5 captions, not {len(captions)}'
  assert said in metric['warning'] and said in table_of(measured)


def test_the_interval_over_prompts_covers_what_it_says():
  """2,000 studies of 54 prompts with four videos each, whose chances differ from prompt to prompt.

  Of intervals that cover .95 a share within .95 +- .015 does (three standard deviations); those
  that take videos as independent cover far less.
  """
  generator, prompts = np.random.default_rng(0), np.repeat(np.arange(54), 4).tolist()
  covered = np.zeros(2)
  for _ in range(2000):
    chance = generator.beta(1.6, 0.4, 54).repeat(4)
    right = generator.random(216) < chance
    for index, interval in enumerate((share_over_prompts(right, prompts), share(right))):
      covered[index] += interval.low <= 0.8 <= interval.high
  assert abs(covered[0] / 2000 - 0.95) < 0.015 and covered[1] / 2000 < 0.85


def test_the_interval_of_a_difference_is_that_of_newcombe():
  """Table II of Newcombe (1998), example a: 56/70 - 48/80, method 10: .0524 to .3339."""
  first, second = (share(np.arange(n) < right) for right, n in ((48, 80), (56, 70)))
  ends = apart((first.value, first.low, first.high), (second.value, second.low, second.high))
  assert ends == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_number_of_all_samples_together_has_an_interval_of_resamples():
  values = np.random.default_rng(0).normal(size=100)
  metric = pooled_metric(values, lambda places: float(np.median(values[places])), better=-1)
  assert metric.value.value == np.median(values) and not metric.mean
  reach = 1.96 * math.sqrt(math.pi / 2 / 100)
  # Of n normal numbers the median has a deviation of sqrt(pi / 2n); the bootstrap's varies.
  assert metric.value.high - metric.value.low == pytest.approx(2 * reach, rel=0.35)
  assert metric.as_dict()['best'][0] == int(values.argmin())


def test_a_table_has_a_row_a_metric_one_a_group_and_the_notes():
  metric = Metric(Value(0.5, 0.25, 0.75, 2), 'right', 1, beside={'truth': 1.0, 'chance': math.nan})
  alone = Metric(Value(3.0, math.nan, math.nan, 0), 'error')
  groups = {'low': {'a': Value(0.5, math.nan, math.nan, 1)}}
  table = table_of(Measured({'a': metric, 'b': alone}, groups=groups, notes=['two videos']))
  assert table.splitlines() == [
    '       value  95% interval  n  better  truth',
    'right    0.5  0.25 to 0.75  2  higher      1',
    'error      3',
    '',
    '     n  right',
    'low  1    0.5',
    'two videos',
  ]


def test_records_hold_plain_values():
  one = share([True] * 5)
  record = {'x': np.float32(0.5), 'y': [math.nan, (1, np.int64(2))], 'z': one}
  assert Measured({}, record=record).record == {
    'x': 0.5,
    'y': [None, [1, 2]],
    'z': {'value': 1, 'low': one.low, 'high': 1, 'count': 5},
  }
