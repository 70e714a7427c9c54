"""How sure differences between two arms are, and shares of one.

Of differences it is a paired bootstrap over seeds and prompts. Seeds and prompts are crossed: each
trained model, a seed, is scored on the same prompts. Scores of one seed share what its training
happened to become, scores of one prompt how hard that is, so neither are independent numbers, and
what is resampled are whole rows and whole columns.
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

FEWEST = 5  # independent numbers that have an interval: extremes of fewer cover .875 at most
_BLOCK = 2**22  # numbers of a table of resampled prompts that are in memory at once
CONFIDENCE = 0.95  # of intervals
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)  # the quantiles at their ends
_Z = NormalDist().inv_cdf(ENDS[1])


@dataclasses.dataclass(frozen=True)
class Interval:
  """A number with the ends of its interval, which are NaN where it has none."""

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    """Says it as 1.32 [1.25, 1.4], in four digits."""
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'


def central_interval(
  drawn: Any, confidence: float = CONFIDENCE, axis: int | None = None
) -> tuple[Any, Any]:
  """Returns the quantiles that hold the share `confidence` of the finite numbers between them.

  There are as many numbers below them as above.
  """
  low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=axis)
  return (low, high) if axis is not None else (float(low), float(high))


@dataclasses.dataclass(frozen=True)
class Difference:
  """The mean of a second arm less that of a first one, and how sure it is.

  Attributes:
    difference: of the means over seeds and prompts.
    low, high: ends of the interval.
    standard_error: standard deviation over the resamples.
    sign_probability: twice the smaller of the shares of resamples that are <= 0 and >= 0, at most
      1: small where the difference would hardly be on the other side of 0.
    means: of the first arm and of the second.
    seeds: how many each arm has.
    same_seeds: whether seeds are pairs.
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

  With scores x (s p) of the first arm, y (r p) of the second, and counts u, w, v of how often a
  resample has each seed of x, each seed of y, and each prompt,

    D* = sum_ij w_i v_j y_ij / (r p) - sum_ij u_i v_j x_ij / (s p)

  u, w and v are independent draws with replacement of as many as there are: the pigeonhole
  bootstrap (Owen 2007, Annals of Applied Statistics 1, 386). Both arms have the same v, and where
  seeds are pairs, as `same_seeds` says of rows of one place, w = u. The interval of 95% is from the
  quantiles .025 and .975 of D* (Efron and Tibshirani 1993, An Introduction to the
  Bootstrap, chapter 13).

  Of paired differences d_ij = mu + a_i + b_j + e_ij the variance of the mean is A / s + B / p + E /
  (s p), and that of D* on average

    (1 - 1/s) A / s + (1 - 1/p) B / p + ((2 - 1/s) (2 - 1/p) - 1) E / (s p)

  so it is too wide where noise that belongs to neither decides, up to sqrt(3) times, and too narrow
  where few seeds do: their interval cannot reach beyond the largest and smallest of them, and so
  covers a symmetric effect of s seeds in 1 - 2^(1 - s) of all cases at most, .75 of 3 seeds and .94
  of 5. With one seed it speaks of that seed alone, and the interval is
  that of `percentile_interval` over prompts.

  Raises DataError if the scores do not pair, are not finite, or there is one only.
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
  found = []
  block = max(_BLOCK // x.shape[1], 1)
  for begin in range(0, resamples, block):
    count = min(block, resamples - begin)
    u = draw_shares(generator, count, len(x))
    w = u if same_seeds else draw_shares(generator, count, len(y))
    v = draw_shares(generator, count, x.shape[1])
    # The difference before the sum: arms that are equal differ by 0 and not by a rounding.
    rows = u @ (y - x) if same_seeds else w @ y - u @ x
    found.append((rows * v).sum(1))
  drawn = np.concatenate(found)
  alone = max(len(x), len(y)) == 1
  low, high = percentile_interval(drawn, x.shape[1]) if alone else central_interval(drawn)
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

  With numbers x [l, u] and y [m, v], ends NaN where they are not known,

    y - x - sqrt((y - m)^2 + (u - x)^2),  y - x + sqrt((v - y)^2 + (x - l)^2)

  the square-and-add of Newcombe (1998, Statistics in Medicine 17, 873, method 10), which with
  Wilson's intervals covers shares near 0 and 1 as well.
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

  Seeds are pairs where both arms have the same ones, and independent where they share none.

  Args:
    rows: of `mgjax.lab.scaling.sweep.read_rows`.
    first, second: names of the arms.
    score: name among what the sweep's `evaluate` returned, a list with a number a prompt or one
      number; or of a number of the row itself, such as 'validation_loss'.
    seeds: which of them count; all by default.

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
  """Seed -> scores of its prompts."""
  found = {}
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
    found[row['seed']] = value if isinstance(value, list | tuple) else [value]
  if not found:
    asked = '' if seeds is None else f' of the seeds {list(seeds)}'
    raise DataError(f'there is no row of the arm {arm!r}{asked}; run it first, or mend its name')
  return found


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
  """Returns the share that each of `size` things has when as many are drawn, `count` times."""
  drawn = generator.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
  return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size) / size


