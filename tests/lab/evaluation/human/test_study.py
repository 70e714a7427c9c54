"""A study is begun, gone on with, and refused with a sentence where its parts do not fit."""

import itertools
import json
import shutil

import pytest

from mgjax.apps.pairs.preferences import read_rows
from mgjax.core.errors import ConfigError, DataError, MgjaxError
from mgjax.lab.evaluation.human.preferred import write_preferences
from mgjax.lab.evaluation.human.questions import SETS, Question, read_questions
from mgjax.lab.evaluation.human.study import (
  SPOILT,
  Design,
  Folders,
  begin,
  check_videos,
  read_study,
  videos_of,
)
from mgjax.lab.evaluation.human.votes import Vote, append_votes
from tests.apps.serving.tiny_pages import make_videos

COUNT = 3


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  make_videos(folder, COUNT, 'abc', frames=2)
  return folder


@pytest.fixture
def folder(videos, tmp_path):
  """Videos of three models, to be changed."""
  return shutil.copytree(videos, tmp_path / 'videos')


def start(folder, models='ab', **changes):
  options = {'questions': 'video:overall', 'prompts': str(folder / 'prompts.txt')} | changes
  paths = {name: str(folder / name) for name in models}
  folders = Folders(
    paths, **{field: options.pop(field) for field in Folders._fields if field in options}
  )
  design = Design(**{field: options.pop(field) for field in Design._fields if field in options})
  return begin(folder / 'votes', folders, design=design, **options)


def test_a_study_is_read_as_it_was_begun(folder):
  options = {'questions': 'video', 'raters': tuple('uvwxyz'), 'seed': 7, 'name': 'x or y?'}
  study = start(folder, **options)
  assert read_study(folder / 'votes') == study == start(folder, **options)
  assert {item.prompt for item in study.items} == set(range(COUNT))
  expected = {'prompt': 'digit number 1 moves', 'concepts': [], 'motion': ''}
  assert study.prompts[1] == expected
  assert (folder / 'votes' / 'study.json').stat().st_mode & 0o077 == 0


def test_the_questions_are_the_reports_with_their_raters():
  raters = {question.name: question.raters for question in read_questions('video')}
  assert {name for name, count in raters.items() if count == 6} == {'realness', 'aesthetics'}
  assert {*raters.values()} == {3, 6}
  assert all(question.sound for question in read_questions('sound'))
  assert not any(question.sound for question in read_questions('video'))
  for name in SETS:
    assert {question.raters for question in read_questions(name, raters=2)} == {2}


def test_questions_of_a_file(tmp_path):
  path = tmp_path / 'own.json'
  path.write_text(json.dumps([{'name': 'colour', 'text': 'Which is redder?', 'raters': 5}]))
  assert read_questions(str(path)) == (Question('colour', 'Which is redder?', raters=5),)


def test_pairs_of_many_models_meet_equally_often(folder):
  study = start(folder, 'abc', pairs=2)
  met = [(item.a, item.b) for item in study.items]
  assert sorted(met) == sorted([*itertools.combinations('abc', 2)] * 2)
  assert len({item.id for item in study.items}) == len(met)


def test_videos_of_launch_sample_are_found_by_index(folder):
  for index, path in videos_of(folder / 'a').items():
    path.rename(path.with_name(f'{index:04d}_0a1b2c3d.mp4'))
  (folder / 'a' / 'sheet.png').write_bytes(b'')
  assert [*videos_of(folder / 'a')] == [*range(COUNT)]


def test_spoilt_videos_make_gold_pairs(folder):
  (folder / 'gold').mkdir()
  shutil.copy(folder / 'b' / '00001.mp4', folder / 'gold' / '00001.mp4')
  study = start(folder, gold=str(folder / 'gold'))
  (gold,) = (item for item in study.items if item.gold)
  assert (gold.a, gold.b, gold.gold, gold.prompt) == ('a', SPOILT, 'a', 1)
  assert set(study.models) == {'a', 'b'}


def _empty(folder):
  shutil.rmtree(folder / 'b')
  (folder / 'b').mkdir()


def _copy(name):
  return lambda folder: shutil.copy(folder / 'b' / '00001.mp4', folder / 'b' / name)


