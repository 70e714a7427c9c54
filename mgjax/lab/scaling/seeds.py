"""Arms of one budget compared by their seeds, as in an ablation (Movie Gen §3.6.2)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.settings import FURTHEST
from mgjax.lab.report.tables import aligned
from mgjax.lab.statistics.intervals import Interval

_LOSSES = ('validation_loss', 'validation_loss_raw')
_FEWEST = 2  # seeds of an arm


class Difference(NamedTuple):
  """Two arms beside each other.

  `spread` is the standard deviation of what one pair of seeds differs by, `count` the seeds.
  """

  means: tuple[float, float]
  interval: Interval
  spread: float
  count: int


def compare_seeds(
  rows: Sequence[Fields], first: str, second: str, confidence: float = 0.95
) -> dict[str, tuple[float, float, Interval]]:
  """Compares two arms by the losses and scores of their seeds: number -> both means, and b - a.

  Seeds that both have are pairs, which share their data's order and their noise; the interval is
  Student's of their differences. With other seeds it is Welch's.

  Raises:
    ConfigError: an arm is not there, or has one seed only.
    DataError: a row names no arm or no seed, or a loss or score is no finite number.
  """
  for number, row in enumerate(rows, 1):
    if missing := [name for name in ('arm', 'seed') if row.get(name) is None]:
      raise DataError(
        f'row {number} has no {missing[0]}, nor tokens or flops; arms of sizes are compared by '
        'their laws, others by their seeds: add the column'
      )
  numbers = {}
  for arm in (first, second):
    runs = runs_of(rows, arm)
    if len(runs) < _FEWEST:
      known = ', '.join(sorted({printable(str(row['arm']))[:80] for row in rows}))
      raise ConfigError(
        f'arm {printable(arm)!r:.80} has {len(runs)} runs; expected {_FEWEST} seeds at least, of '
        f'one of the arms {known}'
      )
    numbers[arm] = {seed: numbers_of(row) for seed, row in runs.items()}
  names = [
    name
    for name in next(iter(numbers[first].values()))
    if all(name in run for arm in numbers.values() for run in arm.values())
  ]
  compared = {}
  for name in names:
    arms = ({seed: runs[name] for seed, runs in numbers[arm].items()} for arm in (first, second))
    comparison = compare_numbers(*arms, confidence)
    compared[name] = *comparison.means, comparison.interval
  return compared


def describe_seeds(
  rows: Sequence[Fields], first: str, second: str, confidence: float = 0.95
) -> str:
  """Formats what `compare_seeds` finds as a table."""
  table = [('', first, second, f'{second} - {first}')]
  for name, (first_mean, second_mean, difference) in compare_seeds(
    rows, first, second, confidence
  ).items():
    table.append((name, f'{first_mean:.4f}', f'{second_mean:.4f}', str(difference)))
  counts = [len(runs_of(rows, arm)) for arm in (first, second)]
  note = f'{counts[0]} and {counts[1]} seeds; intervals of {confidence:.0%}'
  return '\n'.join([*aligned(table), note])


def rank_arms(rows: Sequence[Fields], score: str) -> list[tuple[str, dict[str, float]]]:
  """Returns (arm, seed -> number) by the mean of a number, the best arm first.

  Low losses and high scores are good. Raises ConfigError if fewer than two arms have the number,
  DataError if a value is no number.
  """
  named = dict.fromkeys(str(row['arm']) for row in rows if row.get('arm') is not None)
  numbers = {
    arm: {seed: numbers_of(row) for seed, row in runs_of(rows, arm).items()} for arm in named
  }
  scores = {
    arm: {seed: run[score] for seed, run in runs.items() if score in run}
    for arm, runs in numbers.items()
  }
  scores = {arm: seeds for arm, seeds in scores.items() if seeds}
  if len(scores) < 2:
    known = sorted({name for runs in numbers.values() for run in runs.values() for name in run})
    raise ConfigError(
      f'{len(scores)} of {len(named)} arms have a number {printable(score)!r:.80}; expected two at '
      f'least, and one of {", ".join(map(printable, known)) or "no numbers at all"}'
    )
  sign = 1 if score in _LOSSES else -1
  return sorted(scores.items(), key=lambda pair: sign * float(np.mean([*pair[1].values()])))


def describe_ranking(rows: Sequence[Mapping[str, Any]], score: str) -> str:
  """Formats the ranking of the arms, and in how many seeds each pair of neighbours agrees."""
  ranked = rank_arms(rows, score)
  sign = 1 if score in _LOSSES else -1
  table = [('', score, 'seeds', 'before the next one in')]
  in_order = None
  for rank, (arm, seeds) in enumerate(ranked):
    after = ranked[rank + 1][1] if rank + 1 < len(ranked) else {}
    agreement = ''
    if both := sorted(set(seeds) & set(after)):
      agreeing = {seed for seed in both if sign * seeds[seed] < sign * after[seed]}
      agreement = f'{len(agreeing)} of {len(both)} seeds'
      in_order = agreeing if in_order is None else in_order & agreeing
    values = ' '.join(f'{seeds[seed]:.4f}' for seed in sorted(seeds))
    table.append((arm, f'{np.mean([*seeds.values()]):.4f}', values, agreement))
  note = f'all of this order in {len(in_order or ())} of {max(len(s) for _, s in ranked)} seeds'
  return '\n'.join([*aligned(table), note])


def runs_of(rows: Sequence[Fields], arm: str) -> dict[str, Fields]:
  """Seed -> row, of an arm's runs that came to their end."""
  return {str(row['seed']): row for row in rows if row['arm'] == arm and not row.get('error')}


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
  """Returns the losses and scores of a run; a score with several numbers is their mean."""
  scores = row.get('scores') or {}
  losses = {name: row.get(name) for name in _LOSSES}
  if not isinstance(scores, Mapping):
    raise DataError(f'scores = {printable(scores)!r:.80}; expected an object of numbers')
  numbers = {}
  for name, value in {**losses, **scores}.items():
    if value is not None and name != 'samples':
      try:
        numbers[name] = float(np.mean(np.asarray(value, float)))
      except (TypeError, ValueError, OverflowError):
        numbers[name] = np.nan
      if not abs(numbers[name]) <= FURTHEST:
        raise DataError(f'{printable(name):.60} = {printable(value)!r:.60}; expected a number')
  return numbers


def compare_numbers(
  first: Mapping[Any, float], second: Mapping[Any, float], confidence: float = 0.95
) -> Difference:
  """Compares two arms by one number, seed -> number: in pairs for equal seeds, else by Welch."""
  before, after = (np.array([arm[seed] for seed in sorted(arm)]) for arm in (first, second))
  paired = set(first) == set(second)
  with warnings.catch_warnings():  # of pairs with one and the same difference: no width is right
    warnings.simplefilter('ignore', RuntimeWarning)
    if paired:
      test = stats.ttest_rel(after, before)
    else:
      test = stats.ttest_ind(after, before, equal_var=False)
  means = (float(before.mean()), float(after.mean()))
  ends = test.confidence_interval(confidence)
  value = means[1] - means[0]
  low, high = (value if np.isnan(end) else float(end) for end in ends)
  if paired:
    spread = (after - before).std(ddof=1)
  else:
    spread = np.hypot(before.std(ddof=1), after.std(ddof=1))
  return Difference(means, Interval(value, low, high), float(spread), min(len(before), len(after)))
