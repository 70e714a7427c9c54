"""Claims: the rule of verdicts, its rate of error, and the page, which records alone make."""

import json
import pathlib

import numpy as np
import pytest

from mgjax.core.configuration.config_files import load_config
from mgjax.core.errors import ConfigError
from mgjax.lab.scaling.claims import (
  FAILS,
  HOLDS,
  NOT_HERE,
  OPEN,
  SMALLER,
  Claim,
  Verdict,
  error_rate,
  judge,
  seeds_needed,
  write_claims,
)

PLACE = {'says': 'b is better', 'where': '§1', 'report': '+1'}
CLAIM = {**PLACE, 'records': 'runs', 'first': 'a', 'second': 'b', 'score': 'all', 'margin': 0.1}


def write(folder: pathlib.Path, **arms):
  rows = [
    {'arm': arm, 'seed': seed, 'scores': {'all': score}}
    for arm, scores in arms.items()
    for seed, score in enumerate(scores)
  ]
  (folder / 'runs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def word(folder: pathlib.Path, a, b, **changes):
  write(folder, a=a, b=b)
  return judge(Claim(**CLAIM | changes), folder).word


def test_better_holds_beyond_luck_and_by_the_margin_alone(tmp_path):
  first = [0.5, 0.6, 0.4]
  assert word(tmp_path, first, [0.7, 0.81, 0.6]) == HOLDS
  assert word(tmp_path, first, [0.5, 0.61, 0.4]) == FAILS  # by a tenth of a margin, if at all
  assert word(tmp_path, first, [0.3, 0.41, 0.2]) == FAILS  # the other way round
  assert word(tmp_path, first, [0.9, 0.5, 0.6]) == OPEN
  # Of losses less is better.
  assert word(tmp_path, first, [0.3, 0.41, 0.2], better=-1) == HOLDS


def test_a_sure_difference_below_the_margin_is_called_smaller_than_it(tmp_path):
  first = [0.5, 0.6, 0.4]
  assert word(tmp_path, first, [0.55, 0.66, 0.45]) == SMALLER
  assert word(tmp_path, first, [0.45, 0.54, 0.35], better=-1) == SMALLER
  assert word(tmp_path, first, [0.45, 0.54, 0.35]) == FAILS  # as sure, the other way round
  assert word(tmp_path, first, [0.55, 0.66, 0.45], margin=0.01) == HOLDS
  assert word(tmp_path, first, [0.55, 0.66, 0.45], equal=True) == HOLDS


def test_rows_whose_seeds_are_noise_of_one_model_say_so():
  groups = load_config('configs/scaling/claims.py').to_dict()['groups']
  claims = [claim for group in groups for claim in group['claims']]
  rows = [
    line.split('|')
    for line in pathlib.Path('docs/results/claims.md').read_text().splitlines()
    if line.startswith('| ') and '**' in line
  ]
  told = {row[1].strip(): row[3].strip() for row in rows}
  for claim in claims:
    records = claim.get('records', '')
    path = pathlib.Path('docs/records') / f'{records}.jsonl'
    runs = [json.loads(line) for line in path.read_text().splitlines()] if records else []
    trained = any('steps' in row or 'from' in row for row in runs) or records == 'claims_upsampled'
    assert claim['noise'] == bool(runs and not trained), claim['says']
    assert told[claim['says']].endswith('noise') == claim['noise']


def test_as_good_holds_within_the_margin_on_both_sides(tmp_path):
  first = [0.5, 0.6, 0.4]
  assert word(tmp_path, first, [0.51, 0.6, 0.41], equal=True) == HOLDS
  assert word(tmp_path, first, [0.7, 0.81, 0.6], equal=True) == HOLDS  # as good, and better
  assert word(tmp_path, first, [0.3, 0.41, 0.2], equal=True) == FAILS
  assert word(tmp_path, first, [0.9, 0.5, 0.6], equal=True) == OPEN


def test_what_was_not_tried_is_not_settled_and_what_cannot_be_says_so(tmp_path):
  assert judge(Claim(**CLAIM), tmp_path).word == OPEN
  write(tmp_path, a=[0.5], b=[0.9])
  assert judge(Claim(**CLAIM), tmp_path) == Verdict(OPEN, seeds=1)
  assert judge(Claim(**PLACE, note='no language model'), tmp_path).word == NOT_HERE
  with pytest.raises(ConfigError, match="arm 'a' has no 'nothing'; expected one of all"):
    judge(Claim(**CLAIM | {'score': 'nothing'}), tmp_path)


def test_seeds_without_a_partner_are_left_out(tmp_path):
  write(tmp_path, a=[0.5, 0.6, 0.4, 9.0], b=[0.7, 0.81, 0.6])
  assert judge(Claim(**CLAIM), tmp_path).seeds == 3


def test_one_arm_beside_itself_differs_in_at_most_five_percent():
  numbers = np.random.default_rng(0)
  rates = [error_rate(numbers.normal(0.5, 0.1, 24), margin=0.0) for _ in range(40)]
  # 40 sets of 4 independent comparisons each, at least: three standard errors of .05.
  assert abs(np.mean(rates) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 160)
  with_margin = [error_rate(numbers.normal(0.5, 0.1, 24), margin=0.1) for _ in range(40)]
  assert np.mean(with_margin) < np.mean(rates)
  with pytest.raises(ConfigError, match='5 runs'):
    error_rate(np.arange(5.0), margin=0.1)


def test_as_many_seeds_as_are_said_find_the_margin_in_four_of_five_experiments(tmp_path):
  count = seeds_needed(0.1, 0.1)
  numbers = np.random.default_rng(0)
  pairs = numbers.normal(0.1, 0.1, (400, count))
  limits = pairs.std(axis=1, ddof=1) / np.sqrt(count)
  found = np.abs(pairs.mean(axis=1)) > 2.262 * limits  # of 9 degrees of freedom
  assert count == 10 and abs(found.mean() - 0.8) < 3 * np.sqrt(0.8 * 0.2 / 400)
  assert seeds_needed(1.0, 1e-3) is None and seeds_needed(0.0, 0.1) == 2


def test_the_page_is_what_the_records_say(tmp_path):
  here = pathlib.Path('docs')
  config = load_config('configs/scaling/claims.py').to_dict()
  write_claims(config, here / 'records', tmp_path / 'claims.md')
  made, shown = (folder / 'claims.md' for folder in (tmp_path, here / 'results'))
  assert made.read_text() == shown.read_text(), 'python -m launch.scaling claims makes it anew'
  assert all(
    (shown.parent / 'images' / path.name).exists() for path in tmp_path.glob('images/*.png')
  )
  first, *_ = config['groups']
  with pytest.raises(ConfigError, match=r'Text to video: .* stands there twice'):
    write_claims({'groups': [first | {'claims': 2 * first['claims'][:1]}]}, here / 'records', made)
  with pytest.raises(ConfigError, match=r'no claims; expected configs/scaling/claims\.py'):
    write_claims({}, here / 'records', tmp_path / 'claims.md')
