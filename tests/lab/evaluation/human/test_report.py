"""A study's analysis: its tables, files and sentences."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.human.analysis import analyse_study
from mgjax.lab.evaluation.human.report import analyse, lay_out, power
from mgjax.lab.evaluation.human.votes import Vote, append_votes
from tests import binaries
from tests.lab.evaluation.human.simulated import make_votes, write_study

PROMPTS = [
  {'prompt': str(n), 'concepts': [('animal', 'scene')[n % 2]], 'motion': 'low'} for n in range(30)
]
SIGMAS = {'overall': 5.07, 'realness': None}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """Three models, of which ours is the strongest, on thirty prompts by three raters."""
  votes = make_votes(
    np.random.default_rng(0), 30, ('ours', 'b|<x>', 'c'), tuple(SIGMAS), strengths=(1.2, 0, -0.5)
  )
  votes.append(Vote('gold', 'g', 1, 'overall', 'rater 0', 'ours', 'spoilt', 'left', gold='ours'))
  folder = tmp_path_factory.mktemp('study')
  return write_study(folder, votes, ('ours', 'b|<x>', 'c'), PROMPTS, SIGMAS)


@pytest.fixture(scope='module')
def analysis(study):
  return analyse_study(study)


def test_everything_is_written_and_says_the_same(study, analysis, tmp_path):
  text, paths = analyse(study, tmp_path)
  assert [path.name for path in paths] == [f'analysis.{k}' for k in ('csv', 'html', 'json')]
  assert (analysis.ours, analysis.votes) == ('ours', 2 * 3 * 30 * 3)  # the gold item does not count
  first = analysis.comparisons[0]
  assert str(first.rate) in text and str(first.rate) in paths[1].read_text()
  rows = list(csv.DictReader(paths[0].read_text().splitlines()))
  assert float(rows[0]['net_win_rate']) == first.rate.value
  assert [row['name'] for row in rows[:4]] == ['', 'animal', 'scene', 'low']
  assert [int(row['prompts']) for row in rows[:4]] == [30, 15, 15, 30]
  # Questions in the study's order, ours first; two questions of three pairs with three groups.
  assert len(rows) == 2 * 3 * 4 and [row['ours'] for row in rows[::4]].count('ours') == 4
  data = json.loads(paths[2].read_text())
  assert data['comparisons'][0]['net_win_rate'] == first.rate.value
  assert data['rankings']['overall'][0]['model'] == 'ours'
  page = paths[1].read_text()
  assert '<svg' in page and '&lt;x&gt;' in page and '<x>' not in page


def test_a_table_has_a_row_a_question_or_a_row_a_baseline(analysis):
  ours = [comparison for comparison in analysis.comparisons if comparison.tally.ours == 'ours']
  by_question, by_baseline, of_wins = (
    lay_out(ours, name) for name in ('questions', 'baselines', 'win_rate')
  )
  assert [row[''] for row in by_question] == ['overall', 'realness']
  assert list(by_question[0]) == ['', 'b|<x>', 'c', 'sigma']
  assert [row[''] for row in by_baseline] == [row[''] for row in of_wins] == ['b|<x>', 'c']
  assert by_baseline[1]['overall'] == by_question[0]['c']
  net, wins = (float(table[0]['overall'].split()[0]) for table in (by_baseline, of_wins))
  assert wins == pytest.approx(50 + net / 2, abs=0.1)


def test_a_verdict_is_by_a_sigma_that_grows_as_prompts_are_fewer_than_the_reports(analysis):
  first, *_, last = analysis.comparisons
  assert first.sigma == pytest.approx(5.07 * (381 / 30) ** 0.5)
  assert first.verdict in ('significant', 'moderate', 'on par')
  assert last.tally.question == 'realness' and last.sigma is None and last.verdict == ''


def rates_of(analysis):
  tallies = ((comparison.tally, comparison.rate.value) for comparison in analysis.comparisons)
  return {(tally.question, tally.ours, tally.theirs): rate for tally, rate in tallies}


def test_repeats_say_what_sigma_is(study, tmp_path):
  again = []
  for seed in (1, 2, 3):
    votes = make_votes(np.random.default_rng(seed), 30, ('ours', 'c'), strengths=(1.2, -0.5))
    again.append(write_study(tmp_path / str(seed), votes))
  analysis = analyse_study(study, repeats=again)
  analyses = (analyse_study(path, ours='ours') for path in (study, *again))
  rates = [rates_of(repeat)['overall', 'ours', 'c'] for repeat in analyses]
  sigma = analysis.sigmas['overall']
  assert sigma.value == pytest.approx(np.std(rates, ddof=1)) and sigma.repeats == 4
  overall = [
    comparison for comparison in analysis.comparisons if comparison.tally.question == 'overall'
  ]
  assert {comparison.sigma for comparison in overall} == {sigma.value}
  other = write_study(tmp_path / 'other', make_votes(np.random.default_rng(0), 3, ('x', 'y')))
  with pytest.raises(DataError, match='nothing in them was compared in the study as well'):
    analyse_study(study, repeats=[other])


def test_our_model_turns_the_signs(study, analysis):
  there, back = rates_of(analysis), rates_of(analyse_study(study, ours='c'))
  assert there['overall', 'ours', 'c'] == -back['overall', 'c', 'ours']


def test_a_flagged_rater_is_told_of_and_can_be_left_out(tmp_path):
  votes = make_votes(np.random.default_rng(0), 12)
  gold = Vote('', 'g', 0, 'overall', 'rater 1', 'ours', 'spoilt', 'right', gold='ours')
  votes += [dataclasses.replace(gold, id=f'g{n}') for n in range(6)]
  write_study(tmp_path, votes)
  text, paths = analyse(tmp_path)
  assert 'rater rater 1: right about 0% of 6 gold items; --leave_out=rater 1' in text
  text, paths = analyse(tmp_path, leave_out=['rater 1'])
  assert 'rater rater 1:' not in text and 'rater 1 (left out)' in paths[1].read_text()
  counts = analyse_study(tmp_path, leave_out=['rater 1']).comparisons[0].tally.counts
  assert (counts.sum(1) == 2).all()


def test_what_there_is_not_is_told(study, tmp_path):
  with pytest.raises(ConfigError, match=r'--ours=our: .* expected b\|<x>, c, ours'):
    analyse_study(study, ours='our')
  with pytest.raises(ConfigError, match='--leave_out=eve: no votes of such a rater'):
    analyse_study(study, leave_out=['eve'])
  gold = Vote('g', 'g', 0, 'overall', 'ann', 'ours', 'spoilt', 'left', gold='ours')
  append_votes(tmp_path / 'votes.jsonl', [gold])
  with pytest.raises(DataError, match='there are no votes to count'):
    analyse_study(tmp_path)
  unsure = Vote('1', '', 0, 'overall', 'ann', 'a', 'b', 'cannot_judge')
  append_votes(tmp_path / 'votes.jsonl', [unsure])
  with pytest.raises(DataError, match='all votes say that it cannot be judged'):
    analyse_study(tmp_path)
  (tmp_path / 'study.json').write_text('{"questions": [3]}')
  with pytest.raises(DataError, match='is no study'):
    analyse_study(tmp_path)


def test_power_says_how_wide_and_how_many(study):
  assert '1,003 prompts: ±5.3 points' in power(1003)
  assert '±16.8' in power() and '20 points' in power()
  assert '5 points: 2,294 prompts to find them in 80% of studies' in power(difference=5)
  assert power(300, study=study).count('300 prompts') == 6


@pytest.mark.slow
def test_the_commands_print_and_write(study, tmp_path):
  table, other = tmp_path / 'votes.csv', tmp_path / 'other'
  done = binaries.run('compare', 'export', f'--study={study}', f'--out={table}')
  assert (done.returncode, done.stdout) == (0, f'{table}\n')
  done = binaries.run('compare', 'import', f'--csv={table}', f'--study={other}')
  assert (done.returncode, done.stdout) == (0, '541 votes added; 0 were there\n')
  done = binaries.run('compare', 'analyse', f'--study={other}', '--ours=ours')
  text, paths = analyse(other, ours='ours')
  assert done.returncode == 0 and done.stdout == '\n'.join([text, *map(str, paths), ''])
  done = binaries.run('compare', 'power', '--prompts_seen=1003')
  assert done.stdout.endswith('1,003 prompts: ±5.3 points\n')
  assert binaries.run('compare', 'analyse', f'--study={tmp_path}/none').returncode == 3
