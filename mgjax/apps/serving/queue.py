"""Hands items to people and takes their answers, without the network between.

An item has a key and is wanted from a number of people. Everybody has a plan, items in an order;
what others have answered meanwhile, or have before them just now, is passed over. An answer is on
the disk before it is acknowledged, as a line of JSON with who gave it and when, and has the id that
came with the item: sent again it changes nothing. After `kill -9` that log is all that is needed
to go on.
"""

import asyncio
import dataclasses
import hashlib
import hmac
import json
import pathlib
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from mgjax.apps.serving.http import Refused
from mgjax.core.errors import DataError, MgjaxError, first_line
from mgjax.core.files import append_json_line, end_line, parse_json, synchronise

Key = tuple[Hashable, ...]
LEASE = 900.0  # seconds for which an item is left to a person who has said nothing since
_NOT_YOURS = 'That was not put to you; load it again.'


@dataclasses.dataclass(frozen=True)
class Task:
  """An item put to one person."""

  key: Key
  person: str
  about: Any = None  # what the kind of item knows of it
  again: bool = False  # asked a second time, to see how sure the person is


class Queue:
  """Who gets what, and what they answered. Each kind of item is a subclass."""

  # which view the page shows; the answers' field that holds the person
  kind = ''
  who = 'person'
  largest = 2048  # bytes of an answer
  revisable = False  # whether people may leave an item to others, and go back to an answer
  fields: Mapping[str, Any] = {}  # name -> type of what the page sends
  # What each kind does: a person's items in their order, with or without what others have left, the
  # id of the answer to one, what the page shows of it, the names of its files by where they stand,
  # a file by its name, the answer made of what was sent after so many seconds, what stands above an
  # item (title, count, done, total, ended, more, own), and the progress (title, sum, tables).
  plan: Callable[[str, bool], Iterable[Task]]
  identity: Callable[[Task], str]
  describe: Callable[[Task], Awaitable[dict[str, Any]]]
  media_names: Callable[[Task], dict[str, str]]
  media: Callable[[str, str], Awaitable[tuple[pathlib.Path, str]]]
  decide: Callable[[Task, Mapping[str, Any], float], Awaitable[Any]]
  header: Callable[[str, Sequence[Task]], dict[str, Any]]
  state: Callable[[], dict[str, Any]]

  def __init__(
    self, log: pathlib.Path, secret: str, people: Sequence[str], wanted: Mapping[Key, int]
  ):
    """Begins without answers, which `add` tells.

    Links and ids are made of the secret; of each item `wanted` says by how many people.
    """
    self.log, self._secret, self._wanted = log, secret, wanted
    self.people = {self.token(self.who, name): name for name in people}
    self.operator = self.token('operator')  # of the page that shows the progress
    self.answers: dict[str, Any] = {}  # by id, in their order
    self.latest: dict[Key, Any] = {}  # the last answer about an item, the latest one at the end
    self.open = dict.fromkeys(wanted)  # items that have not enough answers
    self.done: Counter[str] = Counter()
    self._given: defaultdict[Key, Counter[str]] = defaultdict(Counter)
    self._held: dict[str, tuple[Key, float]] = {}
    self._passed: defaultdict[str, set[Key]] = defaultdict(set)
    self._asked: dict[tuple[str, str], tuple[Task, float]] = {}
    self._writing = asyncio.Lock()

  def close(self) -> None:
    """Ends what runs beside it."""

  def add(self, key: Key, answer: Any) -> None:
    """Counts an answer about an item."""
    person = getattr(answer, self.who)
    self.answers[answer.id] = answer
    self.latest.pop(key, None)
    self.latest[key] = answer
    self.done[person] += 1
    self._given[key][person] += 1
    if self._held.get(person, (None,))[0] == key:
      del self._held[person]
    if len(self._given[key]) >= self._wanted.get(key, 0):
      self.open.pop(key, None)

  def given(self, key: Key) -> Counter[str]:
    """Returns how often each person answered about an item."""
    return self._given.get(key, Counter())

  def waiting(self, person: str, more: bool = False) -> list[Task]:
    """Returns what is left for a person: what they have, their plan, what they passed on.

    With `more` what others have left comes after that.
    """
    now = time.monotonic()
    mine = self._held.get(person, (None, 0.0))[0]
    held = self._held.items()
    others = Counter(key for name, (key, until) in held if name != person and until > now)
    left = [task for task in self.plan(person, more) if self._is_due(task, others)]
    passed = self._passed[person]
    return sorted(left, key=lambda task: (task.key != mine, task.key in passed))

  def hold(self, task: Task) -> None:
    """Leaves an item to a person for a while; what they had before is free again."""
    self._held[task.person] = task.key, time.monotonic() + LEASE

  def _is_due(self, task: Task, others: Counter[Key]) -> bool:
    """Whether the person's answer is missing, and nobody else is giving it."""
    key = task.key
    given = self.given(task.key)
    if task.again:  # of what somebody else took over there is nothing to repeat
      return given[task.person] == 1 or (not given[task.person] and key in self.open)
    missing = self._wanted[key] - len(given) - others[key] if key in self.open else 0
    return not given[task.person] and missing > 0

  async def next(self, person: str, more: bool = False, back: int = 0) -> dict[str, Any]:
    """Returns what a person is to see next: the same until it is answered.

    With `more` they take over what others have left; `back` shows the last but so many of the items
    whose last answer is theirs, to be looked at again.
    Raises Refused if they have not answered that many.
    """
    waiting = self.waiting(person, more)
    task = waiting[0] if waiting else None
    if back:
      task = self._before(person, back)
    elif task is not None:
      self.hold(task)
    answer = {'kind': self.kind, 'task': None, 'ahead': [], **self.header(person, waiting)}
    if task is not None:
      identity = self.identity(task)
      self._asked.setdefault((person, identity), (task, time.monotonic()))
      media = self.media_names(task)
      told = await self.describe(task)
      answer['task'] = {'id': identity, 'media': media, **told}
      # Of several questions about one pair the next ones have the same files.
      ahead = (self.media_names(each) for each in waiting[1:])
      answer['ahead'] = [*next((each for each in ahead if each != media), {}).values()]
    return answer

  def _before(self, person: str, back: int) -> Task:
    own = [key for key, each in self.latest.items() if getattr(each, self.who) == person]
    own = [key for key in own if key in self._wanted and self.revisable]
    if back > len(own):
      raise Refused(404, 'That is as far back as your answers go.')
    return Task(own[-back], person)

  def skip(self, person: str, body: bytes) -> dict[str, Any]:
    """Leaves an item to others, and to the person when nothing else is left; else `Refused`."""
    identity = parsed(body, {'id': str})['id']
    task, _ = self._asked.get((person, identity), (None, 0.0))
    if task is None or not self.revisable:
      raise Refused(409, _NOT_YOURS)
    self._passed[person].add(task.key)
    self._held.pop(person, None)
    return {'left': identity}

  async def answer(self, person: str, body: bytes) -> dict[str, Any]:
    """Writes an answer, once.
    Raises Refused if it is none, or of another person, or the disk is full.
    """
    fields = parsed(body, self.fields)
    async with self._writing:
      known = self.answers.get(fields['id'])
      task, since = self._asked.get((person, fields['id']), (None, 0.0))
      if known is None:
        if task is None:
          raise Refused(409, _NOT_YOURS)
        known = await self.decide(task, fields, time.monotonic() - since)
        try:
          await asyncio.to_thread(append_answer, self.log, known)
        except OSError as error:
          raise Refused(507, f'The answer could not be saved: {error.strerror}.') from error
        self.add(task.key, known)
      elif getattr(known, self.who) != person:
        raise Refused(409, _NOT_YOURS)
    return {'saved': known.id}

  def token(self, *parts: Any) -> str:
    """Returns what nobody can guess who has not the secret: of a link, a file, an answer."""
    message = json.dumps(parts).encode()
    return hmac.new(self._secret.encode(), message, hashlib.sha256).hexdigest()[:32]


def append_answer(path: pathlib.Path, answer: Any) -> None:
  """Adds an answer, a dataclass, to a log; it is on the disk when this returns."""
  end_line(path)  # one that a crash cut short must not spoil this one
  append_json_line(path, dataclasses.asdict(answer))
  synchronise(path)


def now() -> str:
  """Returns the time as logs have it, UTC."""
  return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())


def parsed(body: bytes, wanted: Mapping[str, Any]) -> dict[str, Any]:
  """Reads an answer that has the wanted fields and no others; else `Refused`."""
  try:
    fields = parse_json(body, 'what was sent', error=DataError, mend='send it again')
  except MgjaxError as error:
    raise Refused(400, first_line(error)) from error
  fits = fields.keys() == wanted.keys() and all(
    isinstance(fields[name], kind) and (kind is bool or not isinstance(fields[name], bool))
    for name, kind in wanted.items()
  )
  if not fits:
    raise Refused(400, f'Expected {", ".join(wanted)}.')
  return fields