def percentile_interval(
  drawn: Float[np.ndarray, 'n'], count: int, center: float = 0.0
) -> tuple[float, float]:
  """Returns the interval of 95% from a statistic of resamples, each of `count` drawn from as many.

  Its ends are the quantiles a' and 1 - a' of what was drawn, plus `center`, with

    a' = Phi(-sqrt(n / (n - 1)) t_{n-1}(1 - a / 2)),   a = .05

  which makes up for what the quantiles a / 2 are too narrow by where there are few (expanded
  percentiles: Hesterberg 2015, What Teachers Should Know about the Bootstrap, section 5.3). A
  resample cannot reach beyond the extremes, so fewer than `FEWEST` have no interval, but NaN. Of
  means of 8 to 27 normal numbers it covers .94 to .95; of skewed ones less, as .90 to .92 of
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
  """The share that is right of `count` independent ones, and between what that of all would be.

  The ends are NaN where fewer than `FEWEST` are independent.
  """

  count: int

  def __str__(self) -> str:
    if math.isnan(self.low):
      return f'{self.value:.3f} (n = {self.count})'
    return f'{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]'


def share(right: Sequence[bool] | np.ndarray) -> Share:
  """Returns the share that is right, with the score interval of Wilson (1927).

  With z the quantile .975 of the normal distribution, and p the share of n,

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
  """Returns the share that is right where several are of one prompt, which are not independent.

  It is Wilson's interval of 95% with n' = p (1 - p) / V in place of n, as many independent ones as
  these are worth (Dean and Pagano 2015, Journal of Survey Statistics and Methodology 3, 484). With
  s_g right of n_g of prompt g, one of m,

    V = m / (m - 1) sum_g (s_g - p n_g)^2 / n^2,   1 <= n' <= n

  and times (z / t_{m-1}(.975))^2, for V is known from m prompts alone (Korn and Graubard 1998,
  Survey Methodology 24, 193). Where all or none are right n' is m. Fewer than `FEWEST` prompts have
  no interval.
  """
  each = np.asarray(right, np.float64)
  _, group = np.unique(np.asarray(prompts, dtype=object).astype(str), return_inverse=True)
  sums = np.bincount(group, each)
  counts = np.bincount(group)
  n = len(each)
  m = len(counts)
  p = float(each.mean())
  if m < FEWEST:
    return Share(p, math.nan, math.nan, n)
  spread = m / (m - 1) * float(np.sum((sums - p * counts) ** 2)) / n**2
  worth = p * (1 - p) / spread if spread else float(m if p in (0, 1) else n)
  if p not in (0, 1):
    worth *= (_Z / _quantile(m)) ** 2
  return Share(p, *wilson_interval(p, min(max(worth, 1.0), n)), n)


def wilson_interval(p: float, n: float) -> tuple[float, float]:
  """Returns the ends of the interval of `share`, of a share p of n independent ones."""
  z = _Z
  middle = p + z * z / (2 * n)
  reach = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
  scale = 1 + z * z / n
  return max((middle - reach) / scale, 0.0), min((middle + reach) / scale, 1.0)
