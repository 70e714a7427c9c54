"""A metric's number with its interval and its count of samples, and how both are found.

Of a metric that is a mean of one number a clip the interval is a bootstrap over clips. Of one that
compares two sets, such as the Frechet distance, it is from random halves: a resample with
replacement holds clips twice, which is nearer to itself than any true sample is, and so moves such
numbers; halves hold each clip once, and say how much the number depends on how many there are too.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import numpy as np
import scipy.stats

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError
from mgjax.core.typing import Float, Int
from mgjax.lab.statistics.intervals import (
  ENDS,
  FEWEST,
  Interval,
  draw_shares,
  percentile_interval,
  share,
)

SPLITS = 25  # into halves
_RESAMPLES = 2000
_BLOCK = 2**22  # numbers in memory at once
_MOSTLY = 0.5  # of a number, from which on its bias is what it mostly says


@dataclasses.dataclass(frozen=True)
class Value(Interval):
  """A metric of some clips; NaN where there is nothing to measure.

  Attributes:
    low, high: ends of the interval of 95%; NaN of fewer clips than `FEWEST`.
    count: of clips that it was measured on.
    each: of a mean the number of every clip, in their order, NaN of one without; else empty.
    references: of a comparison of two sets, the clips of the other one.
    bias: of a comparison, by how much the number is larger than it would be of infinitely many
      samples, from what it is of n and of n / 2; negative where it is smaller.
    infinite: whether the number comes nearer to its limit with 1 / n, so that it is `value - bias`.
    warning: what is to be known before the number is believed; '' where there is nothing.
  """

  count: int
  each: tuple[float, ...] = ()
  references: int = 0
  bias: float = 0.0
  infinite: bool = False
  warning: str = ''

  @property
  def limit(self) -> tuple[float, float, float]:
    """What infinitely many samples would give, and its interval; NaN where that is not known."""
    if not self.infinite:
      return (math.nan,) * 3
    return self.value - self.bias, self.low - self.bias, self.high - self.bias

  def __str__(self) -> str:
    """Says it as 12.3 [10.1, 14.5] (n = 100; 8.2 [6, 10.4] of infinitely many)."""
    samples = f'n = {self.count}' + (f' and {self.references}' if self.references else '')
    if self.infinite:
      value, low, high = self.limit
      samples += f'; {value:.4g} [{low:.4g}, {high:.4g}] of infinitely many'
    if math.isnan(self.low):
      return f'{self.value:.4g} ({samples})'
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] ({samples})'

  def as_dict(self) -> JSON:
    """Returns plain JSON values, None for NaN."""
    return plain(self) | {'limit': plain(self.limit)}


def mean_value(each: Sequence[float] | np.ndarray, seed: int = 0) -> Value:
  """Returns the mean of one number a clip, with a bootstrap over clips.

  Numbers that are not finite do not count. The interval is that of `percentile_interval`.
  """
  values = np.asarray(each, np.float64)
  there = values[np.isfinite(values)]
  kept = tuple(values.tolist())
  count = len(there)
  if count < FEWEST:
    return Value(float(there.mean()) if count else math.nan, math.nan, math.nan, count, kept)
  generator = np.random.default_rng(seed)
  block = max(_BLOCK // count, 1)
  drawn = np.concatenate(
    [
      draw_shares(generator, min(block, _RESAMPLES - begin), count) @ (there - there.mean())
      for begin in range(0, _RESAMPLES, block)
    ]
  )
  mean = float(there.mean())
  return Value(mean, *percentile_interval(drawn, count, mean), count, kept)


def share_value(right: Sequence[bool | float] | np.ndarray) -> Value:
  """Returns the share of clips that are right, see `share`; NaN does not count."""
  each = np.asarray(right, np.float64)
  found = share(each[np.isfinite(each)] > 0)
  return Value(found.value, found.low, found.high, found.count, tuple(each.tolist()))


@dataclasses.dataclass(frozen=True)
class Mean(Interval):
  """A mean (NaN of nothing) with an interval of 95% over prompts (NaN of fewer than `FEWEST`)."""

  videos: int
  prompts: int

  def __str__(self) -> str:
    """Says it as 0.941 [0.9, 0.972], in four digits; of too few prompts as 0.941 (n = 3)."""
    if math.isnan(self.low):
      return f'{self.value:.4g} (n = {self.prompts})'
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'

  def as_dict(self) -> dict[str, float | int | None]:
    """Returns plain JSON values: null in place of NaN."""
    return plain(self)


def finite_mean(numbers: Iterable[float]) -> float:
  """Returns the mean of those that are finite; NaN where none is."""
  values = np.array(list(numbers))
  there = values[np.isfinite(values)]
  return float(there.mean()) if there.size else math.nan


def mean_of(values: Float[np.ndarray, 'n'], prompts: Sequence[Hashable], seed: int = 0) -> Mean:
  """Returns the mean of what is finite, with a bootstrap over whole prompts.

  With sum s_g and count n_g of prompt g, and w_g how often a resample has it,

    mean* = sum_g w_g s_g / sum_g w_g n_g

  There is one value a video, and its prompt. The interval is that of `percentile_interval`.
  """
  kept = np.flatnonzero(np.isfinite(values)).tolist()
  places: dict[Hashable, int] = {}
  group = np.array([places.setdefault(prompts[each], len(places)) for each in kept], np.int64)
  if not kept:
    return Mean(math.nan, math.nan, math.nan, 0, 0)
  count = len(places)
  sums = np.bincount(group, np.asarray(values, np.float64)[kept], count)
  counts = np.bincount(group, minlength=count)
  generator = np.random.default_rng(seed)
  drawn = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
  ends = percentile_interval((drawn @ sums) / (drawn @ counts), count)
  return Mean(float(sums.sum() / counts.sum()), *ends, len(kept), count)


def set_values(
  statistic: Callable[[Int[np.ndarray, '_'], Int[np.ndarray, '_']], Sequence[float]],
  counts: tuple[int, int],
  infinite: bool = True,
  splits: int = SPLITS,
  seed: int = 0,
) -> list[Value]:
  """Measures numbers that compare a set of n clips with one of m, and how sure they are.

  Both sets are cut at random into two halves, K times; of F the number of all, A_k and B_k those of
  the halves,

    bias = mean_k (A_k + B_k) / 2 - F,   deviation^2 = mean_k (A_k - B_k)^2 / 4

  The first is c / n where F is F_inf + c / n (Chong and Forsyth 2020, Effectively Unbiased FID and
  Inception Score, with the sizes n and n / 2 and both sets). The second is the variance of F where
  it is as good as linear in the clips, and more than that where it is not, as between equal sets.
  The interval is F +- t deviation, t a quantile of Student's distribution with K degrees.

  Args:
    statistic: of indices of clips of the first set and of the second to numbers.
    counts: n and m.
    infinite: whether the numbers go to their limit with 1 / n.

  Raises:
    DataError: a set has fewer than four clips.
  """
  if min(counts) < 4:
    raise DataError(
      f'sets of {counts[0]} and {counts[1]} clips cannot be compared: their halves need two each; '
      'give four or more of both'
    )
  generator = np.random.default_rng(seed)
  whole = np.asarray(statistic(*(np.arange(count) for count in counts)), np.float64)
  halves = np.empty((splits, 2, len(whole)))
  for each in halves:
    orders = [generator.permutation(count) for count in counts]
    # The larger half of an odd number goes to either side in turn of chance.
    cuts = [(count + generator.integers(2)) // 2 for count in counts]
    each[0] = statistic(*(np.sort(order[:cut]) for order, cut in zip(orders, cuts, strict=True)))
    each[1] = statistic(*(np.sort(order[cut:]) for order, cut in zip(orders, cuts, strict=True)))
  bias = halves.mean((0, 1)) - whole
  deviation = np.sqrt(np.square(halves[:, 0] - halves[:, 1]).mean(0)) / 2
  reach = scipy.stats.t.ppf(ENDS[1], splits) * deviation
  found = []
  for value, away, by in zip(whole.tolist(), reach.tolist(), bias.tolist(), strict=True):
    warning = ''
    if infinite and by > _MOSTLY * abs(value):
      warning = (
        f'{by:.4g} of {value:.4g} is there because the samples are few ({counts[0]} and '
        f'{counts[1]}); take more, or look at the extrapolation'
      )
    ends = value - away, value + away
    found.append(Value(value, *ends, counts[0], (), counts[1], by, infinite, warning))
  return found


def unmeasured(count: int, references: int, warning: str) -> Value:
  """Returns the value of a metric that this many clips do not have, and why."""
  return Value(*(math.nan,) * 3, count, references=references, warning=warning)


def bias_warning(name: str, first: Value, second: Value) -> str:
  """Says that values with the same references differ by less than their bias; else ''."""
  apart = abs(second.value - first.value)
  bias = max(abs(first.bias), abs(second.bias))
  if not apart < bias:
    return ''
  return (
    f'{name} differs by {apart:.4g} ({first.value:.4g} and {second.value:.4g}), less than the '
    f'{bias:.4g} by which few samples ({first.count} and {second.count}) move it; take more'
  )


def plain(value: object) -> object:
  """Returns plain JSON values: objects of dataclasses, None for what is not finite."""
  if dataclasses.is_dataclass(value):
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
  if isinstance(value, Mapping):
    return {name: plain(each) for name, each in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [plain(each) for each in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and not math.isfinite(value) else value
