"""Records are compared where they can be, and where they cannot a sentence says why."""

import json
import pathlib

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.record.against import Other, compare_records, read_other
from mgjax.lab.evaluation.record.measured import Measured, Metric, mean_metric, share_metric
from mgjax.lab.statistics.intervals import apart, share
from mgjax.lab.statistics.values import Value

PROMPTS = [f'prompt {number}' for number in range(8)]


def record_of(values, prompts=PROMPTS, *, share_of=False, **about):
  make = share_metric if share_of else mean_metric
  measured = Measured({'scores/psnr': make(values, 'PSNR', 1)}, prompts)
  return {'task': 'video', 'seed': 0} | about | {'measured': measured.as_dict()}


def compared(ours, theirs):
  comparison = compare_records(ours, Other(pathlib.Path('other'), json.loads(json.dumps(theirs))))
  return comparison['metrics'].get('scores/psnr'), ' '.join(comparison['notes'])


@pytest.mark.parametrize(
  ('ours', 'theirs', 'pairs', 'said'),
  [
    ({'seed': 1}, {}, 8, 'of seed 0, this one of 1'),
    ({'settings': {'clips': 'a/'}}, {'settings': {'clips': 'b/'}}, 0, 'clips b/, this one of a/'),
    ({'settings': {'steps': 4}}, {'settings': {'steps': 8}}, 8, 'the other record has 8, this'),
    ({}, {'task': 'editing'}, None, "task 'editing', this one of 'video': their numbers cannot"),
  ],
  ids=['seed', 'clips', 'settings', 'task'],
)
def test_what_else_differs_is_said_and_pairs_are_of_the_same_clips(ours, theirs, pairs, said):
  change, notes = compared(record_of(np.arange(8.0), **ours), record_of(np.ones(8), **theirs))
  assert said in notes and (change and change['prompts']) == pairs


def test_of_some_common_prompts_pairs_are_these_and_of_few_there_are_none():
  many = record_of(np.arange(8.0))
  part = record_of([3.0, 5.0, 9.0], ['prompt 2', 'prompt 4', 'prompt 7'])
  change, notes = compared(part, many)
  assert change['prompts'] == 3 and change['difference'] == pytest.approx((1 + 1 + 2) / 3)
  assert 'Of 3 prompts of this record and 8 of the other 3 are the same' in notes
  other = record_of([3.0, 5.0, 9.0], ['prompt 2', 'a', 'b'])
  change, _ = compared(other, many)
  assert change['prompts'] == 0


def test_samples_of_one_prompt_are_one_pair():
  prompts = [PROMPTS[index // 2] for index in range(12)]
  change, _ = compared(record_of([2.0] * 6 + [4.0] * 6, prompts), record_of(np.ones(12), prompts))
  assert change['prompts'] == 6 and change['difference'] == 2
  assert (change['low'], change['high']) == pytest.approx((1, 3))  # all six of either kind


def test_wins_are_the_share_of_prompts_with_a_larger_number():
  ours, theirs = [1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 7, 8, 8]  # 5 won, 1 even, 2 lost
  change, _ = compared(record_of(ours), record_of(theirs))
  won, low, high = change['wins']
  assert won == pytest.approx(5.5 / 8)
  # Of eight throws of 1, 1/2 and 0: within a rounding of the bootstrap of a normal interval.
  spread = 1.96 * np.std([1] * 5 + [0.5] + [0] * 2) / np.sqrt(8)
  assert (won - low, high - won) == pytest.approx((spread, spread), abs=0.08)


def test_two_shares_without_a_pair_that_differs_keep_an_interval():
  change, _ = compared(record_of([1] * 8, share_of=True), record_of([1] * 8, share_of=True))
  one = share([True] * 8)
  low, high = apart((one.value, one.low, one.high), (one.value, one.low, one.high))
  assert (change['low'], change['high']) == pytest.approx((low, high)) and low < -0.2


def sets(value, bias, count):
  distance = Value(value, value - 1, value + 1, count, (), count, bias, True)
  metric = Metric(distance, 'Frechet', -1, mean=False)
  return {'task': 'suite', 'measured': Measured({'scores/psnr': metric}).as_dict()}


def test_distances_that_differ_by_less_than_their_bias_are_warned_of():
  change, _ = compared(sets(10.0, 5.0, 100), sets(12.0, 5.0, 100))
  said = 'Frechet differs by 2 (12 and 10), less than the 5 by which few samples'
  assert said in change['warning']
  change, _ = compared(sets(10.0, 0.5, 100), sets(12.0, 0.4, 100))
  assert change['warning'] == ''
  change, _ = compared(sets(10.0, 0.5, 100), sets(12.0, 0.4, 50))
  assert 'of 100 and 100 here and of 50 and 50 there; fewer make it larger' in change['warning']


def of_one(field, samples='["a"]'):
  return f'{{"measured": {{"samples": {samples}, "metrics": {{"x": {{"value": 1, {field}}}}}}}}}'


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('{"measured": {', 'no readable JSON'),
    ('[]', 'holds list, expected dict'),
    ('{"a": 1}', 'holds no numbers of an evaluation'),
    (of_one('"each": [1, 2]'), 'is damaged'),
    (of_one('"each": ["one"]'), 'is damaged'),
    ('{"measured": [1]}', 'is damaged'),
    (of_one('"each": [1]', '[1]'), 'holds no numbers of an evaluation'),
  ],
  ids=['cut', 'list', 'another', 'too many', 'words', 'no names', 'numbers'],
)
def test_damaged_records_are_a_sentence(tmp_path, text, said):
  path = tmp_path / 'evaluation.json'
  path.write_text(text)
  for location in (path, tmp_path):
    with pytest.raises(DataError, match=said) as error:
      read_other(location)
    assert 'name an evaluation.json' in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(ConfigError, match='there is no such file'):
    read_other(tmp_path / 'none.json')
