"""Votes of people who compared two videos, lines of JSON that are only added (Movie Gen §3.5)."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from mgjax.core.errors import ConfigError, DataError, MgjaxError
from mgjax.core.files import end_line, synchronise
from mgjax.core.settings import Count, check

FILE = 'votes.jsonl'
CHOICES = ('left', 'right', 'tie', 'cannot_judge')
TIE = 'tie'


@dataclasses.dataclass(frozen=True)
class Vote:
  """What one rater answered to one question about one pair.

  Attributes:
    id: that the server gave this answer before it was given; a vote with an id that is known
      changes nothing.
    item: of the study, which a rater may be shown twice under other ids.
    prompt: its index in the study's prompts; answers about one prompt are not independent.
    question: its name.
    rater: who answered.
    left: name of the model whose video was on the left.
    right: that of the other one.
    choice: of CHOICES: which one is better, neither, or that this cannot be said.
    milliseconds: from when both videos were ready until the answer.
    time: of the server, UTC, as in '2026-11-22T18:30:00Z'.
    gold: name of the model that wins for certain, '' if nobody knows.
  """

  id: str
  item: str
  prompt: Count
  question: str
  rater: str
  left: str
  right: str
  choice: str
  milliseconds: Count = 0
  time: str = ''
  gold: str = ''

  def __post_init__(self):
    check(self)
    if self.choice not in CHOICES:
      raise ConfigError(f'choice = {self.choice!r}; expected one of {", ".join(CHOICES)}')

  @property
  def winner(self) -> str | None:
    """Name of the model that was preferred, 'tie', or None where the rater could not judge."""
    return {'left': self.left, 'right': self.right, TIE: TIE}.get(self.choice)


def append_vote(path: str | os.PathLike[str], *votes: Vote) -> None:
  """Adds a vote, or several at once, which are on the disk when this returns.

  A line that a crash left unfinished is ended first, so that it does not spoil the next one.
  """
  lines = [json.dumps(dataclasses.asdict(vote), ensure_ascii=False) + '\n' for vote in votes]
  end_line(path)
  with open(path, 'ab') as file:
    file.write(''.join(lines).encode())
  synchronise(path)


def read_votes(path: str | os.PathLike[str]) -> list[Vote]:
  """Reads the votes of a file, or of a study's directory, in their order and each id once.

  Raises:
    DataError: there is no such file, or a line other than one that a crash cut is no vote.
  """
  path = pathlib.Path(path)
  path = path / FILE if path.is_dir() else path
  try:
    lines = path.read_bytes().split(b'\n')
  except OSError as e:
    raise DataError(f'{path}: {e.strerror}; expected votes as launch.compare serve writes') from e
  votes: dict[str, Vote] = {}
  for vote in _parsed(path, lines):
    votes.setdefault(vote.id, vote)
  return list(votes.values())


def _parsed(path: pathlib.Path, lines: list[bytes]) -> Iterator[Vote]:
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      fields: Any = json.loads(line)
    except ValueError:  # cut by a crash: no answer was acknowledged
      continue
    try:
      yield Vote(**fields)
    except (TypeError, MgjaxError) as e:
      raise DataError(f'{path}, line {number}: {e}; expected the fields of a vote') from e
