"""Confidence intervals of differences between two arms and of shares.

Differences use a paired bootstrap over seeds and prompts. Seeds and prompts are crossed: each
trained model (a seed) is scored on the same prompts. Scores of one seed share the randomness of its
training, and scores of one prompt share its difficulty. They are not independent, so the bootstrap
resamples complete rows and complete columns.
"""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import scipy.stats

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import DataError, printable
from mgjax.core.typing import Float

FEWEST = 5  # independent numbers that an interval needs: extremes of fewer cover 0.875 at most
_BLOCK = 2**22  # numbers of a table of resampled prompts in memory at once
CONFIDENCE = 0.95  # of intervals
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)  # the quantiles at their ends
_Z = NormalDist().inv_cdf(ENDS[1])


@dataclasses.dataclass(frozen=True)
class Interval:
  """A number with the ends of its interval, NaN if it has none."""

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    """Formats it as 1.32 [1.25, 1.4], with four digits."""
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'


def central_interval(
  drawn: Any, confidence: float = CONFIDENCE, axis: int | None = None
) -> tuple[Any, Any]:
  """Returns the quantiles that enclose the central share `confidence` of the finite numbers."""
  low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=axis)
  return (low, high) if axis is not None else (float(low), float(high))


@dataclasses.dataclass(frozen=True)
class Difference:
  """The mean of a second arm minus that of a first one, with a confidence interval.

  Attributes:
    difference: of the means over seeds and prompts.
    low, high: ends of the interval.
    standard_error: standard deviation over the resamples.
    sign_probability: twice the smaller of the shares of resamples that are <= 0 and >= 0, at most
      1. It is small if the sign of the difference is clear.
    means: of the first arm and of the second.
    seeds: number of seeds of each arm.
    same_seeds: whether the seeds of both arms are paired.
  """

  difference: float
  low: float
  high: float
  standard_error: float
  sign_probability: float
  means: tuple[float, float]
  seeds: tuple[int, int]
  prompts: int
  same_seeds: bool

  def __str__(self) -> str:
    paired = 'paired' if self.same_seeds else 'not paired'
    return (
      f'{self.means[0]:.4g} -> {self.means[1]:.4g}: {self.difference:+.4g} '
      f'[{self.low:+.4g}, {self.high:+.4g}], 95% over '
      f'{" and ".join(map(str, dict.fromkeys(self.seeds)))} seeds ({paired}) and {self.prompts} '
      f'prompts, p = {self.sign_probability:.2g}'
    )


