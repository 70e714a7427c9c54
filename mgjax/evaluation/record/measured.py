"""What an evaluation measured, sample by sample: the one form that records and their pages have.

An evaluation of whatever kind offers `Measured`. Its metrics then stand in the record with their
intervals, on the page with their best and worst samples, and in comparisons with other records. A
new metric needs a name there and nothing else.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.typing import Float, Int
from mgjax.evaluation.metrics.correlations import Correlation
from mgjax.evaluation.metrics.intervals import (
  Share,
  draw_shares,
  share_over_prompts,
)
from mgjax.evaluation.metrics.values import Value, mean_value, share_value
from mgjax.evaluation.suites.means import mean_of

EXTREMES = 4  # best and worst samples of each metric that are shown
SHOWN = 12  # samples that are shown whatever their numbers are
_RESAMPLES = 1000


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

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values, None for NaN."""
    told = self.value.as_dict()
    if self.share:
      told['each'] = [None if each is None else int(each) for each in told['each']]
    best, worst = self.extremes()
    beside = {name: number for name, number in self.beside.items() if math.isfinite(number)}
    return told | {
      'label': self.label, 'better': self.better, 'share': self.share, 'mean': self.mean,
      'beside': beside, 'best': best, 'worst': worst,
    }  # fmt: skip


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
  """

  metrics: Mapping[str, Metric]
  samples: Sequence[str] = ()
  groups: Mapping[str, Mapping[str, Value]] = dataclasses.field(default_factory=dict)
  sound: bool = False
  about: str = ''

  def shown(self, count: int = SHOWN) -> list[int]:
    """Returns the samples to show: some, evenly spread, and the best and worst of each metric."""
    return sorted({*self.spread(count), *self.extremes()})

  def extremes(self) -> set[int]:
    """Returns the best and worst samples of all metrics."""
    pairs = (metric.extremes() for metric in self.metrics.values())
    return {place for best, worst in pairs for place in (*best, *worst)}

  def spread(self, count: int = SHOWN) -> list[int]:
    """Returns samples of different prompts, evenly spread over them."""
    first = {name: place for place, name in reversed(list(enumerate(self.samples)))}
    places = sorted(first.values())
    count = min(count, len(places))
    return [places[place * len(places) // count] for place in range(count)]

  def _over_prompts(self, metric: Metric) -> Metric:
    """The metric with an interval over prompts, where several samples are of one."""
    each = np.asarray(metric.value.each, np.float64)
    there = np.flatnonzero(np.isfinite(each))
    prompts = [self.samples[place] for place in there] if metric.mean else []
    if not prompts or not 1 < len(set(prompts)) < len(prompts):
      return metric
    make = share_over_prompts if metric.share else mean_of
    found = make(each[there], prompts)
    value = dataclasses.replace(metric.value, low=found.low, high=found.high)
    return dataclasses.replace(metric, value=value)

  def as_dict(self, files: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Returns plain JSON values.

    Args:
      files: place of a sample -> the file that shows it, from the folder of the record.
    """
    groups = {
      group: {name: _interval(value) for name, value in values.items()}
      for group, values in self.groups.items()
    }
    return {
      'samples': list(self.samples),
      'spread': self.spread(),
      'files': {str(place): file for place, file in (files or {}).items()},
      'sound': self.sound,
      'about': self.about,
      'metrics': {
        name: self._over_prompts(metric).as_dict() for name, metric in self.metrics.items()
      },
      'groups': groups,
    }


def extremes(
  each: Sequence[float] | np.ndarray, better: int = 0, share: bool = False
) -> tuple[list[int], list[int]]:
  """Returns the best and the worst samples, the furthest first; no sample is both.

  Where neither is better they are the highest and the lowest. Of a share they are some that are
  right, and some that are wrong. Of equal numbers there are none.

  Args:
    each: a number a sample, NaN of a sample without one.
    better: see `Metric`.
    share: see `Metric`.
  """
  numbers = np.asarray(each, np.float64)
  there = np.flatnonzero(np.isfinite(numbers))
  values = (better or 1) * numbers[there]
  if share:
    middle = (better or 1) / 2
    best, worst = there[values > middle], there[values < middle]
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
  seed: int = 0,
  **options: Any,
) -> Metric:
  """Returns a number that is of all samples together and no mean of theirs.

  Its interval of 95% is a percentile bootstrap over samples.

  Args:
    each: what stands for each sample, to find the best and worst by.
    statistic: of the samples with these indices, which may come twice; NaN where it has none.
    label: see `Metric`.
    better: see `Metric`.
    seed: of the resamples.
    **options: fields of `Metric`.
  """
  count = len(each)
  number, low, high = float(statistic(np.arange(count))), math.nan, math.nan
  if count > 1 and math.isfinite(number):
    shares = draw_shares(np.random.default_rng(seed), _RESAMPLES, count)
    times = np.rint(shares * count).astype(int)
    drawn = np.array([statistic(np.repeat(np.arange(count), row)) for row in times])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975]).tolist()
  value = Value(number, low, high, count, tuple(np.asarray(each, np.float64).tolist()))
  return Metric(value, label, better, mean=False, **options)


def numbers_of(rows: Sequence[Mapping[str, float]], name: str) -> Float[np.ndarray, 'n']:
  """Returns one number of each row, NaN of a row without it."""
  return np.array([row.get(name, np.nan) for row in rows], np.float64)


def _interval(value: Value) -> dict[str, Any]:
  told = value.as_dict()
  return {name: told[name] for name in ('value', 'low', 'high', 'count')}
