"""`Measured`: the numbers of any evaluation.

Judges return it and render nothing. The record holds `Measured.as_dict`, and
`mgjax.lab.report.evaluation_page` makes the page and the printed table from it. A new metric of a
judge appears by its name in all of these, and in comparisons with other records.
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

EXTREMES = 4  # best and worst samples of each metric to show
SHOWN = 12  # samples to show whatever their numbers are
_RESAMPLES = 1000
_ENDS = ('value', 'low', 'high', 'count')  # fields of a group's number in the record
_EVERY = 16  # samples after which `Furthest` drops those that are no extremes


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number of an evaluation.

  Attributes:
    value: with its interval; its `each` has one number a sample, NaN for a sample without one, or
      is empty if samples have no numbers.
    label: in tables and charts; '' for the name.
    better: 1 if more is better, -1 if less is better, 0 if it depends on the request.
    share: whether `each` marks samples as right (1) or wrong (0).
    beside: numbers to compare with, such as that of real clips: name -> number.
    mean: whether the value is the mean of `each`, so that two records can be compared in pairs.
    show_extremes: whether to show its best and worst samples.
  """

  value: Value
  label: str = ''
  better: int = 0
  share: bool = False
  beside: Mapping[str, float] = dataclasses.field(default_factory=dict)
  mean: bool = True
  show_extremes: bool = True

  def extremes(self) -> tuple[list[int], list[int]]:
    """Returns its best and worst samples, see `extremes`; none without `show_extremes`."""
    return extremes(self.value.each, self.better, self.share) if self.show_extremes else ([], [])

  def as_dict(self) -> JSON:
    """Returns plain JSON values, None for NaN."""
    fields = self.value.as_dict()
    if self.share:
      fields['each'] = [None if number is None else int(number) for number in fields['each']]
    best, worst = self.extremes()
    beside = {name: number for name, number in self.beside.items() if math.isfinite(number)}
    return fields | {
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
    metrics: by name, the path of the number in the record, such as 'alignment/all', so that records
      without `Measured` can be compared with it too.
    samples: names of samples, such as their prompts; equal for samples of one prompt.
    groups: values on subsets of samples, such as those of a tag: name -> metric -> value.
    sound: whether samples have audio.
    about: what a sample shows, from left to right; '' if it shows the model's output alone.
    record: what the record holds beside `as_dict`; converted to plain JSON values, see `plain`.
    notes: lines below the table.
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

  def samples_to_show(self, count: int = SHOWN) -> list[int]:
    """Returns the samples to show: some evenly spread ones, and the extremes of each metric."""
    ends = (index for metric in self.metrics.values() for end in metric.extremes() for index in end)
    return sorted({*spread(self.samples, count), *ends})

  def _over_prompts(self, metric: Metric) -> Metric:
    """Returns the metric with an interval over prompts, if prompts have several samples."""
    numbers = np.asarray(metric.value.each, np.float64)
    finite = np.flatnonzero(np.isfinite(numbers))
    prompts = [self.samples[index] for index in finite] if metric.mean else []
    if len(set(prompts)) == len(prompts):
      return metric
    make = share_over_prompts if metric.share else mean_of
    interval = make(numbers[finite], prompts)
    warning = metric.value.warning
    if (captions := len(set(prompts))) < FEWEST:
      warning = f'an interval needs {FEWEST} captions, not {captions}'
    value = dataclasses.replace(metric.value, low=interval.low, high=interval.high, warning=warning)
    return dataclasses.replace(metric, value=value)

  def as_dict(self, files: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Returns plain JSON values; `files` are index of a sample -> file in the record's folder."""
    groups = {}
    for group, values in self.groups.items():
      numbers = {name: value.as_dict() for name, value in values.items()}
      groups[group] = {
        name: {end: number[end] for end in _ENDS} for name, number in numbers.items()
      }
    return {
      'samples': list(self.samples),
      'spread': spread(self.samples),
      'files': {str(index): file for index, file in (files or {}).items()},
      'sound': self.sound,
      'about': self.about,
      'metrics': {
        name: self._over_prompts(metric).as_dict() for name, metric in self.metrics.items()
      },
      'groups': groups,
    }


def spread(names: Sequence[str], count: int = SHOWN) -> list[int]:
  """Returns indices of different names, such as prompts, evenly spread over them."""
  first = {name: index for index, name in reversed(list(enumerate(names)))}
  indices = sorted(first.values())
  count = min(count, len(indices))
  return [indices[index * len(indices) // count] for index in range(count)]


def extremes(
  scores: Sequence[float] | np.ndarray, better: int = 0, share: bool = False
) -> tuple[list[int], list[int]]:
  """Returns the best and the worst samples, the most extreme first; no sample is both.

  With `better = 0` they are the highest and the lowest. For a share they are some right and some
  wrong samples. Equal numbers have no extremes. A sample without a number has NaN; `better` and
  `share` are those of `Metric`.
  """
  numbers = np.asarray(scores, np.float64)
  finite = np.flatnonzero(np.isfinite(numbers))
  values = (better or 1) * numbers[finite]
  if share:
    middle = (better or 1) / 2
    best = finite[values > middle]
    worst = finite[values < middle]
  elif not len(finite) or np.ptp(values) == 0:
    return [], []
  else:
    best = finite[np.argsort(-values, kind='stable')]
    worst = finite[np.argsort(values, kind='stable')]
  chosen = best[:EXTREMES].tolist()
  return chosen, [index for index in worst[:EXTREMES].tolist() if index not in chosen]


def mean_metric(
  values: Sequence[float] | np.ndarray, label: str = '', better: int = 0, **options: Any
) -> Metric:
  """Returns a mean of one number a sample, see `mean_value`; `options` are fields of `Metric`."""
  return Metric(mean_value(values), label, better, **options)


def share_metric(
  right: Sequence[bool | float] | np.ndarray, label: str = '', better: int = 1, **options: Any
) -> Metric:
  """Returns a share of samples with Wilson's interval; samples with NaN are ignored."""
  return Metric(share_value(right), label, better, share=True, **options)


def number_metric(
  number: float, count: int = 0, label: str = '', better: int = 0, **options: Any
) -> Metric:
  """Returns a metric without an interval."""
  value = Value(number, math.nan, math.nan, count)
  return Metric(value, label, better, mean=False, **options)


def estimate_metric(
  estimate: Share | Correlation, label: str = '', better: int = 0, **options: Any
) -> Metric:
  """Returns a metric of an estimate with an interval, without numbers of samples."""
  value = Value(estimate.value, estimate.low, estimate.high, estimate.count)
  return Metric(value, label, better, mean=False, **options)


def pooled_metric(
  per_sample: Sequence[float] | np.ndarray,
  statistic: Callable[[Int[np.ndarray, '_']], float],
  label: str = '',
  better: int = 0,
  **options: Any,
) -> Metric:
  """Returns a metric of all samples together that is no mean over samples.

  `statistic` maps indices of samples, which may repeat, to a number, NaN if undefined. The 95%
  interval is a bootstrap over samples, see `percentile_interval`. `per_sample` decides which
  samples are the best and the worst.
  """
  count = len(per_sample)
  number = float(statistic(np.arange(count)))
  low = math.nan
  high = math.nan
  if count >= FEWEST and math.isfinite(number):
    shares = draw_shares(np.random.default_rng(0), _RESAMPLES, count)
    times = np.rint(shares * count).astype(int)
    drawn = np.array([statistic(np.repeat(np.arange(count), row)) for row in times])
    low, high = percentile_interval(drawn[np.isfinite(drawn)], count)
  value = Value(number, low, high, count, tuple(np.asarray(per_sample, np.float64).tolist()))
  return Metric(value, label, better, mean=False, **options)


def numbers_of(rows: Sequence[Mapping[str, float]], name: str) -> Float[np.ndarray, 'n']:
  """Returns one number of each row, NaN for a row without it."""
  return np.array([row.get(name, np.nan) for row in rows], np.float64)


def table_of(measured: Measured) -> str:
  """Formats an evaluation's numbers as text: a row a metric, a row a group, then the notes."""
  return '\n'.join([*printed(measured.as_dict()), *measured.notes])


class Furthest:
  """Keeps the best and the worst samples by each metric, and some others; drops the rest."""

  def __init__(self, better: Mapping[str, int], always: Collection[int] = ()):
    """Takes metric -> 1 if more is better, -1 if less is; and indices of samples to keep."""
    self.kept: dict[int, Any] = {}
    self._better = better
    self._always = always

  def add(self, sample: Any, rows: Sequence[Mapping[str, float]]) -> None:
    """Adds a sample; `rows` are the numbers of all samples so far, its own last."""
    self.kept[len(rows) - 1] = sample
    if len(rows) % _EVERY == 1:
      self.let_go(rows)

  def let_go(self, rows: Sequence[Mapping[str, float]]) -> None:
    """Drops samples that are no longer among the best or the worst."""
    ends = (extremes(numbers_of(rows, name), better) for name, better in self._better.items())
    remaining = {index for best, worst in ends for index in (*best, *worst)} | {*self._always}
    self.kept = {index: sample for index, sample in self.kept.items() if index in remaining}


def standard_means(
  rows: Sequence[Mapping[str, float]], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
  """Returns by name the 'mean' over rows and its 'standard_error', None for a single row."""
  means = {}
  for name in names:
    values = np.array([row[name] for row in rows if name in row])
    if len(values):
      error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
      means[name] = {'mean': float(values.mean()), 'standard_error': error}
  return means