WRONG = (
  (lambda folder: shutil.rmtree(folder / 'b'), {}, 'there is no such folder'),
  (_empty, {}, 'holds no videos by index'),
  (
    lambda folder: (folder / 'b/00001.mp4').unlink(),
    {},
    '2 videos for 3 prompts, and none of prompt 1 ',
  ),
  (_copy('00003.mp4'), {}, 'one too many'),
  (lambda folder: (folder / 'b/00001.mp4').write_bytes(b'x' * 999), {}, '00001.mp4'),
  (_copy('0001_x.mp4'), {}, 'have one index'),
  (lambda folder: (folder / 'prompts.txt').write_text(' \n\n'), {}, 'holds no prompts'),
  (None, {'prompts': '/nowhere.txt'}, 'cannot be read'),
  (None, {'prompts': None}, '--prompts is missing'),
  (None, {'questions': 'vidoe'}, 'there is no such set'),
  (None, {'questions': 'video:overal'}, 'did you mean video:overall'),
  (None, {'questions': 'video:overall,overall'}, 'names that differ'),
  (None, {'questions': 'editing'}, 'by --references'),
  (None, {'raters': ('ann', 'ben')}, 'invite more'),
  (None, {'raters': ('ann', 'ben', 'ann')}, 'two have one name'),
  (None, {'raters': ('ann', 'ben', 'a/b')}, 'as a name'),
  (None, {'models': 'a'}, 'two or more'),
  (None, {'pairs': 2}, 'expected from 1 to 1'),
)


@pytest.mark.parametrize(('spoil', 'changes', 'said'), WRONG, ids=[said for *_, said in WRONG])
def test_parts_that_do_not_fit_are_one_sentence_and_leave_no_study(folder, spoil, changes, said):
  if spoil:
    spoil(folder)
  with pytest.raises(MgjaxError, match=said) as refused:
    start(folder, **changes)
  assert '\n' not in str(refused.value) and refused.value.exit_code in (2, 3)
  assert not (folder / 'votes' / 'study.json').exists()


def test_another_study_changed_videos_and_a_damaged_study_are_refused(folder):
  study = start(folder)
  with pytest.raises(ConfigError, match='seed: 0 -> 1'):
    start(folder, seed=1)
  check_videos(study)
  (folder / 'a' / '00000.mp4').write_bytes(b'another')
  with pytest.raises(DataError, match='not those that the study began with'):
    check_videos(study)
  (folder / 'votes' / 'study.json').write_text('{"name": 3}')
  with pytest.raises(ConfigError, match=r'study\.json'):
    read_study(folder / 'votes')


def test_votes_become_pairs_to_learn_from(folder, tmp_path):
  """The majority of raters decides about a pair; gold ones, ties and other questions do not."""
  study = start(folder)

  def vote(number, prompt, rater, choice, gold=''):
    named = {'question': 'overall', 'rater': rater, 'left': 'b', 'right': 'a', 'choice': choice}
    return Vote(str(number), f'{prompt}', prompt, **named, gold=gold)

  append_votes(
    folder / 'votes' / 'votes.jsonl',
    [
      vote(1, 0, 'ann', 'right'),
      vote(2, 0, 'bob', 'right'),
      vote(3, 0, 'cat', 'left'),
      vote(4, 1, 'ann', 'left'),
      vote(5, 1, 'bob', 'right'),
      vote(6, 2, 'ann', 'tie'),
      vote(7, 2, 'bob', 'left', gold='b'),
    ],
  )
  assert write_preferences(folder / 'votes', tmp_path / 'pairs.jsonl') == 1
  (row,) = read_rows(tmp_path / 'pairs.jsonl')
  videos = {name: videos_of(folder / name) for name in 'ab'}
  chosen, rejected = (str(videos[name][0].resolve()) for name in 'ab')
  assert row == {'prompt': study.prompts[0]['prompt'], 'chosen': chosen, 'rejected': rejected}
  lost = (folder / 'a' / '00000.mp4').rename(folder / 'lost')
  with pytest.raises(DataError, match="prompt 0 of 'a' and 'b', but no such video"):
    write_preferences(folder / 'votes', tmp_path / 'pairs.jsonl')
  lost.rename(folder / 'a' / '00000.mp4')
  with pytest.raises(ConfigError, match=r'expected a \.jsonl'):
    write_preferences(folder / 'votes', tmp_path / 'pairs.csv')
  (folder / 'votes' / 'votes.jsonl').unlink()
  append_votes(folder / 'votes' / 'votes.jsonl', [vote(8, 2, 'ann', 'tie')])
  with pytest.raises(DataError, match='no pair has a winner yet'):
    write_preferences(folder / 'votes', tmp_path / 'pairs.jsonl')
