"""Votes outlive crashes, count once, and say what is wrong with them."""

import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.evaluation.human.votes import Vote, append_vote, read_votes

VOTE = Vote('1', 'a bear', 0, 'overall', 'ann', 'ours', 'theirs', 'left')
OTHER = Vote('2', 'a bear', 0, 'realness', 'ann', 'ours', 'theirs', 'tie')


def test_a_line_that_a_crash_cut_costs_neither_the_votes_before_nor_the_one_after(tmp_path):
  path = tmp_path / 'votes.jsonl'
  append_vote(path, VOTE)
  with path.open('ab') as file:
    file.write(b'{"id": "3", "item"')
  append_vote(path, OTHER)
  assert read_votes(tmp_path) == [VOTE, OTHER]


def test_a_vote_that_is_sent_twice_counts_once(tmp_path):
  for vote in (VOTE, OTHER, VOTE):
    append_vote(tmp_path / 'votes.jsonl', vote)
  assert read_votes(tmp_path) == [VOTE, OTHER]


@pytest.mark.parametrize(
  ('choice', 'winner'),
  [('left', 'ours'), ('right', 'theirs'), ('tie', 'tie'), ('cannot_judge', None)],
)
def test_a_choice_of_a_side_is_one_of_a_model(choice, winner):
  assert Vote('1', '', 0, 'overall', 'ann', 'ours', 'theirs', choice).winner == winner


def test_a_choice_that_there_is_not_is_refused():
  with pytest.raises(ConfigError, match='left, right, tie, cannot_judge'):
    Vote('1', '', 0, 'overall', 'ann', 'ours', 'theirs', 'both')


def test_a_line_that_is_no_vote_is_named(tmp_path):
  (tmp_path / 'votes.jsonl').write_text('{"colour": "red"}\n')
  with pytest.raises(DataError, match='line 1: '):
    read_votes(tmp_path)
