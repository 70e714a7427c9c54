"""Means over videos with an interval over prompts: videos of one prompt are not independent."""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.evaluation.metrics.values import plain

_RESAMPLES, _CONFIDENCE = 2000, 0.95


@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean of numbers and between what the mean of many more prompts would be.

  Attributes:
    value: the mean; NaN of nothing.
    low: lower end of the interval of 95%; NaN of fewer than two prompts.
    high: its upper end.
    videos: how many have a number.
    prompts: how many different ones those are of.
  """

  value: float
  low: float
  high: float
  videos: int
  prompts: int

  def __str__(self) -> str:
    """Says it as 0.941 [0.9, 0.972], in four digits; without an interval where there is none."""
    if math.isnan(self.low):
      return f'{self.value:.4g}'
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'

  def as_dict(self) -> dict[str, float | int | None]:
    """Returns plain JSON values: null in place of NaN."""
    return plain(self)


def mean_of(values: Float[np.ndarray, 'n'], prompts: Sequence[Hashable], seed: int = 0) -> Mean:
  """Returns the mean of what is finite, with a percentile bootstrap over whole prompts.

  With sum s_g and count n_g of prompt g, and w_g how often a resample has it,

    mean* = sum_g w_g s_g / sum_g w_g n_g

  Args:
    values: one a video; NaN of what could not be measured.
    prompts: of each video, equal for those of one prompt.
    seed: of the resamples.

  Raises:
    DataError: there are not as many prompts as values.
  """
  if len(values) != len(prompts):
    raise DataError(f'{len(values)} numbers of {len(prompts)} prompts; give the prompt of each')
  kept = np.flatnonzero(np.isfinite(values)).tolist()
  places: dict[Hashable, int] = {}
  group = np.array([places.setdefault(prompts[each], len(places)) for each in kept], np.int64)
  if not kept:
    return Mean(math.nan, math.nan, math.nan, 0, 0)
  count = len(places)
  sums = np.bincount(group, np.asarray(values, np.float64)[kept], count)
  counts = np.bincount(group, minlength=count)
  low = high = math.nan
  if count > 1:
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    ends = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), ends).tolist()
  return Mean(float(sums.sum() / counts.sum()), low, high, len(kept), count)
