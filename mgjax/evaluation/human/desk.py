"""What is said to raters and taken from them, without the network that it is said over.

A rater gets what they are to see next, with videos under names that say nothing. A vote is on the
disk before it is acknowledged, has the id that came with the question, so that sending it again
changes nothing, and says that both videos were there (Movie Gen §3.5).
"""

import asyncio
import functools
import os
import pathlib
import time
import zlib
from typing import Any

from mgjax.core.errors import DataError, MgjaxError, first_line
from mgjax.core.files import parse_json
from mgjax.core.settings import LARGEST
from mgjax.evaluation.human.assignment import Board, Task
from mgjax.evaluation.human.study import check_videos, frame_seconds, inside, read_study
from mgjax.evaluation.human.votes import CHOICES, FILE, Vote, append_vote, read_votes
from mgjax.runtime.page_server import Refused


def receipt(data: bytes, before: int = 0) -> int:
  """Returns what a page sends with a vote to show that it holds a video whole: its CRC-32."""
  return zlib.crc32(data, before)


class Desk:
  """What is said to raters and taken from them.

  Attributes:
    study: that is answered.
    board: what is answered.
    raters: token -> name.
    operator: token of the page for whoever runs the study.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    self._directory = pathlib.Path(directory)
    self.study = read_study(directory)
    self._videos = check_videos(self.study)
    (self._directory / FILE).touch()
    self.board = Board(self.study, read_votes(directory))
    self.raters = {self.study.token('rater', name): name for name in self.study.raters}
    self.operator = self.study.token('operator')
    self._shown: dict[tuple[str, str], tuple[pathlib.Path, pathlib.Path]] = {}  # file and folder
    self._asked: dict[tuple[str, str], tuple[Task, float]] = {}  # by rater and id of the vote
    self._seen: dict[str, float] = {}
    self._writing = asyncio.Lock()

  async def next(self, rater: str, more: bool) -> dict[str, Any]:
    """Returns what a rater is to see next: the same until it is answered."""
    self._seen[rater] = time.time()
    waiting = list(self.board.waiting(rater))
    task = waiting[0] if waiting else self.board.take_over(rater) if more else None
    done = self.board.done[rater]
    answer = {
      'study': self.study.name,
      'done': done,
      'total': done + len(waiting),
      'left_by_others': 0 if waiting else self.board.left_by_others(rater),
      'task': None,
    }
    if task is not None:
      answer['task'] = await self._describe(task)
      ahead = next((each for each in waiting if each.item is not task.item), None)
      answer['ahead'] = list(self._sides(ahead).values()) if ahead else []
    return answer

  async def _describe(self, task: Task) -> dict[str, Any]:
    key, question = (task.rater, task.id), task.question
    _, since = self._asked.get(key, (task, time.monotonic()))
    self._asked[key] = task, since
    frames = [
      await asyncio.to_thread(_frame_seconds, self._file(name, task.item.prompt)[0])
      for name in (task.left, task.right)
    ]
    return {
      'id': task.id,
      'prompt': self.study.prompts[task.item.prompt]['prompt'],
      'question': question.text,
      'help': question.help,
      'sound': question.sound,
      'frame': min((each for each in frames if each), default=0),
      **self._sides(task),
    }

  def _sides(self, task: Task) -> dict[str, str]:
    """Returns what the page calls the videos of a task, and lets this rater have them."""
    wanted = {'left': task.left, 'right': task.right}
    if task.item.prompt in self._videos.get('', ()):
      wanted['reference'] = ''
    names = {}
    for side, model in wanted.items():
      names[side] = self.study.token('media', task.rater, task.item.id, task.again, side)
      self._shown[task.rater, names[side]] = self._file(model, task.item.prompt)
    return names

  def _file(self, model: str, prompt: int) -> tuple[pathlib.Path, pathlib.Path]:
    return self._videos[model][prompt], self.study.folders[model]

  def media(self, rater: str, name: str) -> pathlib.Path:
    """Returns the file of a video that a rater was shown.

    Raises:
      Refused: they were not, or it is gone.
    """
    path, folder = self._shown.get((rater, name), (None, None))
    if path is None or not inside(path, folder):
      raise Refused(404, 'There is no such video.')
    return path

  async def vote(self, rater: str, body: bytes) -> dict[str, Any]:
    """Writes a vote, once.

    Raises:
      Refused: it is none, or another rater's, or the videos were not there.
    """
    fields = _parse_vote(body)
    async with self._writing:
      known = self.board.votes.get(fields['id'])
      if known is None:
        task, since = self._asked.get((rater, fields['id']), (None, 0.0))
        if task is None:
          raise Refused(409, 'That question was not put to you; load it again.')
        for side, model in (('left', task.left), ('right', task.right)):
          path, _ = self._file(model, task.item.prompt)
          if await asyncio.to_thread(_receipt_of, path) != fields[side]:
            raise Refused(409, f'The video on the {side} has not arrived whole; load it again.')
        waited = round(1000 * (time.monotonic() - since))
        known = Vote(
          id=task.id,
          item=task.item.id,
          prompt=task.item.prompt,
          question=task.question.name,
          rater=rater,
          left=task.left,
          right=task.right,
          choice=fields['choice'],
          milliseconds=min(fields['milliseconds'], waited),
          time=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
          gold=task.item.gold,
        )
        try:
          await asyncio.to_thread(append_vote, self._directory / FILE, known)
        except OSError as error:
          raise Refused(507, f'The answer could not be saved: {error.strerror}.') from error
        self.board.add(known)
      elif known.rater != rater:
        raise Refused(409, 'That question was not put to you; load it again.')
    self._seen[rater] = time.time()
    return {'saved': known.id}

  def state(self) -> dict[str, Any]:
    """Returns how far the study is; not who wins, lest it be stopped when that pleases."""
    votes, study = list(self.board.votes.values()), self.study
    answered, gold = self.board.progress(), {item.id for item in study.items if item.gold}
    pairs = len(study.items) - len(gold)
    raters = []
    for token, name in self.raters.items():
      own = [vote for vote in votes if vote.rater == name]
      waits = sorted(vote.milliseconds for vote in own)
      first = {(vote.item, vote.question): vote for vote in reversed(own)}
      again = [vote for vote in own if first[vote.item, vote.question] is not vote]
      checked = [vote for vote in own if vote.gold]
      raters.append({
        'name': name,
        'link': f'../r/{token}',
        'done': len(own),
        'waiting': sum(1 for _ in self.board.waiting(name)),
        'seconds': waits[len(waits) // 2] / 1000 if waits else None,
        'gold': [sum(vote.winner == vote.gold for vote in checked), len(checked)],
        'again': [
          sum(vote.winner == first[vote.item, vote.question].winner for vote in again), len(again)
        ],
        'cannot_judge': sum(vote.winner is None for vote in own),
        'left': sum(vote.choice == 'left' for vote in own),
        'seen': self._seen.get(name),
      })  # fmt: skip
    questions = [
      {
        'name': question.name,
        'answers': sum(
          min(count, question.raters)
          for (item, name), count in answered.items()
          if name == question.name and item not in gold
        ),
        'wanted': pairs * question.raters,
      }
      for question in study.questions
    ]
    return {
      'study': study.name,
      'models': len(study.models),
      'prompts': len(study.prompts),
      'pairs': pairs,
      'votes': len(votes),
      'now': time.time(),
      'questions': questions,
      'raters': raters,
    }


@functools.lru_cache(maxsize=4096)
def _frame_seconds(path: pathlib.Path) -> float:
  return frame_seconds(path)


@functools.lru_cache(maxsize=65_536)
def _receipt_of(path: pathlib.Path) -> int:
  found = 0
  with path.open('rb') as file:
    while data := file.read(1 << 20):
      found = receipt(data, found)
  return found


def _parse_vote(body: bytes) -> dict[str, Any]:
  wanted = {'id': str, 'choice': str, 'milliseconds': int, 'left': int, 'right': int}
  try:
    fields = parse_json(body, 'the vote', error=DataError, mend='send a whole one')
  except MgjaxError as error:
    raise Refused(400, first_line(error)) from error
  kinds = {name: type(value) for name, value in fields.items()}
  if kinds != wanted or fields['choice'] not in CHOICES:
    raise Refused(400, f'A vote has {", ".join(wanted)}; choice is one of {", ".join(CHOICES)}.')
  if not 0 <= fields['milliseconds'] <= LARGEST:
    raise Refused(400, f'milliseconds are a number from 0 to {LARGEST}.')
  return fields
