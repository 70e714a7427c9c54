"""Every pair gets its raters, nobody answers twice, and sides, order and work are balanced."""

import collections
import dataclasses
import itertools

import pytest

from mgjax.apps.serving import votes
from mgjax.apps.serving.annotation_queue import Task
from mgjax.apps.serving.votes import Votes, make_plans
from mgjax.lab.evaluation.human.questions import read_questions
from mgjax.lab.evaluation.human.study import SPOILT, Item, Study
from mgjax.lab.evaluation.human.votes import Vote

RATERS = tuple('abcdefgh')


def make(prompts=40, questions='video:overall,realness', raters=RATERS, **changes) -> Study:
  items = tuple(Item(f'{index}:x:y', index, 'x', 'y') for index in range(prompts))
  given = {'name': 's', 'seed': 0, 'secret': 'k', 'models': {'x': '/x', 'y': '/y'}, 'repeats': 0.1}
  given |= {'prompts': ({'prompt': ''},) * prompts, 'items': items, 'raters': raters}
  return Study(**given | {'questions': read_questions(questions)} | changes)


@pytest.fixture
def queue_of(monkeypatch, tmp_path):
  """Makes the queue of a study that has no videos."""

  def build(study, answers=()):
    monkeypatch.setattr(votes, 'read_study', lambda _: study)
    monkeypatch.setattr(votes, 'check_videos', lambda _: {})
    monkeypatch.setattr(votes, 'read_votes', lambda _: answers)
    return Votes(tmp_path)

  return build


def give(queue, task):
  item, question, left, right = task.about
  identity = queue.identity(task)
  queue.add(
    task.key,
    Vote(
      identity,
      item.id,
      item.prompt,
      question.name,
      task.person,
      left,
      right,
      'left',
      gold=item.gold,
    ),
  )


def answer(queue, rater, most=10**6) -> int:
  """Lets a rater answer what is put to them, and says how often."""
  count = 0
  while count < most and (tasks := queue.waiting(rater)):
    give(queue, tasks[0])
    count += 1
  return count


def raters_of(queue) -> dict:
  found = collections.defaultdict(list)
  for each in queue.answers.values():
    found[each.item, each.question].append(each.rater)
  return found


@pytest.mark.parametrize('repeats', [0.0, 0.1])
@pytest.mark.parametrize('count', [6, 8])
def test_every_pair_gets_its_raters_and_nobody_answers_twice(queue_of, count, repeats):
  study = make(raters=RATERS[:count], repeats=repeats)
  queue = queue_of(study)
  for turn in range(400):  # in an order that nobody planned
    answer(queue, study.raters[turn * turn % count], turn % 7)
  for rater in study.raters:
    answer(queue, rater)
  wanted = {question.name: question.raters for question in study.questions}
  again = 0
  for (_, question), raters in raters_of(queue).items():
    assert len({*raters}) == wanted[question]
    again += len(raters) - len({*raters})
  assert len(raters_of(queue)) == len(study.items) * len(wanted)
  assert (again > 0) == (repeats > 0)


def test_work_and_sides_are_shared_evenly():
  plans = make_plans(make(prompts=200, repeats=0.0))
  loads = [len(tasks) for tasks in plans.values()]
  assert max(loads) - min(loads) <= 2
  sides = collections.defaultdict(lambda: collections.defaultdict(int))
  for tasks in plans.values():
    for task in tasks:
      sides[task.key][task.about.left] += 1
  for (_, question), counts in sides.items():
    difference = abs(counts['x'] - counts['y'])
    assert difference == (1 if question == 'overall' else 0)  # of 3 and of 6 raters
  # Each rater's sides are a fair coin per pair: 4.5 standard deviations of at most 200 pairs.
  for tasks in plans.values():
    left = {task.about.item.id: task.about.left for task in tasks}
    assert abs(sum(each == 'x' for each in left.values()) - len(left) / 2) < 2.25 * len(left) ** 0.5


