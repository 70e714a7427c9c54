"""`Measured`: the numbers of an evaluation, whatever was evaluated.

A judge returns it and renders nothing: `Measured.as_dict` stands in the record, and
`mgjax.lab.report.evaluation_page` makes the page and the printed table of it. A metric that a judge
adds, by a name alone, is in all of these and in comparisons with other records.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.typing import Float, Int
from mgjax.lab.report.evaluation_page import printed
from mgjax.lab.statistics.correlations import Correlation
from mgjax.lab.statistics.intervals import (
  FEWEST,
  Share,
  draw_shares,
  percentile_interval,
  share_over_prompts,
)
from mgjax.lab.statistics.values import Value, mean_of, mean_value, plain, share_value

EXTREMES = 4  # best and worst samples of each metric that are shown
SHOWN = 12  # samples that are shown whatever their numbers are
_RESAMPLES = 1000
_ENDS = ('value', 'low', 'high', 'count')  # that the record has of a group's number
_EVERY = 16  # samples after which those are let go that are neither among the best nor the worst


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number of an evaluation.

  Attributes:
    value: with its interval; its `each` has one number a sample, NaN of a sample that has none, or
      is empty where the metric has none at all.
    label: how people call it; the name if ''.
    better: 1 where more is better, -1 where less is, 0 where it depends on what is asked for.
    share: whether `each` says of a sample that it is right (1) or wrong (0).
    beside: what it is to be compared with, such as that of real clips: name -> number.
    mean: whether the value is the mean of `each`, so that two records can be compared in pairs.
    shown: whether its best and worst samples are shown.
  """

  value: Value
  label: str = ''
  better: int = 0
  share: bool = False
  beside: Mapping[str, float] = dataclasses.field(default_factory=dict)
  mean: bool = True
  shown: bool = True

  def extremes(self) -> tuple[list[int], list[int]]:
    """Returns its best and worst samples, see `extremes`; none where they are not shown."""
    return extremes(self.value.each, self.better, self.share) if self.shown else ([], [])

  def as_dict(self) -> JSON:
    """Returns plain JSON values, None for NaN."""
    told = self.value.as_dict()
    if self.share:
      told['each'] = [None if each is None else int(each) for each in told['each']]
    best, worst = self.extremes()
    beside = {name: number for name, number in self.beside.items() if math.isfinite(number)}
    return told | {
      'label': self.label,
      'better': self.better,
      'share': self.share,
      'mean': self.mean,
      'beside': beside,
      'best': best,
      'worst': worst,
    }


@dataclasses.dataclass(frozen=True)
class Measured:
  """All numbers of an evaluation.

  Attributes:
    metrics: by name: where the number stands in the record, as 'alignment/all', so that records
      without `Measured` can be compared with it too.
    samples: what each sample is of, such as its prompt; equal for samples of one prompt.
    groups: of some samples, such as those of a tag: name -> metric -> its value of these.
    sound: whether samples are to be heard.
    about: what a sample shows, from left to right; '' where it is the model's alone.
    record: what the record holds beside `as_dict`; made plain JSON values, see `plain`.
    notes: lines for people, below the table.
  """

  metrics: Mapping[str, Metric]
  samples: Sequence[str] = ()
  groups: Mapping[str, Mapping[str, Value]] = dataclasses.field(default_factory=dict)
  sound: bool = False
  about: str = ''
  record: Fields = dataclasses.field(default_factory=dict)
  notes: Sequence[str] = ()

  def __post_init__(self):
    object.__setattr__(self, 'record', plain(self.record))

  def shown(self, count: int = SHOWN) -> list[int]:
    """Returns the samples to show: some, evenly spread, and the best and worst of each metric."""
    ends = (place for metric in self.metrics.values() for end in metric.extremes() for place in end)
    return sorted({*spread(self.samples, count), *ends})

  def _over_prompts(self, metric: Metric) -> Metric:
    """The metric with an interval over prompts, where several samples are of one."""
    each = np.asarray(metric.value.each, np.float64)
    there = np.flatnonzero(np.isfinite(each))
    prompts = [self.samples[place] for place in there] if metric.mean else []
    if len(set(prompts)) == len(prompts):
      return metric
    make = share_over_prompts if metric.share else mean_of
    found = make(each[there], prompts)
    warning = metric.value.warning
    if (captions := len(set(prompts))) < FEWEST:
      warning = f'an interval needs {FEWEST} captions, not {captions}'
    value = dataclasses.replace(metric.value, low=found.low, high=found.high, warning=warning)
    return dataclasses.replace(metric, value=value)

  def as_dict(self, files: Mapping[int, str] | None = None) -> JSON:
    """Returns plain JSON values; `files` are place of a sample -> file in the record's folder."""
    groups = {}
    for group, values in self.groups.items():
      told = {name: value.as_dict() for name, value in values.items()}
      groups[group] = {name: {end: each[end] for end in _ENDS} for name, each in told.items()}
    return {
      'samples': list(self.samples),
      'spread': spread(self.samples),
      'files': {str(place): file for place, file in (files or {}).items()},
      'sound': self.sound,
      'about': self.about,
      'metrics': {
        name: self._over_prompts(metric).as_dict() for name, metric in self.metrics.items()
      },
      'groups': groups,
    }