def compare(
  first: object, second: object, *, same_seeds: bool = True, resamples: int = 10_000, seed: int = 0
) -> Difference:
  """Compares the scores of two arms on the same prompts, by a crossed paired bootstrap.

  Let x (s p) be the scores of the first arm and y (r p) those of the second. Let u, w and v count
  how often a resample has each seed of x, each seed of y, and each prompt. Then

    D* = sum_ij w_i v_j y_ij / (r p) - sum_ij u_i v_j x_ij / (s p)

  u, w and v are independent draws with replacement, each as large as its set: the pigeonhole
  bootstrap (Owen 2007, Annals of Applied Statistics 1, 386). Both arms share v. With `same_seeds`,
  row i of both arms has the same seed, and w = u. The interval is from the quantiles 0.025 and
  0.975 of D* (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

  For paired differences d_ij = mu + a_i + b_j + e_ij the variance of the mean is A / s + B / p +
  E / (s p), and the variance of D* is on average

    (1 - 1/s) A / s + (1 - 1/p) B / p + ((2 - 1/s) (2 - 1/p) - 1) E / (s p)

  The interval is up to sqrt(3) times too wide if the residual noise e dominates, and too narrow if
  few seeds dominate: it cannot reach beyond the largest and smallest of them. So it covers a
  symmetric effect of s seeds in at most 1 - 2^(1 - s) of all cases, 0.75 for three seeds and 0.94
  for five. With one seed the result holds for that seed alone, and the interval is that of
  `percentile_interval` over prompts.

  Raises DataError if the scores do not pair, are not finite, or there is only one.
  """
  x, y = _table(first, 'first'), _table(second, 'second')
  if x.shape[1] != y.shape[1] or (same_seeds and len(x) != len(y)):
    raise DataError(
      f'scores of {x.shape} and {y.shape} seeds x prompts do not pair: both arms need the same '
      'prompts, and as many seeds unless same_seeds=False'
    )
  if max(len(x), len(y), x.shape[1]) < 2:
    raise DataError(
      'there is one score an arm, and nothing to resample; take more seeds or prompts'
    )
  generator = np.random.default_rng(seed)
  blocks = []
  block = max(_BLOCK // x.shape[1], 1)
  for begin in range(0, resamples, block):
    count = min(block, resamples - begin)
    u = draw_shares(generator, count, len(x))
    w = u if same_seeds else draw_shares(generator, count, len(y))
    v = draw_shares(generator, count, x.shape[1])
    # Subtracts before it sums, so that equal arms differ by exactly 0.
    rows = u @ (y - x) if same_seeds else w @ y - u @ x
    blocks.append((rows * v).sum(1))
  drawn = np.concatenate(blocks)
  single_seed = max(len(x), len(y)) == 1
  low, high = percentile_interval(drawn, x.shape[1]) if single_seed else central_interval(drawn)
  tails = np.mean(drawn <= 0), np.mean(drawn >= 0)
  means = float(x.mean()), float(y.mean())
  return Difference(
    difference=float((y - x).mean()) if same_seeds else means[1] - means[0],
    low=low,
    high=high,
    standard_error=float(drawn.std()),
    sign_probability=float(min(1.0, 2 * min(tails))),
    means=means,
    seeds=(len(x), len(y)),
    prompts=x.shape[1],
    same_seeds=same_seeds,
  )


def apart(
  first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
  """Returns the interval of the difference of two independent numbers from their own intervals.

  With numbers x [l, u] and y [m, v], whose ends are NaN if unknown,

    y - x - sqrt((y - m)^2 + (u - x)^2),  y - x + sqrt((v - y)^2 + (x - l)^2)

  This is the square-and-add method of Newcombe (1998, Statistics in Medicine 17, 873, method 10).
  With Wilson's intervals it also covers shares near 0 and 1.
  """
  (x, low_x, high_x), (y, low_y, high_y) = first, second
  return y - x - math.hypot(y - low_y, high_x - x), y - x + math.hypot(high_y - y, x - low_x)


def compare_rows(
  rows: Iterable[Fields],
  first: str,
  second: str,
  score: str,
  *,
  seeds: Sequence[int] | None = None,
  **options: object,
) -> Difference:
  """Compares two arms of a sweep by one of their scores, with the options of `compare`.

  Seeds are paired if both arms have the same ones, and independent if they share none.

  Args:
    rows: of `mgjax.lab.scaling.sweep.read_rows`.
    first, second: names of the arms.
    score: name among what the sweep's `evaluate` returned, a list with a number a prompt or one
      number; or of a number of the row itself, such as 'validation_loss'.
    seeds: seeds to compare; all by default.

  Raises:
    DataError: an arm has no such score, one of its runs failed, or they do not pair.
  """
  rows = list(rows)
  tables = [_scores(rows, arm, score, seeds) for arm in (first, second)]
  shared = tables[0].keys() & tables[1].keys()
  same = tables[0].keys() == tables[1].keys()
  if shared and not same:
    lacking = sorted((tables[0].keys() | tables[1].keys()) - shared)
    raise DataError(
      f'the arms {first!r} and {second!r} share the seeds {sorted(shared)} and not {lacking}; '
      'run those of both, or give seeds= that both have'
    )
  values = [[table[seed] for seed in sorted(table)] for table in tables]
  return compare(*values, same_seeds=same, **options)


def _scores(
  rows: Iterable[Fields], arm: str, score: str, seeds: Sequence[int] | None
) -> dict[int, Any]:
  """Returns seed -> scores of its prompts."""
  scores_by_seed = {}
  for row in rows:
    if row['arm'] != arm or (seeds is not None and row['seed'] not in seeds):
      continue
    if row.get('error'):
      raise DataError(
        f'the run of arm {arm!r}, seed {row["seed"]} failed and has no scores; to leave it out, '
        'give seeds= without it, for both arms'
      )
    value = {**row, **(row.get('scores') or {})}.get(score)
    if value is None:
      raise DataError(
        f'the run of arm {arm!r}, seed {row["seed"]} has no {score!r}; it has '
        f'{sorted(row.get("scores") or {})}'
      )
    scores_by_seed[row['seed']] = value if isinstance(value, list | tuple) else [value]
  if not scores_by_seed:
    selection = '' if seeds is None else f' of the seeds {list(seeds)}'
    raise DataError(
      f'there is no row of the arm {arm!r}{selection}; run it first, or mend its name'
    )
  return scores_by_seed


def _table(scores: object, name: str) -> Float[np.ndarray, 's p']:
  try:
    table = np.asarray(scores, np.float64)
  except (TypeError, ValueError):
    table = np.full((0, 0), np.nan)
  if table.ndim != 2 or not table.size or not np.isfinite(table).all():
    raise DataError(
      f'the {name} scores are {printable(repr(scores))[:80]}; expected finite numbers, a row a '
      'seed, with as many prompts in each'
    )
  return table


def draw_shares(generator: np.random.Generator, count: int, size: int) -> Float[np.ndarray, 'b n']:
  """Draws `size` of `size` items with replacement, `count` times; returns each item's share."""
  drawn = generator.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
  return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size) / size


def percentile_interval(
  drawn: Float[np.ndarray, 'n'], count: int, center: float = 0.0
) -> tuple[float, float]:
  """Returns the 95% interval from a statistic of resamples, each drawn from `count` numbers.

  Its ends are the quantiles a' and 1 - a' of `drawn`, plus `center`, with

    a' = Phi(-sqrt(n / (n - 1)) t_{n-1}(1 - a / 2)),   a = 0.05

  The quantiles a / 2 and 1 - a / 2 are too narrow for small n; a' corrects this (expanded
  percentiles: Hesterberg 2015, What Teachers Should Know about the Bootstrap, section 5.3). A
  resample cannot reach beyond the extremes, so fewer than `FEWEST` have no interval, but NaN. For
  means of normal numbers it covers at least 0.94. For skewed ones it covers less, such as 0.90 for
  exponential ones (`tests/lab/statistics/test_values.py`).
  """
  if count < FEWEST:
    return math.nan, math.nan
  tail = NormalDist().cdf(-_quantile(count) * math.sqrt(count / (count - 1)))
  low, high = center + np.quantile(drawn, [tail, 1 - tail])
  return float(low), float(high)


def _quantile(count: int) -> float:
  return float(scipy.stats.t.ppf(ENDS[1], count - 1))


@dataclasses.dataclass(frozen=True)
class Share(Interval):
  """The share of `count` independent samples that is right, with its interval.

  The ends are NaN for fewer than `FEWEST` independent samples.
  """

  count: int

  def __str__(self) -> str:
    if math.isnan(self.low):
      return f'{self.value:.3f} (n = {self.count})'
    return f'{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]'


def share(right: Sequence[bool] | np.ndarray) -> Share:
  """Returns the share that is right, with the score interval of Wilson (1927).

  With z the quantile 0.975 of the normal distribution, and p the share of n,

    (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

  It is no point where all or none are right, as that of a bootstrap would be. Fewer than
  `FEWEST` have no interval. Raises DataError if there are none.
  """
  if not len(right):
    raise DataError('there is nothing to take a share of; give one that was judged or more')
  n = len(right)
  p = float(np.mean(right))
  return Share(p, *(wilson_interval(p, n) if n >= FEWEST else (math.nan, math.nan)), n)


def share_over_prompts(right: Sequence[bool] | np.ndarray, prompts: Sequence[Hashable]) -> Share:
  """Returns the share that is right if prompts have several samples, which are not independent.

  It is Wilson's 95% interval with the effective sample size n' = p (1 - p) / V in place of n (Dean
  and Pagano 2015, Journal of Survey Statistics and Methodology 3, 484). With s_g of n_g samples
  right for prompt g, one of m,

    V = m / (m - 1) sum_g (s_g - p n_g)^2 / n^2,   1 <= n' <= n

  n' is multiplied by (z / t_{m-1}(0.975))^2, because V is estimated from m prompts (Korn and
  Graubard 1998, Survey Methodology 24, 193). If all or none are right, n' is m. Fewer than `FEWEST`
  prompts have no interval.
  """
  correct = np.asarray(right, np.float64)
  _, group = np.unique(np.asarray(prompts, dtype=object).astype(str), return_inverse=True)
  sums = np.bincount(group, correct)
  counts = np.bincount(group)
  n = len(correct)
  m = len(counts)
  p = float(correct.mean())
  if m < FEWEST:
    return Share(p, math.nan, math.nan, n)
  spread = m / (m - 1) * float(np.sum((sums - p * counts) ** 2)) / n**2
  effective_count = p * (1 - p) / spread if spread else float(m if p in (0, 1) else n)
  if p not in (0, 1):
    effective_count *= (_Z / _quantile(m)) ** 2
  return Share(p, *wilson_interval(p, min(max(effective_count, 1.0), n)), n)


def wilson_interval(p: float, n: float) -> tuple[float, float]:
  """Returns the ends of the interval of `share`, of a share p of n independent ones."""
  z = _Z
  middle = p + z * z / (2 * n)
  reach = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
  scale = 1 + z * z / n
  return max((middle - reach) / scale, 0.0), min((middle + reach) / scale, 1.0)
