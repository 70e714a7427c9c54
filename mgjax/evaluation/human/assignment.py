"""Who answers what: every pair its raters, nobody the same twice but to see how sure they are.

Each rater has a plan that the study alone decides. What somebody else has answered meanwhile is
passed over, and who has done their own may take over what others left.
"""

import dataclasses
import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping

from mgjax.evaluation.human.questions import Question
from mgjax.evaluation.human.study import Item, Study
from mgjax.evaluation.human.votes import Vote

_LEASE = 900.0  # seconds for which what a rater took over is left to them


@dataclasses.dataclass(frozen=True)
class Task:
  """One question about one pair, put to one rater.

  Attributes:
    id: of the vote that answers it.
    item: the pair.
    question: about it.
    rater: who is asked.
    left: name of the model on the left.
    right: that of the other one.
    again: whether the rater was asked before.
  """

  id: str
  item: Item
  question: Question
  rater: str
  left: str
  right: str
  again: bool = False

  @property
  def key(self) -> tuple[str, str]:
    """What has enough answers once enough raters gave one."""
    return self.item.id, self.question.name


def make_plans(study: Study) -> dict[str, list[Task]]:
  """Returns each rater's tasks in their order.

  The raters of a pair are those who have least to do; one after another they see it with sides
  changed. All questions about a pair come together. Gold pairs are for everybody, and asked the
  first question only. Pairs that come again come in the second half, out of the first.
  """
  draw = study.draw('who')
  load = dict.fromkeys(study.raters, 0)
  groups: dict[str, list[list[Task]]] = {rater: [] for rater in study.raters}
  most = max(question.raters for question in study.questions)
  for item in _shuffled(draw, [item for item in study.items if not item.gold]):
    chosen = sorted(study.raters, key=lambda rater: (load[rater], draw.random()))[:most]
    first = draw.randrange(2)
    for turn, rater in enumerate(chosen):
      asked = [question for question in study.questions if turn < question.raters]
      load[rater] += len(asked)
      groups[rater].append(
        [_task(study, item, question, rater, (first + turn) % 2) for question in asked]
      )
  return {rater: _ordered(study, rater, own) for rater, own in groups.items()}


def _ordered(study: Study, rater: str, groups: list[list[Task]]) -> list[Task]:
  draw = study.draw('order', rater)
  groups = _shuffled(draw, groups)
  half = (len(groups) + 1) // 2
  again = draw.sample(groups[:half], min(half, math.ceil(study.repeats * len(groups))))
  turned = [
    [
      _task(study, each.item, each.question, rater, each.left == each.item.a, True)
      for each in tasks
    ]
    for tasks in again
  ]
  groups = [*groups[:half], *_shuffled(draw, groups[half:] + turned)]
  for item in (item for item in study.items if item.gold):
    task = _task(study, item, study.questions[0], rater, draw.randrange(2))
    groups.insert(draw.randint(0, len(groups)), [task])
  return [task for tasks in groups for task in tasks]


def _shuffled(draw: random.Random, values: list) -> list:
  return draw.sample(values, len(values))


def _task(
  study: Study, item: Item, question: Question, rater: str, turned: int, again: bool = False
) -> Task:
  left, right = (item.b, item.a) if turned else (item.a, item.b)
  name = study.token('vote', rater, item.id, question.name, again)
  return Task(name, item, question, rater, left, right, again)


class Board:
  """What is answered and what is not, in memory; the votes are the truth of it.

  Attributes:
    study: that is answered.
    plans: each rater's tasks in their order.
    votes: by id.
    done: how many each rater gave.
  """

  def __init__(self, study: Study, votes: Iterable[Vote]):
    self.study, self.plans, self.votes = study, make_plans(study), {}
    self.done = dict.fromkeys(study.raters, 0)
    self._answered: dict[tuple[str, str], set[str]] = {}
    self._leases: dict[tuple[str, str], dict[str, float]] = {}
    self._open = {
      (item.id, question.name): (item, question)
      for item in study.items
      if not item.gold
      for question in study.questions
    }
    for vote in votes:
      self.add(vote)

  def add(self, vote: Vote) -> None:
    """Counts a vote."""
    key = vote.item, vote.question
    self.votes[vote.id] = vote
    self.done[vote.rater] = self.done.get(vote.rater, 0) + 1
    raters = self._answered.setdefault(key, set())
    raters.add(vote.rater)
    self._leases.get(key, {}).pop(vote.rater, None)
    if key in self._open and len(raters) >= self._open[key][1].raters:
      del self._open[key]

  def waiting(self, rater: str) -> Iterator[Task]:
    """Yields what is left of a rater's plan, in its order."""
    for task in self.plans[rater]:
      if task.id in self.votes:
        continue
      mine = rater in self._answered.get(task.key, ())
      if task.again:
        # Of what somebody else took over there is nothing to repeat.
        if mine or task.key in self._open:
          yield task
      elif not mine and (task.item.gold or self._missing(task.key, rater)):
        yield task

  def take_over(self, rater: str) -> Task | None:
    """Returns what others have left and `rater` has not answered, or None; it is theirs a while."""
    held = [key for key, holders in self._leases.items() if rater in holders]
    for key in (*held, *reversed(self._open)):
      if key in self._open and self._may_take(key, rater):
        item, question = self._open[key]
        self._leases.setdefault(key, {})[rater] = time.monotonic() + _LEASE
        turned = self.study.draw('taken', item.id, rater).randrange(2)
        return _task(self.study, item, question, rater, turned)
    return None

  def left_by_others(self, rater: str) -> int:
    """Counts what `rater` could take over."""
    return sum(self._may_take(key, rater) for key in self._open)

  def progress(self) -> Mapping[tuple[str, str], int]:
    """Returns how many raters have answered each question about each pair."""
    return {key: len(raters) for key, raters in self._answered.items()}

  def _may_take(self, key: tuple[str, str], rater: str) -> bool:
    return rater not in self._answered.get(key, ()) and self._missing(key, rater) > 0

  def _missing(self, key: tuple[str, str], rater: str) -> int:
    """How many answers are missing that nobody else has taken over."""
    if key not in self._open:
      return 0
    now = time.monotonic()
    others = sum(
      until > now for holder, until in self._leases.get(key, {}).items() if holder != rater
    )
    return self._open[key][1].raters - len(self._answered.get(key, ())) - others