def spread(names: Sequence[str], count: int = SHOWN) -> list[int]:
  """Returns places of different names, such as prompts, evenly spread over them."""
  first = {name: place for place, name in reversed(list(enumerate(names)))}
  places = sorted(first.values())
  count = min(count, len(places))
  return [places[place * len(places) // count] for place in range(count)]


def extremes(
  each: Sequence[float] | np.ndarray, better: int = 0, share: bool = False
) -> tuple[list[int], list[int]]:
  """Returns the best and the worst samples, the furthest first; no sample is both.

  Where neither is better they are the highest and the lowest. Of a share they are some that are
  right, and some that are wrong. Of equal numbers there are none. A sample without a number has
  NaN; `better` and `share` are those of `Metric`.
  """
  numbers = np.asarray(each, np.float64)
  there = np.flatnonzero(np.isfinite(numbers))
  values = (better or 1) * numbers[there]
  if share:
    middle = (better or 1) / 2
    best = there[values > middle]
    worst = there[values < middle]
  elif not len(there) or np.ptp(values) == 0:
    return [], []
  else:
    best = there[np.argsort(-values, kind='stable')]
    worst = there[np.argsort(values, kind='stable')]
  chosen = best[:EXTREMES].tolist()
  return chosen, [place for place in worst[:EXTREMES].tolist() if place not in chosen]


def mean_metric(
  each: Sequence[float] | np.ndarray, label: str = '', better: int = 0, **options: Any
) -> Metric:
  """Returns a mean of one number a sample, see `mean_value`; `options` are fields of `Metric`."""
  return Metric(mean_value(each), label, better, **options)


def share_metric(
  right: Sequence[bool | float] | np.ndarray, label: str = '', better: int = 1, **options: Any
) -> Metric:
  """Returns a share of samples with the interval of Wilson; NaN where a sample does not count."""
  return Metric(share_value(right), label, better, share=True, **options)


def number_metric(
  number: float, count: int = 0, label: str = '', better: int = 0, **options: Any
) -> Metric:
  """Returns a number of which no interval is known."""
  value = Value(number, math.nan, math.nan, count)
  return Metric(value, label, better, mean=False, **options)


def found_metric(
  found: Share | Correlation, label: str = '', better: int = 0, **options: Any
) -> Metric:
  """Returns what has an interval already, and no number a sample."""
  value = Value(found.value, found.low, found.high, found.count)
  return Metric(value, label, better, mean=False, **options)


def pooled_metric(
  each: Sequence[float] | np.ndarray,
  statistic: Callable[[Int[np.ndarray, '_']], float],
  label: str = '',
  better: int = 0,
  **options: Any,
) -> Metric:
  """Returns a number that is of all samples together and no mean of theirs.

  `statistic` is of the samples with these indices, which may come twice; NaN where it has none. The
  interval of 95% is a bootstrap over samples, see `percentile_interval`; the best and worst are
  found by `each`.
  """
  count = len(each)
  number = float(statistic(np.arange(count)))
  low = math.nan
  high = math.nan
  if count >= FEWEST and math.isfinite(number):
    shares = draw_shares(np.random.default_rng(0), _RESAMPLES, count)
    times = np.rint(shares * count).astype(int)
    drawn = np.array([statistic(np.repeat(np.arange(count), row)) for row in times])
    low, high = percentile_interval(drawn[np.isfinite(drawn)], count)
  value = Value(number, low, high, count, tuple(np.asarray(each, np.float64).tolist()))
  return Metric(value, label, better, mean=False, **options)


def numbers_of(rows: Sequence[Mapping[str, float]], name: str) -> Float[np.ndarray, 'n']:
  """Returns one number of each row, NaN of a row without it."""
  return np.array([row.get(name, np.nan) for row in rows], np.float64)


def table_of(measured: Measured) -> str:
  """Formats an evaluation's numbers for people: a row a metric, then one a group, then notes."""
  return '\n'.join([*printed(measured.as_dict()), *measured.notes])


class Furthest:
  """Keeps the best and the worst samples by each metric, and some others; lets go of the rest."""

  def __init__(self, better: Mapping[str, int], always: Collection[int] = ()):
    """Takes metric -> 1 where more is better, -1 where less is; and places that stay."""
    self.kept: dict[int, Any] = {}
    self._better, self._always = better, always

  def add(self, sample: object, rows: Sequence[Mapping[str, float]]) -> None:
    """Adds a sample, given the numbers of all samples so far, its own last."""
    self.kept[len(rows) - 1] = sample
    if len(rows) % _EVERY == 1:
      self.let_go(rows)

  def let_go(self, rows: Sequence[Mapping[str, float]]) -> None:
    """Lets those go that are no longer among the best or the worst."""
    found = (extremes(numbers_of(rows, name), better) for name, better in self._better.items())
    wanted = {place for best, worst in found for place in (*best, *worst)} | {*self._always}
    self.kept = {place: sample for place, sample in self.kept.items() if place in wanted}


def standard_means(
  rows: Sequence[Mapping[str, float]], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
  """Returns the 'mean' over rows and its 'standard_error', None of a single one, by name."""
  found = {}
  for name in names:
    values = np.array([row[name] for row in rows if name in row])
    if len(values):
      error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
      found[name] = {'mean': float(values.mean()), 'standard_error': error}
  return found
