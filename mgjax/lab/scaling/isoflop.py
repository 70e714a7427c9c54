"""IsoFLOP curves: of each budget a parabola through its runs, and a power law through the minima.

The second approach of Hoffmann et al. (2022), which Llama 3 and Movie Gen §3.6 use. Without any
noise it is biased if a grid is wide or off its minimum. For the law of Hoffmann et al. the size is
5.8% too large at 2.4 decades; the exponent is right. `parametric.py` has no such bias.
"""

import dataclasses
import math

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.settings import Count, Positive, arguments
from mgjax.core.typing import Float, Int

FEWEST = 3  # runs of a parabola, and budgets of a power law less one
_SAME = 0.05  # budgets that differ by less, as a logarithm, are one


@dataclasses.dataclass(frozen=True)
class Minimum:
  """The best size of a budget C (FLOPs, the mean of the runs'), by a parabola in log N.

  `inside`: whether runs lie on both sides; outside of them it is a guess. `curvature` is that of
  the parabola by (log N)^2, above 0.
  """

  compute: float
  size: float
  loss: float
  inside: bool
  curvature: float

  def at(self, size: Float[np.ndarray, '_'] | float) -> Float[np.ndarray, '_'] | float:
    """Returns the loss of a size on the parabola."""
    return self.loss + self.curvature * np.log(size / self.size) ** 2


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """y = factor x^exponent."""

  factor: float
  exponent: float

  def __call__(self, x: float) -> float:
    """Returns y; infinity where a law of few runs, drawn again, is steeper than numbers go."""
    try:
      return self.factor * x**self.exponent
    except OverflowError:
      return math.inf


def group_budgets(compute: Float[np.ndarray, 'r']) -> Int[np.ndarray, 'r']:
  """Numbers the budgets of runs, the smallest first; runs of one budget differ by 5% at most."""
  order = np.argsort(compute, kind='stable')
  steps = np.diff(np.log(np.asarray(compute, np.float64)[order])) > _SAME
  numbers = np.empty(len(order), np.int64)
  numbers[order] = np.concatenate([[0], np.cumsum(steps)])
  return numbers


def find_minima(
  compute: Float[np.ndarray, 'r'], size: Float[np.ndarray, 'r'], loss: Float[np.ndarray, 'r']
) -> list[Minimum]:
  """Fits L = c0 + c1 (log N) + c2 (log N)^2 to the runs of each budget, by least squares.

  Returns one for each budget whose parabola has a minimum, the smallest budget first. Raises
  DataError if no budget has three sizes and a minimum.
  """
  minima = []
  budgets = group_budgets(compute)
  for budget in range(budgets.max() + 1):
    runs = budgets == budget
    if (parabola := _parabola(size[runs], loss[runs])) is not None:
      at = float(np.exp(np.log(np.asarray(compute, np.float64)[runs]).mean()))
      minima.append(dataclasses.replace(parabola, compute=at))
  if not minima:
    raise DataError(
      f'none of {budgets.max() + 1} budgets has a minimum; expected {FEWEST} sizes or more in '
      'each, on both sides of the best one'
    )
  return minima


def resample_minima(
  compute: Float[np.ndarray, 'r'],
  size: Float[np.ndarray, 'r'],
  loss: Float[np.ndarray, 'r'],
  *,
  resamples: Positive = 200,
  seed: Count = 0,
) -> list[list[Minimum | None]]:
  """Finds the minima again with resampled residuals.

  For every run a residual is drawn from those of all budgets: log L = log L_parabola + residual.
  Residuals are scaled to the size of the noise by sqrt(n / (n - 3)) for the n runs of a budget,
  since the parabola has three constants. Returns for each draw the minima of the budgets that
  `find_minima` has, None where a draw has no minimum.
  """
  arguments(
    resample_minima,
    {'resamples': resamples, 'seed': seed},
    'resample_minima',
    ('compute', 'size', 'loss'),
  )
  minima = find_minima(compute, size, loss)
  budgets = group_budgets(compute)
  sizes = []
  residuals = []
  fitted = []
  for budget in range(budgets.max() + 1):
    runs = budgets == budget
    if _parabola(size[runs], loss[runs]) is None:
      continue
    x = np.log(size[runs])
    y = np.polyval(np.polyfit(x - x.mean(), loss[runs], 2), x - x.mean())
    free = len(x) - FEWEST
    sizes.append(size[runs])
    fitted.append(y)
    residuals.append(np.log(loss[runs] / y) * math.sqrt(len(x) / free) if free else np.empty(0))
  pool = np.concatenate([*residuals, -np.concatenate(residuals)])  # noise has no sign
  pool = pool if len(pool) else np.zeros(1)  # three runs a budget do not tell their noise
  generator = np.random.default_rng(seed)
  return [
    [
      None
      if (parabola := _parabola(x, y * np.exp(generator.choice(pool, len(y))))) is None
      else dataclasses.replace(parabola, compute=minimum.compute)
      for minimum, x, y in zip(minima, sizes, fitted, strict=True)
    ]
    for _ in range(resamples)
  ]


def _parabola(size: Float[np.ndarray, 'r'], loss: Float[np.ndarray, 'r']) -> Minimum | None:
  """The minimum of the parabola through runs of one budget, whose compute is left at 0."""
  x = np.log(np.asarray(size, np.float64))
  y = np.asarray(loss, np.float64)
  if len(np.unique(x)) < FEWEST:
    return None
  middle = x.mean()
  c2, c1, c0 = np.polyfit(x - middle, y, 2)
  if c2 <= 0:
    return None
  best = -c1 / (2 * c2)
  inside = bool(x.min() < best + middle < x.max())
  return Minimum(0.0, math.exp(best + middle), float(c0 + best * c1 / 2), inside, float(c2))


def fit_power(x: Float[np.ndarray, 'b'], y: Float[np.ndarray, 'b']) -> PowerLaw:
  """Fits log y = log factor + exponent log x by least squares, as N*(C) = A C^alpha."""
  if len(x) < FEWEST - 1:
    raise DataError(f'{len(x)} minima; expected {FEWEST - 1} at least for a power law')
  across = np.log(np.asarray(x, np.float64))
  middle = across.mean()
  exponent, start = np.polyfit(across - middle, np.log(np.asarray(y, np.float64)), 1)
  return PowerLaw(float(np.exp(start - exponent * middle)), float(exponent))
