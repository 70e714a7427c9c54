"""Votes as items of the queue: a rater is asked questions about two videos side by side.

Every pair gets its raters, and nobody is asked the same twice but to see how sure they are. Which
video is on which side is drawn, and videos have names that say nothing. A vote says that both
videos were in the browser whole (Movie Gen §3.5).
"""

import asyncio
import functools
import math
import os
import pathlib
import random
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from mgjax.apps.serving.annotation_queue import AnnotationQueue, Task, now
from mgjax.apps.serving.http import Refused
from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.settings import LARGEST_INTEGER
from mgjax.lab.evaluation.human.agreement import RATER, describe_rater, raters
from mgjax.lab.evaluation.human.questions import Question
from mgjax.lab.evaluation.human.study import (
  KINDS,
  Item,
  Study,
  check_videos,
  frame_seconds,
  inside,
  read_study,
)
from mgjax.lab.evaluation.human.votes import CHOICES, FILE, Vote, read_votes


class Asked(NamedTuple):
  """What a task asks: a question about a pair, with these models on the left and the right."""

  item: Item
  question: Question
  left: str
  right: str


def make_plans(study: Study) -> dict[str, list[Task]]:
  """Returns each rater's tasks in their order, which the study's seed alone decides.

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
      questions = [question for question in study.questions if turn < question.raters]
      load[rater] += len(questions)
      turned = (first + turn) % 2
      groups[rater].append([_task(item, question, rater, turned) for question in questions])
  return {rater: _ordered(study, rater, own) for rater, own in groups.items()}


def _ordered(study: Study, rater: str, groups: list[list[Task]]) -> list[Task]:
  draw = study.draw('order', rater)
  groups = _shuffled(draw, groups)
  half = (len(groups) + 1) // 2
  again = draw.sample(groups[:half], min(half, math.ceil(study.repeats * len(groups))))
  turned = [
    [
      _task(task.about.item, task.about.question, rater, task.about.left == task.about.item.a, True)
      for task in tasks
    ]
    for tasks in again
  ]
  groups = [*groups[:half], *_shuffled(draw, groups[half:] + turned)]
  for item in (item for item in study.items if item.gold):
    task = _task(item, study.questions[0], rater, draw.randrange(2))
    groups.insert(draw.randint(0, len(groups)), [task])
  return [task for tasks in groups for task in tasks]


def _shuffled(draw: random.Random, values: list) -> list:
  return draw.sample(values, len(values))


def _task(item: Item, question: Question, rater: str, turned: int, again: bool = False) -> Task:
  left, right = (item.b, item.a) if turned else (item.a, item.b)
  return Task((item.id, question.name), rater, Asked(item, question, left, right), again)


class Votes(AnnotationQueue):
  """The votes of a study, of which another server may have taken some already."""

  kind = 'votes'
  who = 'rater'
  fields: ClassVar[Fields] = {
    'id': str,
    'choice': str,
    'milliseconds': int,
    'left': int,
    'right': int,
  }

  def __init__(self, directory: str | os.PathLike[str]):
    """Reads a study and its votes.

    Raises:
      ConfigError: there is no study, or it is damaged.
      DataError: its videos are not those that it began with, or a line of its votes is no vote.
    """
    self.study = read_study(directory)
    log = pathlib.Path(directory) / FILE
    self._videos = check_videos(self.study)
    log.touch()
    self._plans = make_plans(self.study)
    self._questions = {question.name: question for question in self.study.questions}
    self._items = {item.id: item for item in self.study.items}
    needed = {
      (item.id, question.name): len(self.study.raters) if item.gold else question.raters
      for item in self.study.items
      for question in self.study.questions[: 1 if item.gold else None]
    }
    super().__init__(log, self.study.secret, self.study.raters, needed)
    # person and name -> file and folder
    self._sent_files: dict[tuple[str, str], tuple[pathlib.Path, pathlib.Path]] = {}
    for vote in read_votes(log):
      self.add((vote.item, vote.question), vote)

  def plan(self, person: str, take_over: bool) -> list[Task]:
    """Returns a rater's tasks in order; with `take_over` also those that others have left."""
    own = self._plans[person]
    taken = []
    known = {task.key for task in own}
    for key in (key for key in reversed(self.open) if take_over and key not in known):
      item, question = self._items[key[0]], self._questions[key[1]]
      turned = self.study.draw('taken', item.id, person).randrange(2)
      taken.append(_task(item, question, person, turned))
    return [*own, *taken]

  def identity(self, task: Task) -> str:
    """Returns the id of the vote that answers a task."""
    return self.token('vote', task.person, *task.key, task.again)

  async def describe(self, task: Task) -> JSON:
    """Returns what a rater reads, and how long a frame is."""
    about: Asked = task.about
    frames = [
      await asyncio.to_thread(_frame_seconds, self._file(model, about.item.prompt)[0])
      for model in (about.left, about.right)
    ]
    return {
      'prompt': self.study.prompts[about.item.prompt]['prompt'],
      'question': about.question.text,
      'help': about.question.help,
      'sound': about.question.sound,
      'frame': min((seconds for seconds in frames if seconds), default=0),
    }

  def media_names(self, task: Task) -> dict[str, str]:
    """Returns what the page calls the videos of a task, and lets the rater have them."""
    item = task.about.item
    models = {'left': task.about.left, 'right': task.about.right}
    if item.prompt in self._videos.get('', ()):
      models['reference'] = ''
    names = {}
    for side, model in models.items():
      names[side] = self.token('media', task.person, item.id, task.again, side)
      self._sent_files[task.person, names[side]] = self._file(model, item.prompt)
    return names

  def _file(self, model: str, prompt: int) -> tuple[pathlib.Path, pathlib.Path]:
    return self._videos[model][prompt], self.study.folders[model]

  async def media(self, person: str, name: str) -> tuple[pathlib.Path, str]:
    """Returns the file of a video that a rater was shown, unless it leads out of its folder now."""
    path, folder = self._sent_files.get((person, name), (None, None))
    if path is None or not inside(path, folder):
      raise Refused(404, 'There is no such video.')
    return path, KINDS[path.suffix.lower()]

  async def decide(self, task: Task, fields: Fields, waited: float) -> Vote:
    """Makes a vote of what was sent, if both videos were there."""
    if fields['choice'] not in CHOICES:
      raise Refused(400, f'choice is one of {", ".join(CHOICES)}.')
    if not 0 <= fields['milliseconds'] <= LARGEST_INTEGER:
      raise Refused(400, f'milliseconds are a number from 0 to {LARGEST_INTEGER}.')
    about: Asked = task.about
    for side, model in (('left', about.left), ('right', about.right)):
      path, _ = self._file(model, about.item.prompt)
      if await asyncio.to_thread(_checksum, path) != fields[side]:
        raise Refused(409, f'The video on the {side} has not arrived whole; load it again.')
    return Vote(
      id=fields['id'],
      item=about.item.id,
      prompt=about.item.prompt,
      question=about.question.name,
      rater=task.person,
      left=about.left,
      right=about.right,
      choice=fields['choice'],
      milliseconds=min(fields['milliseconds'], round(1000 * waited)),
      time=now(),
      gold=about.item.gold,
    )

  def header(self, person: str, waiting: Sequence[Task]) -> JSON:
    done = self.done[person]
    free = 0 if waiting else len(self.waiting(person, take_over=True))
    total = done + len(waiting)
    ended = f'{done} {"answer is" if done == 1 else "answers are"} saved. ' + (
      f'{free} of other people are still missing.' if free else 'You can close this page.'
    )
    return {
      'title': self.study.name,
      'count': f'{done + 1} of {max(total, done + 1)}' if waiting else f'{done} answered',
      'done': done,
      'total': total,
      'ended': ended,
      'more': free,
      'own': done,
    }

  def state(self) -> dict[str, Any]:
    """Returns the study's progress. It hides who wins, lest results decide when to stop."""
    study = self.study
    pairs = [item for item in self.study.items if not item.gold]
    questions = []
    for question in study.questions:
      counts = [len(self.answer_counts((item.id, question.name))) for item in pairs]
      answers = sum(min(count, question.raters) for count in counts)
      questions.append([question.name, answers, len(pairs) * question.raters])
    missing = sum(needed - answers for _, answers, needed in questions)
    known = {rater.name: rater for rater in raters(self.answers.values())}
    rows = []
    for token, name in self.people.items():
      cells = describe_rater(known[name]) if name in known else dict.fromkeys(RATER, '')
      link = {'text': name, 'link': f'../r/{token}'}
      rows.append([link, len(self.waiting(name)), *cells.values()])
    size = f'{len(pairs)} pairs of {len(study.models)} models and {len(study.prompts)} prompts'
    return {
      'title': study.name,
      'sum': f'{len(self.answers)} votes about {size}; '
      + (f'{missing} answers are missing.' if missing else 'every pair has its raters.'),
      'tables': [
        {'title': 'Questions', 'head': ['Question', 'Answers', 'Wanted'], 'rows': questions},
        {'title': 'Raters', 'head': ['Rater', 'to do', *RATER], 'rows': rows},
      ],
    }


_frame_seconds = functools.lru_cache(maxsize=4096)(frame_seconds)


@functools.lru_cache(maxsize=65_536)
def _checksum(path: pathlib.Path) -> int:
  """Returns the CRC-32 of a video, which the page sends to show that it has all of it."""
  checksum = 0
  with path.open('rb') as file:
    while data := file.read(1 << 20):
      checksum = zlib.crc32(data, checksum)
  return checksum