def test_a_repeated_pair_comes_later_with_sides_changed():
  study = make(repeats=0.2)
  for tasks in make_plans(study).values():
    again = [task for task in tasks if task.again]
    pairs = {task.about.item.id for task in tasks}
    assert len({task.about.item.id for task in again}) == -(-len(pairs) // 5)
    for task in again:
      first = next(each for each in tasks if each.key == task.key and not each.again)
      assert (task.about.left, task.about.right) == (first.about.right, first.about.left)
      assert tasks.index(first) < tasks.index(task)


def test_all_questions_about_a_pair_come_together():
  for tasks in make_plans(make()).values():
    order = [(task.about.item.id, task.again) for task in tasks]
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes == len({*order}) - 1


def test_gold_pairs_are_for_everybody_and_asked_one_question():
  gold = tuple(Item(f'{index}:gold', index, 'x', SPOILT, 'x') for index in range(3))
  study = make(prompts=10)
  study = dataclasses.replace(study, items=(*study.items, *gold))
  for tasks in make_plans(study).values():
    asked = [task for task in tasks if task.about.item.gold]
    assert sorted(task.about.item.id for task in asked) == [item.id for item in gold]
    assert {task.about.question.name for task in asked} == {'overall'}


def test_a_plan_is_the_seeds_and_goes_on_after_a_restart(queue_of):
  study = make()
  queue = queue_of(study)
  for rater in study.raters:
    answer(queue, rater, 11)
  again = queue_of(study, list(queue.answers.values()))
  for rater in study.raters:
    assert again.waiting(rater) == queue.waiting(rater)
  other = make_plans(dataclasses.replace(study, seed=1))
  assert [task.key for task in other['a']] != [task.key for task in make_plans(study)['a']]


def test_what_a_rater_left_is_taken_over_by_others_once(queue_of):
  queue = queue_of(make(questions='video:overall', raters=RATERS[:5], repeats=0.0))
  leaver, *others = queue.study.raters
  left = len(queue.plan(leaver, False)) - answer(queue, leaver, 3)
  for rater in others:
    answer(queue, rater)
  assert left and len(raters_of(queue)) == len(queue.study.items)
  taken = 0
  while True:
    tasks = []
    for rater in others:
      if found := queue.waiting(rater, take_over=True):
        queue.hold(found[0])
        tasks.append(found[0])
    if not tasks:
      break
    assert len({task.key for task in tasks}) == len(tasks)  # two never work on one
    for task in tasks:
      give(queue, task)
      taken += 1
  assert taken == left
  assert all(len({*raters}) == len(raters) == 3 for raters in raters_of(queue).values())
  assert not queue.waiting(leaver)  # who comes back finds it done


def test_what_was_taken_over_and_left_again_is_free_after_a_while(queue_of, monkeypatch):
  queue = queue_of(make(prompts=1, questions='video:overall', raters=RATERS[:4], repeats=0.0))
  (free,) = (rater for rater in queue.study.raters if not queue.plan(rater, False))
  owner = next(rater for rater in queue.study.raters if rater != free)
  for rater in {*queue.study.raters} - {free, owner}:
    answer(queue, rater)
  queue.hold(queue.waiting(free, take_over=True)[0])
  assert not queue.waiting(owner) and queue.waiting(free, take_over=True)  # it is theirs still
  monkeypatch.setattr('time.monotonic', lambda: 10**9)
  assert queue.waiting(owner)


def test_links_and_ids_of_studies_that_were_begun_before_stay(queue_of):
  queue = queue_of(make(raters=RATERS[:6]))
  assert (next(iter(queue.people)), queue.operator) == (
    'fd7ed3d972f604ba921e683669055ff0',
    '3a818aea1b1166066c97e4714a269890',
  )
  task = Task(('0:x:y', 'overall'), 'a')
  assert queue.identity(task) == 'f0d77decd69a8dbea2231ea38248d4a3'
