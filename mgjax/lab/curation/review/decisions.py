"""Reads what people decided about clips, a log of JSON lines, and does it (Movie Gen §3.3).

Of fine-tuning the paper says that people keep clips that look as in films, trim them to their best
part, correct their captions and set labels of the shot. A decision is about a clip as it was
shown, its name with its start and end: where another run cuts it in another way, it has yet to be
looked at. Of several decisions about a clip the last one counts.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.core.files import read_json_lines
from mgjax.core.settings import Magnitude, check
from mgjax.lab.curation.review.labels import LABELS

FILE = 'decisions.jsonl'
PEOPLE = 'people'  # name of the step in the funnel
UNSEEN = 'person: nobody has looked at it'
_DIGITS = 3  # of a second, in which clips count as the same

Key = tuple[str, float, float]


@dataclasses.dataclass(frozen=True)
class Decision:
  """What one person decided about one clip."""

  id: str  # that the server gave this decision before it was made
  clip: str  # its name
  start: Magnitude  # of the clip as it was shown, in seconds of its video
  end: Magnitude
  person: str
  keep: bool
  reason: str  # why not; '' of one that stays
  first: Magnitude  # second of its video from which on it stays
  last: Magnitude  # until which
  caption: str | None = None  # None where nobody changed it
  labels: tuple[str, ...] = ()
  time: str = ''  # of the server, UTC

  def __post_init__(self):
    check(self)
    if strange := [label for label in self.labels if label not in LABELS]:
      raise ConfigError(f'labels has {strange[0]!r:.40}; expected some of {", ".join(LABELS)}')
    if self.keep == bool(self.reason):
      raise ConfigError('expected a reason of a clip that is dropped, and of no other')
    if not self.start <= self.first < self.last <= self.end:
      raise ConfigError(
        f'from {self.first:g} s to {self.last:g} s of a clip that lasts from {self.start:g} s to '
        f'{self.end:g} s; expected a part of it'
      )

  @property
  def key(self) -> Key:
    return key_of(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Reviewed:
  """What people leave of clips."""

  # Of all clips, with what people changed, and `labels` where they set some.
  rows: list[JSON]
  reasons: list[str]  # why each is dropped, '' of one that is not
  waiting: int  # how many nobody has looked at
  trimmed: int  # how many are kept in part
  corrected: int  # how many are kept with another caption


def key_of(row: Fields) -> Key:
  """Names a clip as it was shown."""
  return row['clip'], round(row['start'], _DIGITS), round(row['end'], _DIGITS)


def read_decisions(path: str | os.PathLike[str]) -> list[Decision]:
  """Reads decisions in their order, each id once; damaged lines are left out with a warning."""
  by_id: dict[str, Decision] = {}
  for decision, _ in read_json_lines(pathlib.Path(path), _parsed):
    by_id.setdefault(decision.id, decision)
  return list(by_id.values())


def review(
  rows: Sequence[Mapping[str, Any]], decisions: Sequence[Decision], undecided: str
) -> Reviewed:
  """Applies the decisions of reviewers; `undecided` is one of `settings.UNDECIDED`.

  Reads clip, start, end and caption of each row.
  """
  last = {decision.key: decision for decision in decisions}
  reviewed = []
  reasons = []
  trimmed = 0
  corrected = 0
  for row in rows:
    decision = last.get(key_of(row))
    if decision is None:
      reviewed.append({**row})
      reasons.append(UNSEEN if undecided == 'drop' else '')
      continue
    reviewed.append(_changed(row, decision))
    reasons.append('' if decision.keep else f'person: {decision.reason}')
    if decision.keep:
      trimmed += (reviewed[-1]['start'], reviewed[-1]['end']) != (row['start'], row['end'])
      corrected += reviewed[-1]['caption'] != row['caption']
  waiting = sum(key_of(row) not in last for row in rows)
  return Reviewed(reviewed, reasons, waiting, trimmed, corrected)


def _changed(row: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
  """Returns a row with its decision applied; ends that nobody moved keep their exact values."""
  edited = {**row}
  if decision.first != decision.start:
    edited['start'] = decision.first
  if decision.last != decision.end:
    edited['end'] = decision.last
  if decision.caption is not None:
    edited['caption'] = decision.caption
  if decision.labels:
    edited['labels'] = list(decision.labels)
  return edited


def _parsed(line: Any) -> Decision:
  try:
    return Decision(**(line | {'labels': tuple(line['labels'])}))
  except MgjaxError as error:
    raise ValueError(str(error)) from error
