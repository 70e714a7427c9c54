"""Votes outlive crashes and count once; tables of them come in and go out whole."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.human.votes import (
  Vote,
  append_votes,
  export_votes,
  import_votes,
  read_votes,
)
from tests.lab.evaluation.human.simulated import make_votes

VOTE = Vote('1', 'a bear', 0, 'overall', 'ann', 'ours', 'theirs', 'left')
OTHER = Vote('2', 'a bear', 0, 'realness', 'ann', 'ours', 'theirs', 'tie')
HEADER = 'prompt,question,rater,left,right,choice'
GOOD = f'{HEADER}\n0,overall,ann,ours,theirs,left\n1,overall,ann,theirs,ours,tie\n'


def test_a_line_that_a_crash_cut_costs_no_vote_and_what_is_no_vote_is_named(tmp_path):
  path = tmp_path / 'votes.jsonl'
  append_votes(path, [VOTE])
  with path.open('ab') as file:
    file.write(b'{"id": "3", "item"')
  append_votes(path, [OTHER])
  append_votes(path, [VOTE])  # sent twice, it counts once
  assert read_votes(tmp_path) == [VOTE, OTHER]
  path.write_text('{"colour": "red"}\n')
  with pytest.raises(DataError, match='line 1: '):
    read_votes(tmp_path)


def test_a_choice_of_a_side_is_one_of_a_model():
  winners = {'left': 'ours', 'right': 'theirs', 'tie': 'tie', 'cannot_judge': None}
  for choice, winner in winners.items():
    assert Vote('1', '', 0, 'overall', 'ann', 'ours', 'theirs', choice).winner == winner
  with pytest.raises(ConfigError, match='left, right, tie, cannot_judge'):
    Vote('1', '', 0, 'overall', 'ann', 'ours', 'theirs', 'both')


def write(tmp_path, text, encoding='utf-8'):
  path = tmp_path / 'table.csv'
  path.write_bytes(text.encode(encoding))
  return path


def test_votes_that_went_out_come_back_as_they_were(tmp_path):
  votes = make_votes(np.random.default_rng(0), 5, ('ours, "new"', 'their\nmodel'))
  append_votes(tmp_path / 'votes.jsonl', votes)
  table = export_votes(tmp_path, tmp_path / 'out.csv')
  assert import_votes(table, tmp_path / 'other') == (len(votes), 0)
  assert read_votes(tmp_path / 'other') == votes
  assert import_votes(table, tmp_path) == (0, len(votes))  # they are there


def test_the_same_table_twice_adds_nothing_and_a_longer_one_what_is_new(tmp_path):
  table, study = write(tmp_path, GOOD), tmp_path / 'study'
  assert import_votes(table, study) == (2, 0)
  assert import_votes(table, study) == (0, 2)
  # A line that is the same again is another answer: somebody was asked twice.
  table = write(tmp_path, GOOD + '1,overall,ann,theirs,ours,tie\n2,overall,bob,ours,theirs,right\n')
  assert import_votes(table, study) == (2, 2)
  assert [vote.winner for vote in read_votes(study)] == ['ours', 'tie', 'tie', 'theirs']


def test_a_choice_may_be_the_name_of_a_model_and_columns_have_any_order(tmp_path):
  text = '\ufeffchoice, rater ,prompt,question,right,left,gold,milliseconds\r\n'
  text += 'ours,ann,3,overall,ours,theirs,ours,1200\r\ncannot_judge,ann,4,overall,ours,theirs,,\r\n'
  import_votes(write(tmp_path, text), tmp_path)
  first, second = read_votes(tmp_path)
  assert (first.choice, first.winner) == ('right', 'ours')
  assert (first.gold, first.milliseconds) == ('ours', 1200)
  assert (second.winner, second.prompt, second.item, second.gold) == (None, 4, '4', '')


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('', 'the table lacks prompt, question, rater, left, right, choice; expected columns'),
    (HEADER.replace('rater', 'user'), 'lacks rater; expected columns separated by commas'),
    (HEADER.replace(',', ';'), 'lacks prompt'),
    (HEADER + ',mood\n', 'has mood; expected columns'),
    (GOOD + '2,overall,ann,ours,theirs\n', 'line 4: more or fewer cells'),
    (GOOD + '2,overall,ann,ours,theirs,left,3\n', 'line 4: more or fewer cells'),
    (GOOD + '-2,overall,ann,ours,theirs,left\n', "line 4: prompt is '-2'; expected a whole"),
    (GOOD + 'bear,overall,ann,ours,theirs,left\n', "prompt is 'bear'"),
    (GOOD + '99999999999,overall,ann,ours,theirs,left\n', 'line 4: prompt = 99999999999'),
    (GOOD + '2,overall,,ours,theirs,left\n', 'line 4: rater is empty'),
    (GOOD + '2,overall,ann,ours,ours,left\n', "left and right are both 'ours'"),
    (GOOD + '2,overall,ann,tie,ours,left\n', "a model is called 'tie', which is a choice"),
    (GOOD + '2,overall,ann,ours,theirs,both\n', "choice = 'both'; expected one of left, right"),
    (GOOD + '2,overall,"ann,ours\n', 'expected a CSV'),
  ],
)
def test_a_table_that_is_not_like_that_is_refused_as_a_whole(tmp_path, text, said):
  with pytest.raises(DataError, match=said):
    import_votes(write(tmp_path, text), tmp_path / 'study')
  assert not (tmp_path / 'study').exists()


def test_other_encodings_and_files_that_are_not_there_are_told(tmp_path):
  with pytest.raises(DataError, match='byte 42 is not UTF-8; save the table as UTF-8'):
    import_votes(write(tmp_path, f'{HEADER}\n0,ä', 'latin-1'), tmp_path)
  with pytest.raises(DataError, match='No such file'):
    import_votes(tmp_path / 'none.csv', tmp_path)
  with pytest.raises(DataError, match='No such file'):
    export_votes(tmp_path / 'none', tmp_path / 'out.csv')
  with pytest.raises(ConfigError, match=r'expected a \.csv of votes'):
    export_votes(tmp_path, tmp_path / 'out.xlsx')
