"""Every pair gets its raters, nobody answers twice, and sides, order and work are balanced."""

import collections
import dataclasses
import itertools

import pytest

from mgjax.evaluation.human.assignment import Board, make_plans
from mgjax.evaluation.human.questions import read_questions
from mgjax.evaluation.human.study import SPOILT, Item, Study
from mgjax.evaluation.human.votes import Vote

RATERS = tuple('abcdefgh')


def make(prompts=40, questions='video:overall,realness', raters=RATERS, **changes) -> Study:
  items = tuple(Item(f'{index}:x:y', index, 'x', 'y') for index in range(prompts))
  given = {'name': 's', 'seed': 0, 'secret': 'k', 'models': {'x': '/x', 'y': '/y'}, 'repeats': 0.1}
  given |= {'prompts': ({'prompt': ''},) * prompts, 'items': items, 'raters': raters}
  return Study(**given | {'questions': read_questions(questions)} | changes)


def vote(task, choice='left') -> Vote:
  return Vote(
    task.id, task.item.id, task.item.prompt, task.question.name, task.rater, task.left, task.right,
    choice, gold=task.item.gold,
  )  # fmt: skip


def answer(board, rater, most=10**6) -> int:
  """Lets a rater answer what is put to them, and says how often."""
  count = 0
  while count < most and (task := next(board.waiting(rater), None)):
    board.add(vote(task))
    count += 1
  return count


def raters_of(board) -> dict:
  found = collections.defaultdict(list)
  for each in board.votes.values():
    found[each.item, each.question].append(each.rater)
  return found


@pytest.mark.parametrize('repeats', [0.0, 0.1])
@pytest.mark.parametrize('count', [6, 8])
def test_every_pair_gets_its_raters_and_nobody_answers_twice(count, repeats):
  study = make(raters=RATERS[:count], repeats=repeats)
  board = Board(study, ())
  for turn in range(400):  # in an order that nobody planned
    answer(board, study.raters[turn * turn % count], turn % 7)
  for rater in study.raters:
    answer(board, rater)
  wanted = {question.name: question.raters for question in study.questions}
  again = 0
  for (_, question), raters in raters_of(board).items():
    assert len({*raters}) == wanted[question]
    again += len(raters) - len({*raters})
  assert len(raters_of(board)) == len(study.items) * len(wanted)
  assert (again > 0) == (repeats > 0)


def test_work_and_sides_are_shared_evenly():
  plans = make_plans(make(prompts=200, repeats=0.0))
  loads = [len(tasks) for tasks in plans.values()]
  assert max(loads) - min(loads) <= 2
  sides = collections.defaultdict(lambda: collections.defaultdict(int))
  for tasks in plans.values():
    for task in tasks:
      sides[task.key][task.left] += 1
  for (_, question), counts in sides.items():
    difference = abs(counts['x'] - counts['y'])
    assert difference == (1 if question == 'overall' else 0)  # of 3 and of 6 raters
  # Each rater's sides are a fair coin per pair: 4.5 standard deviations of at most 200 pairs.
  for tasks in plans.values():
    left = {task.item.id: task.left for task in tasks}
    assert abs(sum(each == 'x' for each in left.values()) - len(left) / 2) < 2.25 * len(left) ** 0.5


def test_a_repeated_pair_comes_later_with_sides_changed():
  study = make(repeats=0.2)
  for tasks in make_plans(study).values():
    again = [task for task in tasks if task.again]
    pairs = {task.item.id for task in tasks}
    assert len({task.item.id for task in again}) == -(-len(pairs) // 5)
    for task in again:
      first = next(each for each in tasks if each.key == task.key and not each.again)
      assert (task.left, task.right) == (first.right, first.left)
      assert tasks.index(first) < tasks.index(task) and task.id != first.id


def test_all_questions_about_a_pair_come_together():
  for tasks in make_plans(make()).values():
    order = [(task.item.id, task.again) for task in tasks]
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes == len({*order}) - 1


def test_gold_pairs_are_for_everybody_and_asked_one_question():
  gold = tuple(Item(f'{index}:gold', index, 'x', SPOILT, 'x') for index in range(3))
  study = make(prompts=10)
  study = dataclasses.replace(study, items=(*study.items, *gold))
  for tasks in make_plans(study).values():
    asked = [task for task in tasks if task.item.gold]
    assert sorted(task.item.id for task in asked) == [item.id for item in gold]
    assert {task.question.name for task in asked} == {'overall'}


def test_a_plan_is_the_seeds_and_goes_on_after_a_restart():
  study = make()
  board = Board(study, ())
  for rater in study.raters:
    answer(board, rater, 11)
  again = Board(study, board.votes.values())
  for rater in study.raters:
    assert list(again.waiting(rater)) == list(board.waiting(rater))
  other = make_plans(dataclasses.replace(study, seed=1))
  assert [task.key for task in other['a']] != [task.key for task in make_plans(study)['a']]


def test_what_a_rater_left_is_taken_over_by_others_once():
  study = make(questions='video:overall', raters=RATERS[:5], repeats=0.0)
  board = Board(study, ())
  leaver, *others = study.raters
  left = len(board.plans[leaver]) - answer(board, leaver, 3)
  for rater in others:
    answer(board, rater)
  assert left and len(raters_of(board)) == len(study.items)
  taken = 0
  while any(tasks := [board.take_over(rater) for rater in others]):
    held = [task.key for task in tasks if task]
    assert len({*held}) == len(held)  # two never work on one
    for task in filter(None, tasks):
      board.add(vote(task))
      taken += 1
  assert taken == left
  assert all(len({*raters}) == len(raters) == 3 for raters in raters_of(board).values())
  assert not list(board.waiting(leaver))  # who comes back finds it done


def test_what_was_taken_over_and_left_again_is_free_after_a_while(monkeypatch):
  board = Board(make(prompts=1, questions='video:overall', raters=RATERS[:4], repeats=0.0), ())
  (free,) = (rater for rater, tasks in board.plans.items() if not tasks)
  owner = next(rater for rater in board.study.raters if rater != free)
  for rater in {*board.study.raters} - {free, owner}:
    answer(board, rater)
  assert board.take_over(free) is not None and not list(board.waiting(owner))
  assert board.take_over(free) is not None  # it is theirs still
  monkeypatch.setattr('time.monotonic', lambda: 10**9)
  assert list(board.waiting(owner))
