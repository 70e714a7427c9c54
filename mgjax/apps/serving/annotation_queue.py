"""A queue of items that people annotate, without HTTP: who gets which item, and the log of answers.

An item has a key, and needs answers from a number of people. Each person has a plan: items in an
order. An item that has its answers, or that another person has open, is skipped. An answer is on
the disk before it is acknowledged: a line of JSON with its person and time. It has the id that came
with the item, so an answer that is sent twice counts once. After `kill -9` the queue resumes from
that log alone.
"""

import abc
import asyncio
import dataclasses
import hashlib
import hmac
import json
import pathlib
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from mgjax.apps.serving.http import Refused
from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import DataError, MgjaxError, first_line
from mgjax.core.files import append_json_line, end_line, parse_json, synchronise

Key = tuple[Hashable, ...]
LEASE = 900.0  # seconds for which an item is reserved for a person who has not answered
_NOT_YOURS = 'That was not put to you; load it again.'


@dataclasses.dataclass(frozen=True)
class Task:
  """An item for one person."""

  key: Key
  person: str
  about: object = None  # what a subclass of the queue needs to describe the item
  again: bool = False  # the item is repeated, to measure how consistent the person is


class AnnotationQueue(abc.ABC):
  """Which person gets which item, and their answers. Each kind of item is a subclass.

  Attributes:
    kind: the view of the page that shows an item.
    who: the field of an answer that holds the person.
    largest: the most bytes of an answer.
    revisable: whether people may skip an item, and change an answer.
    fields: name -> type of the fields that the page sends.
    log: the file of answers.
    people: token of a link -> person.
    operator: the token of the page that shows the progress.
    answers: id -> answer, in the order in which they came.
    latest: key of an item -> its last answer; the most recent one is at the end.
    open: keys of the items that need more answers.
    done: how many answers each person gave.
  """

  kind = ''
  who = 'person'
  largest = 2048
  revisable = False
  fields: ClassVar[Fields] = {}

  def __init__(
    self, log: pathlib.Path, secret: str, people: Sequence[str], needed: Mapping[Key, int]
  ):
    """Starts without answers; `add` counts those of the log.

    `secret` makes the tokens of links and the ids of answers. `needed` says for each item how many
    people must answer.
    """
    self.log = log
    self._secret = secret
    self._needed = needed
    self.people = {self.token(self.who, name): name for name in people}
    self.operator = self.token('operator')
    self.answers: dict[str, Any] = {}
    self.latest: dict[Key, object] = {}
    self.open = dict.fromkeys(needed)
    self.done: Counter[str] = Counter()
    self._counts: defaultdict[Key, Counter[str]] = defaultdict(Counter)  # answers by person
    self._held: dict[str, tuple[Key, float]] = {}  # person -> their item, and until when
    self._skipped: defaultdict[str, set[Key]] = defaultdict(set)  # by person
    self._sent: dict[tuple[str, str], tuple[Task, float]] = {}  # person and id -> task, and when
    self._writing = asyncio.Lock()

  @abc.abstractmethod
  def plan(self, person: str, take_over: bool) -> Iterable[Task]:
    """Returns a person's tasks in order; with `take_over` also items that others have left."""

  @abc.abstractmethod
  def identity(self, task: Task) -> str:
    """Returns the id of the answer to a task."""

  @abc.abstractmethod
  async def describe(self, task: Task) -> JSON:
    """Returns the fields of a task that the page shows."""

  @abc.abstractmethod
  def media_names(self, task: Task) -> dict[str, str]:
    """Returns the names of a task's files: position on the page -> name for `media`."""

  @abc.abstractmethod
  async def media(self, person: str, name: str) -> tuple[pathlib.Path, str]:
    """Returns a file by its name, and its media type. Raises Refused if the person has none."""

  @abc.abstractmethod
  async def decide(self, task: Task, fields: Fields, waited: float) -> Any:
    """Makes the answer, a dataclass, of the fields that the page sent after `waited` seconds.
    Raises Refused if a field is not valid.
    """

  @abc.abstractmethod
  def header(self, person: str, waiting: Sequence[Task]) -> JSON:
    """Returns what the page shows above a task: title, count, done, total, ended, more and own."""

  @abc.abstractmethod
  def state(self) -> JSON:
    """Returns the progress for the operator's page: title, sum and tables."""

  def close(self) -> None:  # noqa: B027, since a subclass need not override it
    """Ends background work of the queue. By default there is none."""

  def add(self, key: Key, answer: Any) -> None:
    """Counts an answer about an item."""
    person = getattr(answer, self.who)
    self.answers[answer.id] = answer
    self.latest.pop(key, None)
    self.latest[key] = answer
    self.done[person] += 1
    self._counts[key][person] += 1
    if self._held.get(person, (None,))[0] == key:
      del self._held[person]
    if len(self._counts[key]) >= self._needed.get(key, 0):
      self.open.pop(key, None)

  def answer_counts(self, key: Key) -> Counter[str]:
    """Returns how often each person answered about an item."""
    return self._counts.get(key, Counter())

  def waiting(self, person: str, take_over: bool = False) -> list[Task]:
    """Returns the tasks left for a person: the one they have, their plan, those they skipped.

    With `take_over`, items that others have left follow.
    """
    now = time.monotonic()
    own_key = self._held.get(person, (None, 0.0))[0]
    held = self._held.items()
    others = Counter(key for name, (key, until) in held if name != person and until > now)
    due = [task for task in self.plan(person, take_over) if self._is_due(task, others)]
    skipped = self._skipped[person]
    return sorted(due, key=lambda task: (task.key != own_key, task.key in skipped))

  def hold(self, task: Task) -> None:
    """Reserves an item for a person for `LEASE` seconds, and frees the one that they had."""
    self._held[task.person] = task.key, time.monotonic() + LEASE

  def _is_due(self, task: Task, others: Counter[Key]) -> bool:
    """Says whether an item needs the person's answer; `others` counts who else has it open."""
    key = task.key
    counts = self.answer_counts(key)
    if task.again:  # not repeated if another person took it over
      return counts[task.person] == 1 or (not counts[task.person] and key in self.open)
    missing = self._needed[key] - len(counts) - others[key] if key in self.open else 0
    return not counts[task.person] and missing > 0

  async def next(self, person: str, take_over: bool = False, back: int = 0) -> dict[str, Any]:
    """Returns the page of a person's next task: the same one until it is answered.

    With `take_over` they also get items that others have left. `back` returns to the item that they
    answered so many answers ago, if the last answer is still theirs.
    Raises Refused if they have not answered that many.
    """
    waiting = self.waiting(person, take_over)
    task = waiting[0] if waiting else None
    if back:
      task = self._before(person, back)
    elif task is not None:
      self.hold(task)
    page = {'kind': self.kind, 'task': None, 'ahead': [], **self.header(person, waiting)}
    if task is not None:
      identity = self.identity(task)
      self._sent.setdefault((person, identity), (task, time.monotonic()))
      media = self.media_names(task)
      page['task'] = {'id': identity, 'media': media, **await self.describe(task)}
      # The page loads the next files early. Several questions about one pair have the same files.
      later = (self.media_names(task) for task in waiting[1:])
      page['ahead'] = [*next((names for names in later if names != media), {}).values()]
    return page

  def _before(self, person: str, back: int) -> Task:
    own = [key for key, answer in self.latest.items() if getattr(answer, self.who) == person]
    own = [key for key in own if key in self._needed and self.revisable]
    if back > len(own):
      raise Refused(404, 'That is as far back as your answers go.')
    return Task(own[-back], person)

  def skip(self, person: str, body: bytes) -> JSON:
    """Moves a task to the end of a person's tasks, and frees it for others.
    Raises Refused if the person does not have it, or the kind of item cannot be skipped.
    """
    identity = parsed(body, {'id': str})['id']
    task, _ = self._sent.get((person, identity), (None, 0.0))
    if task is None or not self.revisable:
      raise Refused(409, _NOT_YOURS)
    self._skipped[person].add(task.key)
    self._held.pop(person, None)
    return {'left': identity}

  async def answer(self, person: str, body: bytes) -> JSON:
    """Writes an answer to the log, once.
    Raises Refused if it is not valid, or of another person, or the disk is full.
    """
    fields = parsed(body, self.fields)
    async with self._writing:
      answer = self.answers.get(fields['id'])
      task, since = self._sent.get((person, fields['id']), (None, 0.0))
      if answer is None:
        if task is None:
          raise Refused(409, _NOT_YOURS)
        answer = await self.decide(task, fields, time.monotonic() - since)
        try:
          await asyncio.to_thread(append_answer, self.log, answer)
        except OSError as error:
          raise Refused(507, f'The answer could not be saved: {error.strerror}.') from error
        self.add(task.key, answer)
      elif getattr(answer, self.who) != person:
        raise Refused(409, _NOT_YOURS)
    return {'saved': answer.id}

  def token(self, *parts: object) -> str:
    """Returns the token of a link, a file or an answer, which only the secret can produce."""
    message = json.dumps(parts).encode()
    return hmac.new(self._secret.encode(), message, hashlib.sha256).hexdigest()[:32]


def append_answer(path: pathlib.Path, answer: Any) -> None:
  """Adds an answer, a dataclass, to a log. It is on the disk when this returns."""
  end_line(path)  # a line that a crash cut short must not swallow this one
  append_json_line(path, dataclasses.asdict(answer))
  synchronise(path)


def now() -> str:
  """Returns the time in UTC, in the format of the logs."""
  return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())


def parsed(body: bytes, kinds: Fields) -> JSON:
  """Reads the JSON of a request. Raises Refused unless it has exactly the fields of `kinds`."""
  try:
    fields = parse_json(body, 'what was sent', error=DataError, mend='send it again')
  except MgjaxError as error:
    raise Refused(400, first_line(error)) from error
  fits = fields.keys() == kinds.keys() and all(
    isinstance(fields[name], kind) and (kind is bool or not isinstance(fields[name], bool))
    for name, kind in kinds.items()
  )
  if not fits:
    raise Refused(400, f'Expected {", ".join(kinds)}.')
  return fields
