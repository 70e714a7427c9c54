"""Compares the record of an evaluation with another one: differences, and how sure they are.

Where both have numbers of the same prompts the difference is paired: those of one prompt are
averaged, and `metrics.intervals.compare` resamples prompts. Elsewhere its interval is from those of
the two numbers, see `metrics.intervals.apart`.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, first_line, printable
from mgjax.core.files import WRONG, read_json
from mgjax.lab.statistics.intervals import apart, compare
from mgjax.lab.statistics.values import Value, bias_warning, plain

RECORDS = ('evaluation.json', 'evaluation/reconstruction.json')  # of a folder
# Settings that say which clips the numbers are of; no difference between models.
_DATA = ('clips', 'sounds', 'frames', 'height', 'width', 'seconds')
_ALL = ('judge', 'clip', 'reference', 'perceptual', 'scorer', 'suite')
_LETTERS = 80  # of a setting that are told
_MEND = 'name an evaluation.json, or a folder with one, that launch.evaluate wrote'


@dataclasses.dataclass(frozen=True)
class Other:
  """Another record, and the path where it was read."""

  path: pathlib.Path
  record: Fields


@dataclasses.dataclass(frozen=True)
class Change:
  """A number beside that of another record, and the interval of 95% of their difference.

  Attributes:
    other: the other's number, of `count` samples; 0 where that is not known.
    difference: of this one less the other's; of pairs the mean over the prompts of both.
    prompts: of how many it is paired; 0 where it is not.
    warning: what makes the difference less than it seems; '' where nothing does.
    wins: of pairs the share of prompts with a larger number here, equal ones a half, and the ends
      of its interval; () where nothing is paired.
  """

  other: float
  difference: float
  low: float
  high: float
  prompts: int = 0
  count: int = 0
  warning: str = ''
  wins: tuple[float, ...] = ()


def read_other(given: str | os.PathLike[str]) -> Other:
  """Reads the record to compare with, an evaluation.json or its folder, before the evaluation.

  Raises ConfigError if there is none, DataError if it is damaged, or no record of an evaluation.
  """
  path = pathlib.Path(given)
  if path.is_dir():
    places = [path / name for name in RECORDS if (path / name).is_file()]
    if not places:
      raise ConfigError(f'--against={path}: this folder has no {RECORDS[0]}; {_MEND}')
    path = places[0]
  elif not path.exists():
    raise ConfigError(f'--against={path}: there is no such file; {_MEND}')
  record = read_json(path, error=DataError, mend=_MEND)
  try:
    right = _is_record(record)
  except WRONG as wrong:
    raise DataError(f'{str(path)!r} is damaged ({first_line(wrong)}); {_MEND}') from None
  if not right:
    raise DataError(
      f'{str(path)!r} holds no numbers of an evaluation, as this version writes them; {_MEND}'
    )
  return Other(path, record)


def compare_records(record: Fields, other: Other) -> JSON:
  """Compares a record, as it is written, with another one of the same task, metric by metric.

  Returns plain JSON values: `path` of the other; `notes`, sentences on what differs beside the
  model; `metrics`, by name a `Change`.
  """
  notes, alike = _notes(record, other.record)
  changes = {}
  if record.get('task') == other.record.get('task', record.get('task')):
    for name, metric in record['measured']['metrics'].items():
      if (found := _change(record, other.record, name, metric, alike)) is not None:
        changes[name] = plain(found)
    if not changes:
      notes.append('The other record has none of these numbers, so nothing is compared.')
  return {'path': os.fspath(other.path), 'notes': notes, 'metrics': changes}


def _is_record(record: Fields) -> bool:
  """Whether it is one; raises what damaged JSON does where it is one that is damaged."""
  if 'measured' not in record:
    return False
  measured = record['measured']
  count = len(measured['samples'])
  words = all(isinstance(name, str) for name in measured['samples'])
  for name, metric in measured['metrics'].items():
    _value_of(metric)
    if len(metric['each']) not in (0, count):
      raise ValueError(f'{printable(name)[:40]} has not one number a sample')
    _numbers(metric['each'])
  return words and isinstance(record.get('seed', 0), int)


def _notes(ours: Fields, theirs: Fields) -> tuple[list[str], bool]:
  """Says what differs beside the models, and whether both are of the same clips."""
  task = ours.get('task')
  other = theirs.get('task', ours.get('task'))
  if task != other:
    told = printable(repr(other))
    return [
      f'The other record is of the task {told}, this one of {task!r}: their numbers cannot be '
      'compared.'
    ], False
  notes = []
  alike = True
  if 'seed' in ours and 'seed' in theirs and ours['seed'] != theirs['seed']:
    notes.append(
      f'The other record is of seed {theirs["seed"]}, this one of {ours["seed"]}: their samples '
      'begin with other noise, so pairs share the prompt alone.'
    )
  parts = {
    part: [each[part] if isinstance(each.get(part), Mapping) else {} for each in (ours, theirs)]
    for part in ('weights', 'settings')
  }
  for name in _DATA:
    mine, yours = (each.get(name) for each in parts['settings'])
    if mine != yours and None not in (mine, yours):
      alike = False
      notes.append(
        f'The other record is of {name} {printable(yours)}, this one of {printable(mine)}: '
        'differences are of the clips as well as of the models, and nothing is paired.'
      )
  for part, (mine, yours) in parts.items():
    for name in sorted((mine.keys() & yours.keys()) - {*_DATA, 'chosen'}):
      if mine[name] != yours[name]:
        said = (_word(each[name]) for each in (yours, mine))
        notes.append('{} {}: the other record has {}, this one {}.'.format(part, name, *said))
  for name in _ALL:
    if name in ours and name in theirs and ours[name] != theirs[name]:
      said = (_word(each[name] or 'none') for each in (theirs, ours))
      notes.append('{}: the other record has {}, this one {}.'.format(name, *said))
  mine, yours = (set(each['measured']['samples']) for each in (ours, theirs))
  if mine != yours:
    notes.append(
      f'Of {len(mine)} prompts of this record and {len(yours)} of the other {len(mine & yours)} '
      'are the same; where numbers are paired, it is over these.'
    )
  return notes, alike


def _change(
  ours: Fields,
  theirs: Fields,
  name: str,
  metric: Fields,
  alike: bool,
) -> Change | None:
  """One metric in both records; None where the other one has none."""
  there = theirs['measured']['metrics'].get(name)
  if there is None:
    return None
  mine, yours = _value_of(metric), _value_of(there)
  if not (math.isfinite(mine.value) and math.isfinite(yours.value)):
    return None
  warning = _biased(metric.get('label') or name, mine, yours)
  if alike and metric['mean']:
    both = ((theirs, there), (ours, metric))
    tables = [_by_prompt(each['measured']['samples'], found['each']) for each, found in both]
    shared = sorted(tables[0].keys() & tables[1].keys())
    if len(shared) > 1 and 2 * len(shared) >= min(map(len, tables)):
      first, second = ([table[prompt] for prompt in shared] for table in tables)
      # Of pairs that are all equal a resample says nothing.
      if first != second:
        found = compare([first], [second])
        return Change(
          yours.value,
          found.difference,
          found.low,
          found.high,
          len(shared),
          yours.count,
          warning,
          _wins(first, second),
        )
  low, high = apart((yours.value, yours.low, yours.high), (mine.value, mine.low, mine.high))
  return Change(yours.value, mine.value - yours.value, low, high, 0, yours.count, warning)


def _wins(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
  halves = [1.0 + (y > x) - (y < x) for x, y in zip(first, second, strict=True)]
  if len(set(halves)) == 1:  # of which a resample says nothing
    return halves[0] / 2, math.nan, math.nan
  found = compare([[0.0] * len(halves)], [[each / 2 for each in halves]])
  return found.difference, found.low, found.high


def _biased(name: str, mine: Value, yours: Value) -> str:
  """A warning where numbers that compare sets differ by what few samples make of them."""
  if not (mine.references or yours.references):
    return ''
  if warning := bias_warning(name, yours, mine):
    return warning
  if yours.count and (mine.count, mine.references) != (yours.count, yours.references):
    return (
      f'{name} is of {mine.count} and {mine.references} here and of {yours.count} and '
      f'{yours.references} there; fewer make it larger, so take as many'
    )
  return ''


def _by_prompt(samples: Sequence[str], each: Sequence[float | None]) -> dict[str, float]:
  """Prompt -> mean of its samples that have a number."""
  found: dict[str, list[float]] = {}
  for name, number in zip(samples, _numbers(each), strict=False):
    if math.isfinite(number):
      found.setdefault(name, []).append(number)
  return {name: math.fsum(numbers) / len(numbers) for name, numbers in found.items()}


def _numbers(each: Sequence[Any]) -> list[float]:
  return [math.nan if number is None else float(number) for number in each]


def _value_of(metric: Fields) -> Value:
  """A number of `measured` with its interval."""
  value, low, high = _numbers([metric['value'], metric.get('low'), metric.get('high')])
  count, references = (int(metric.get(name, 0)) for name in ('count', 'references'))
  return Value(value, low, high, count, (), references, float(metric.get('bias') or 0))


def _word(value: object) -> str:
  text = printable(value)
  return text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'
