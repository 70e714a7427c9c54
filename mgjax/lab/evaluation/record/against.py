"""Compares the record of an evaluation with another one: differences with intervals.

If both have numbers of the same prompts, the difference is paired: the numbers of one prompt are
averaged, and `mgjax.lab.statistics.intervals.compare` resamples prompts. Otherwise its interval is
computed from those of the two numbers, see `mgjax.lab.statistics.intervals.apart`.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError, first_line, printable
from mgjax.core.files import WRONG, read_json
from mgjax.lab.statistics.intervals import apart, compare
from mgjax.lab.statistics.values import Value, bias_warning, plain

RECORDS = ('evaluation.json', 'evaluation/reconstruction.json')  # of a folder
# Settings of the data. They are no difference between models.
_DATA = ('clips', 'sounds', 'frames', 'height', 'width', 'seconds')
_ALL = ('judge', 'clip', 'reference', 'perceptual', 'scorer', 'suite')
_LETTERS = 80  # of a setting in a note
_MEND = 'name an evaluation.json, or a folder with one, that launch.evaluate wrote'


@dataclasses.dataclass(frozen=True)
class Other:
  """Another record, and the path that it was read from."""

  path: pathlib.Path
  record: Fields


@dataclasses.dataclass(frozen=True)
class Change:
  """The difference between a number and that of another record, with its 95% interval.

  Attributes:
    other: the other record's number, of `count` samples (0 if unknown).
    difference: this number minus the other; if paired, the mean over the shared prompts.
    prompts: number of paired prompts; 0 if the difference is not paired.
    warning: a caveat about the difference; '' if there is none.
    wins: if paired, the share of prompts with a larger number here, equal ones counting a half, and
      the ends of its interval; else ().
  """

  other: float
  difference: float
  low: float
  high: float
  prompts: int = 0
  count: int = 0
  warning: str = ''
  wins: tuple[float, ...] = ()


def read_other(location: str | os.PathLike[str]) -> Other:
  """Reads the record to compare with, an evaluation.json or its folder.

  Raises ConfigError if it does not exist, DataError if it is damaged or no record of an evaluation.
  """
  path = pathlib.Path(location)
  if path.is_dir():
    candidates = [path / name for name in RECORDS if (path / name).is_file()]
    if not candidates:
      raise ConfigError(f'--against={path}: this folder has no {RECORDS[0]}; {_MEND}')
    path = candidates[0]
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


def compare_records(record: Mapping[str, Any], other: Other) -> dict[str, Any]:
  """Compares a record in its written form with another one of the same task, metric by metric.

  Returns plain JSON values: `path` of the other record, `notes`, sentences on differences besides
  the model, and `metrics`, name -> `Change`.
  """
  notes, alike = _notes(record, other.record)
  changes = {}
  if record.get('task') == other.record.get('task', record.get('task')):
    for name, metric in record['measured']['metrics'].items():
      if (change := _change(record, other.record, name, metric, alike)) is not None:
        changes[name] = plain(change)
    if not changes:
      notes.append('The other record has none of these numbers, so nothing is compared.')
  return {'path': os.fspath(other.path), 'notes': notes, 'metrics': changes}


def _is_record(record: Mapping[str, Any]) -> bool:
  """Returns whether a value is a record; raises one of WRONG if it is a damaged record."""
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


def _notes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[list[str], bool]:
  """Returns notes on differences besides the models, and whether both are of the same clips."""
  task = ours.get('task')
  other = theirs.get('task', ours.get('task'))
  if task != other:
    other_task = printable(repr(other))
    return [
      f'The other record is of the task {other_task}, this one of {task!r}: their numbers cannot '
      'be compared.'
    ], False
  notes = []
  alike = True
  if 'seed' in ours and 'seed' in theirs and ours['seed'] != theirs['seed']:
    notes.append(
      f'The other record is of seed {theirs["seed"]}, this one of {ours["seed"]}: their samples '
      'begin with other noise, so pairs share the prompt alone.'
    )
  parts = {
    part: [
      record[part] if isinstance(record.get(part), Mapping) else {} for record in (ours, theirs)
    ]
    for part in ('weights', 'settings')
  }
  for name in _DATA:
    mine, yours = (settings.get(name) for settings in parts['settings'])
    if mine != yours and None not in (mine, yours):
      alike = False
      notes.append(
        f'The other record is of {name} {printable(yours)}, this one of {printable(mine)}: '
        'differences are of the clips as well as of the models, and nothing is paired.'
      )
  for part, (mine, yours) in parts.items():
    for name in sorted((mine.keys() & yours.keys()) - {*_DATA, 'chosen'}):
      if mine[name] != yours[name]:
        values = (_word(fields[name]) for fields in (yours, mine))
        notes.append('{} {}: the other record has {}, this one {}.'.format(part, name, *values))
  for name in _ALL:
    if name in ours and name in theirs and ours[name] != theirs[name]:
      values = (_word(record[name] or 'none') for record in (theirs, ours))
      notes.append('{}: the other record has {}, this one {}.'.format(name, *values))
  mine, yours = (set(record['measured']['samples']) for record in (ours, theirs))
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
  """Returns the change of one metric; None if the other record lacks it."""
  their_metric = theirs['measured']['metrics'].get(name)
  if their_metric is None:
    return None
  mine, yours = _value_of(metric), _value_of(their_metric)
  if not (math.isfinite(mine.value) and math.isfinite(yours.value)):
    return None
  warning = _biased(metric.get('label') or name, mine, yours)
  if alike and metric['mean']:
    sides = ((theirs, their_metric), (ours, metric))
    tables = [
      _by_prompt(record['measured']['samples'], side_metric['each'])
      for record, side_metric in sides
    ]
    shared = sorted(tables[0].keys() & tables[1].keys())
    if len(shared) > 1 and 2 * len(shared) >= min(map(len, tables)):
      first, second = ([table[prompt] for prompt in shared] for table in tables)
      # Resamples of equal pairs have no spread.
      if first != second:
        difference = compare([first], [second])
        return Change(
          yours.value,
          difference.difference,
          difference.low,
          difference.high,
          len(shared),
          yours.count,
          warning,
          _wins(first, second),
        )
  low, high = apart((yours.value, yours.low, yours.high), (mine.value, mine.low, mine.high))
  return Change(yours.value, mine.value - yours.value, low, high, 0, yours.count, warning)


def _wins(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
  halves = [1.0 + (y > x) - (y < x) for x, y in zip(first, second, strict=True)]
  if len(set(halves)) == 1:  # resamples have no spread
    return halves[0] / 2, math.nan, math.nan
  difference = compare([[0.0] * len(halves)], [[half / 2 for half in halves]])
  return difference.difference, difference.low, difference.high


def _biased(name: str, mine: Value, yours: Value) -> str:
  """Returns a warning if numbers that compare sets differ by no more than their bias, or ''."""
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


def _by_prompt(samples: Sequence[str], numbers: Sequence[float | None]) -> dict[str, float]:
  """Returns prompt -> mean of its samples that have a number."""
  numbers_by_prompt: dict[str, list[float]] = {}
  for name, number in zip(samples, _numbers(numbers), strict=False):
    if math.isfinite(number):
      numbers_by_prompt.setdefault(name, []).append(number)
  return {name: math.fsum(numbers) / len(numbers) for name, numbers in numbers_by_prompt.items()}


def _numbers(values: Sequence[Any]) -> list[float]:
  return [math.nan if number is None else float(number) for number in values]


def _value_of(metric: Mapping[str, Any]) -> Value:
  """Returns a number of `measured` with its interval."""
  value, low, high = _numbers([metric['value'], metric.get('low'), metric.get('high')])
  count, references = (int(metric.get(name, 0)) for name in ('count', 'references'))
  return Value(value, low, high, count, (), references, float(metric.get('bias') or 0))


def _word(value: object) -> str:
  text = printable(value)
  return text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'
