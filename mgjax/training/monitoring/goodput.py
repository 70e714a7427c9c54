"""Goodput: where the time of a run went, over all its sessions.

`goodput.jsonl` in the work directory only grows: each line says what one session (there called an
attempt), one process from its start to its end, spent in each phase so far. A line that a kill cut
short is passed over. What no line tells of, the end of a session that was killed and the pause
before the next one, is idle.
"""

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.files import append_json_line, end_line, read_json_lines
from mgjax.training.monitoring.phases import PHASES, Phases

GOODPUT_FILE = 'goodput.jsonl'
SELDOM = 1.0  # seconds between two lines, at least


@dataclasses.dataclass(frozen=True)
class Goodput:
  """Where the time of a run went.

  Attributes:
    attempts: how many there were.
    again: steps that were done again, as far as lines tell.
    seconds: of each phase, of `lost` steps that were done again, and `idle` between attempts.
  """

  attempts: int
  again: float
  seconds: dict[str, float]

  @property
  def total(self) -> float:
    """Seconds since the first attempt began."""
    return sum(self.seconds.values())

  @property
  def share(self) -> float:
    """The share of all time that went into steps which were not done again."""
    return self.seconds['step'] / self.total if self.total else 0.0

  def shares(self) -> dict[str, float]:
    """Returns the share of each."""
    return {name: value / (self.total or 1.0) for name, value in self.seconds.items()}


class Ledger:
  """Writes what the first process of a run spends its time on."""

  def __init__(self, workdir: str | os.PathLike[str], phases: Phases):
    """Begins an attempt; nothing is written before the first `note`."""
    self.phases = phases
    self._path = pathlib.Path(workdir) / GOODPUT_FILE
    self._writes = jax.process_index() == 0
    began = time.time() - sum(phases.seconds().values())
    self._attempt = {'attempt': os.urandom(8).hex(), 'began': began}
    self._step: int | None = None
    self._written = -SELDOM
    self._before: Goodput | None = None

  def begin(self, step: int) -> None:
    """Notes that the attempt goes on from a step."""
    self._attempt |= {'from': step}
    self.note(step)
    if self._writes:
      # The seconds of this attempt are known better by its phases than by its lines.
      own = self._attempt['attempt']
      others = [line for line in read_lines(self._path) if line['attempt'] != own]
      bare = self._attempt | {'at': time.time(), 'step': step, 'seconds': {}}
      self._before = add_up([*others, bare])

  def note(self, step: int | None = None, finished: bool = False, always: bool = True) -> None:
    """Writes a line with the number of steps done, None before that is known.

    Without `always` it does so only if the last line is old; `finished` if the run has no more
    steps.
    """
    moment = self.phases.clock()
    if not self._writes or (not always and moment - self._written < SELDOM):
      return
    if self._written < 0:
      end_line(self._path)
    self._written = moment
    seconds = {name: round(value, 3) for name, value in self.phases.seconds().items()}
    line = self._attempt | {'at': time.time(), 'step': step, 'seconds': seconds}
    append_json_line(self._path, line | ({'finished': True} if finished else {}))

  def now(self) -> Goodput | None:
    """Returns where the time went so far; None in processes that keep no account."""
    if self._before is None:
      return None
    seconds = dict(self._before.seconds)
    for name, value in self.phases.seconds().items():
      seconds[name] += value
    return dataclasses.replace(self._before, seconds=seconds)


def read_goodput(workdir: str | os.PathLike[str]) -> Goodput | None:
  """Returns where the time of a run went; None where nothing is known of it."""
  lines = read_lines(pathlib.Path(workdir) / GOODPUT_FILE)
  return add_up(lines) if lines else None


def read_lines(path: pathlib.Path) -> list[JSON]:
  """Returns the whole lines of a ledger; damaged ones are left out, with a warning."""
  return [line for line, _ in read_json_lines(path, _whole)]


def add_up(lines: Sequence[Fields]) -> Goodput:
  """Adds up the lines of a ledger.

  Steps that a later attempt did again are lost: of the seconds that the steps between two lines
  took, as large a share as of these steps. Of attempts after the one that finished a run, which
  find nothing to do, nothing is counted.
  """
  seconds: dict[str, float] = dict.fromkeys((*PHASES, 'lost', 'idle'), 0.0)
  spans: list[tuple[float, float, float]] = []  # of steps: first, last, and seconds they took
  attempts = 0
  again = 0.0
  end = None
  done = None
  for attempt in _attempts(lines):
    first = attempt[0]
    last = attempt[-1]
    begin = last.get('from')
    if done is not None and (begin is None or begin >= done):
      continue
    attempts += 1
    seconds['idle'] += max(first['began'] - end, 0.0) if end is not None else 0.0
    end = last['at']
    for name in PHASES:
      seconds[name] += last['seconds'].get(name, 0.0)
    if begin is not None:
      spans, steps, lost = _cut(spans, begin)
      again += steps
      seconds['lost'] += lost
      seconds['step'] -= lost
      spans += _spans(attempt)
    done = last['step'] if last.get('finished') else None
  return Goodput(attempts, again, seconds)


def _attempts(lines: Sequence[Fields]) -> list[list[Fields]]:
  """The lines of each attempt, in the order in which they began."""
  attempts: dict[str, list[Fields]] = {}
  for line in lines:
    attempts.setdefault(line['attempt'], []).append(line)
  return sorted(attempts.values(), key=lambda attempt: attempt[0]['began'])


def _spans(attempt: Sequence[Fields]) -> Iterator[tuple[float, float, float]]:
  known = [line for line in attempt if line.get('step') is not None]
  for one, other in itertools.pairwise(known):
    if other['step'] > one['step']:
      took = other['seconds'].get('step', 0.0) - one['seconds'].get('step', 0.0)
      yield one['step'], other['step'], took


def _cut(spans, begin: float) -> tuple[list[tuple[float, float, float]], float, float]:
  """Returns the spans up to a step, and the steps and seconds beyond it."""
  cut_spans = []
  steps = 0.0
  lost = 0.0
  for first, last, took in spans:
    over = max(last - max(first, begin), 0.0)
    part = took * over / (last - first)
    steps, lost = steps + over, lost + part
    if last - over > first:
      cut_spans.append((first, last - over, took - part))
  return cut_spans, steps, lost


def _whole(line: Any) -> JSON:
  """Returns a complete line; ValueError, KeyError or TypeError for another."""
  steps = [line['step'], line.get('from')]
  times = [line['began'], line['at'], *line['seconds'].values()]
  numbers = [*times, *(step for step in steps if step is not None)]
  right = isinstance(line['attempt'], str) and all(
    type(number) in (int, float) for number in numbers
  )
  if not right or not all(abs(number) < 2**53 for number in numbers):  # nor is NaN
    raise ValueError('not a line of a ledger')
  return line
