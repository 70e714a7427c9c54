"""Values of metrics with their intervals and counts of samples, and how to compute them.

The interval of a mean of one number a clip is a bootstrap over clips. That of a comparison of two
sets, such as the Frechet distance, is from random halves. A resample with replacement holds clips
twice. It is nearer to itself than any true sample is, which moves such numbers. Halves hold each
clip once, and also show how the number depends on the number of clips.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

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
_MOSTLY = 0.5  # share of a value from which on its bias dominates it


@dataclasses.dataclass(frozen=True)
class Value(Interval):
  """A metric of some clips; NaN if there is nothing to measure.

  Attributes:
    low, high: ends of the 95% interval; NaN for fewer clips than `FEWEST`.
    count: number of clips that were measured.
    each: for a mean, the number of every clip in order, NaN for a clip without one; else empty.
    references: for a comparison of two sets, the number of clips of the other set.
    bias: for a comparison, the excess of the value over that of infinitely many samples, estimated
      from n and n / 2 clips; negative if the value is too small.
    infinite: whether the value approaches its limit `value - bias` with 1 / n.
    warning: a caveat about the value; '' if there is none.
  """

  count: int
  each: tuple[float, ...] = ()
  references: int = 0
  bias: float = 0.0
  infinite: bool = False
  warning: str = ''

  @property
  def limit(self) -> tuple[float, float, float]:
    """The value of infinitely many samples, and its interval; NaN if unknown."""
    if not self.infinite:
      return (math.nan,) * 3
    return self.value - self.bias, self.low - self.bias, self.high - self.bias

  def __str__(self) -> str:
    """Formats it as 12.3 [10.1, 14.5] (n = 100; 8.2 [6, 10.4] of infinitely many)."""
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


def mean_value(numbers: Sequence[float] | np.ndarray, seed: int = 0) -> Value:
  """Returns the mean of one number a clip, with a bootstrap over clips.

  Non-finite numbers are ignored. The interval is that of `percentile_interval`.
  """
  values = np.asarray(numbers, np.float64)
  finite = values[np.isfinite(values)]
  per_clip = tuple(values.tolist())
  count = len(finite)
  if count < FEWEST:
    return Value(float(finite.mean()) if count else math.nan, math.nan, math.nan, count, per_clip)
  generator = np.random.default_rng(seed)
  block = max(_BLOCK // count, 1)
  drawn = np.concatenate(
    [
      draw_shares(generator, min(block, _RESAMPLES - begin), count) @ (finite - finite.mean())
      for begin in range(0, _RESAMPLES, block)
    ]
  )
  mean = float(finite.mean())
  return Value(mean, *percentile_interval(drawn, count, mean), count, per_clip)


def share_value(right: Sequence[bool | float] | np.ndarray) -> Value:
  """Returns the share of clips that are right, see `share`; NaN is ignored."""
  correct = np.asarray(right, np.float64)
  estimate = share(correct[np.isfinite(correct)] > 0)
  return Value(estimate.value, estimate.low, estimate.high, estimate.count, tuple(correct.tolist()))


@dataclasses.dataclass(frozen=True)
class Mean(Interval):
  """A mean (NaN if empty) with a 95% interval over prompts (NaN for fewer than `FEWEST`)."""

  videos: int
  prompts: int

  def __str__(self) -> str:
    """Formats it as 0.941 [0.9, 0.972], or as 0.941 (n = 3) for too few prompts."""
    if math.isnan(self.low):
      return f'{self.value:.4g} (n = {self.prompts})'
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'

  def as_dict(self) -> dict[str, float | int | None]:
    """Returns plain JSON values, null for NaN."""
    return plain(self)


def finite_mean(numbers: Iterable[float]) -> float:
  """Returns the mean of the finite numbers; NaN if there are none."""
  values = np.array(list(numbers))
  finite = values[np.isfinite(values)]
  return float(finite.mean()) if finite.size else math.nan


def mean_of(values: Float[np.ndarray, 'n'], prompts: Sequence[Hashable], seed: int = 0) -> Mean:
  """Returns the mean of the finite values, with a bootstrap over prompts.

  `values` and `prompts` have one entry a video. With sum s_g and count n_g of prompt g, and w_g how
  often a resample has it,

    mean* = sum_g w_g s_g / sum_g w_g n_g

  The interval is that of `percentile_interval`.
  """
  finite = np.flatnonzero(np.isfinite(values)).tolist()
  group_of_prompt: dict[Hashable, int] = {}
  group = np.array(
    [group_of_prompt.setdefault(prompts[index], len(group_of_prompt)) for index in finite], np.int64
  )
  if not finite:
    return Mean(math.nan, math.nan, math.nan, 0, 0)
  count = len(group_of_prompt)
  sums = np.bincount(group, np.asarray(values, np.float64)[finite], count)
  counts = np.bincount(group, minlength=count)
  generator = np.random.default_rng(seed)
  drawn = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
  ends = percentile_interval((drawn @ sums) / (drawn @ counts), count)
  return Mean(float(sums.sum() / counts.sum()), *ends, len(finite), count)


def set_values(
  statistic: Callable[[Int[np.ndarray, '_'], Int[np.ndarray, '_']], Sequence[float]],
  counts: tuple[int, int],
  infinite: bool = True,
  splits: int = SPLITS,
  seed: int = 0,
) -> list[Value]:
  """Measures statistics that compare a set of n clips with one of m, with intervals and biases.

  Both sets are cut at random into two halves, K times. With F the statistic of all clips, and A_k
  and B_k those of the halves,

    bias = mean_k (A_k + B_k) / 2 - F,   deviation^2 = mean_k (A_k - B_k)^2 / 4

  The bias is c / n if F is F_inf + c / n (Chong and Forsyth 2020, Effectively Unbiased FID and
  Inception Score, with the sizes n and n / 2 and both sets). The squared deviation is the variance
  of F if F is nearly linear in the clips. It is larger if F is not, as between equal sets. The
  interval is F +- t deviation, with t a quantile of Student's distribution with K degrees of
  freedom.

  Args:
    statistic: maps indices of clips of the first set and of the second to numbers.
    counts: n and m.
    infinite: whether the numbers approach their limit with 1 / n.

  Raises:
    DataError: a set has fewer than four clips.
  """
  if min(counts) < 4:
    raise DataError(
      f'sets of {counts[0]} and {counts[1]} clips cannot be compared: their halves need two each; '
      'give four or more of both'
    )
  generator = np.random.default_rng(seed)
  full = np.asarray(statistic(*(np.arange(count) for count in counts)), np.float64)
  halves = np.empty((splits, 2, len(full)))
  for pair in halves:
    orders = [generator.permutation(count) for count in counts]
    # For an odd count a random side gets the larger half.
    cuts = [(count + generator.integers(2)) // 2 for count in counts]
    pair[0] = statistic(*(np.sort(order[:cut]) for order, cut in zip(orders, cuts, strict=True)))
    pair[1] = statistic(*(np.sort(order[cut:]) for order, cut in zip(orders, cuts, strict=True)))
  bias = halves.mean((0, 1)) - full
  deviation = np.sqrt(np.square(halves[:, 0] - halves[:, 1]).mean(0)) / 2
  reach = scipy.stats.t.ppf(ENDS[1], splits) * deviation
  values = []
  for value, margin, shift in zip(full.tolist(), reach.tolist(), bias.tolist(), strict=True):
    warning = ''
    if infinite and shift > _MOSTLY * abs(value):
      warning = (
        f'{shift:.4g} of {value:.4g} is there because the samples are few ({counts[0]} and '
        f'{counts[1]}); take more, or look at the extrapolation'
      )
    ends = value - margin, value + margin
    values.append(Value(value, *ends, counts[0], (), counts[1], shift, infinite, warning))
  return values


def unmeasured(count: int, references: int, warning: str) -> Value:
  """Returns a NaN value for a metric that cannot be measured on so few clips, with the reason."""
  return Value(*(math.nan,) * 3, count, references=references, warning=warning)


def bias_warning(name: str, first: Value, second: Value) -> str:
  """Returns a warning if values with the same references differ by less than their bias, or ''."""
  apart = abs(second.value - first.value)
  bias = max(abs(first.bias), abs(second.bias))
  if not apart < bias:
    return ''
  return (
    f'{name} differs by {apart:.4g} ({first.value:.4g} and {second.value:.4g}), less than the '
    f'{bias:.4g} by which few samples ({first.count} and {second.count}) move it; take more'
  )


def plain(value: Any) -> Any:
  """Returns plain JSON values: objects for dataclasses, None for non-finite numbers."""
  if dataclasses.is_dataclass(value):
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
  if isinstance(value, Mapping):
    return {name: plain(item) for name, item in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [plain(item) for item in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and not math.isfinite(value) else value
