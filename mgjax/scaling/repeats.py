"""The law where data are repeated: tokens seen again, and parameters beyond the data, count less.

Muennighoff et al. (2023): with U distinct tokens, of which D were seen, R = D / U - 1 times again,

  L = E + A / N'^alpha + B / D'^beta,  D' = U + U R_D* (1 - exp(-R / R_D*))

and N' of N likewise, with R_N* and with U_N, the size of which U tokens are the best data, in U's
place. For text they found R_D* = 15.4 and R_N* = 5.3.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from scipy.optimize import least_squares

from mgjax.core.errors import DataError
from mgjax.core.settings import Count, Range
from mgjax.core.typing import Float
from mgjax.scaling.comparison import Interval
from mgjax.scaling.law import FLOPS, Above0, Law
from mgjax.scaling.parametric import DELTA, Runs, fit_law

FEWEST = 3  # runs that repeat their data
_STARTS = (1.0, 4.0, 16.0, 64.0)  # of R_D*
_BOUNDS = (1e-2, 1e4)  # of R_D* and R_N*
Each = Float[np.ndarray, '_']


@dataclasses.dataclass(frozen=True)
class RepeatedLaw:
  """A law, and what repeated tokens and parameters beyond the data are worth.

  Attributes:
    law: of fresh data.
    tokens: R_D*: how often data can be seen again before that brings little.
    size: R_N*, None where parameters beyond the data count in full.
  """

  law: Law
  tokens: Above0
  size: Above0 | None = None

  def loss(self, size: Each | float, tokens: Each | float, unique: Each | float) -> Each | float:
    """Returns L(N, D, U).

    Args:
      size: N.
      tokens: D, those that are seen again counted each time.
      unique: how many distinct ones there are.
    """
    first = np.minimum(tokens, unique)
    if self.size is not None:
      law = self.law
      # Of the best sizes alpha A / N^alpha = beta B / D^beta.
      share = (law.alpha * law.a / (law.beta * law.b)) ** (1 / law.alpha)
      suited = np.minimum(size, share * first ** (law.beta / law.alpha))
      size = effective(size, suited, self.size)
    return self.law.loss(size, effective(tokens, first, self.tokens))


@dataclasses.dataclass(frozen=True)
class RepeatedFit:
  """A law of repeated data and how it fits.

  Attributes:
    law: the constants.
    residuals: log L - log L_predicted, of every run.
    at_edge: whether R_D* or R_N* ended where the search ends: the runs do not tell it.
    again: laws of losses whose residuals were drawn again, for intervals.
  """

  law: RepeatedLaw
  residuals: Float[np.ndarray, 'r']
  at_edge: bool
  again: tuple[RepeatedLaw, ...] = ()

  def __str__(self) -> str:
    """Says it for people."""
    law, tokens = self.law.law, self.law.tokens
    constants = ', '.join(
      f'{name} {getattr(law, name.lower()):.4g}' for name in ('E', 'A', 'B', 'alpha', 'beta')
    )
    worths = f'R_D* {self._told([each.tokens for each in (self.law, *self.again)])}'
    if self.law.size is not None:
      worths += f', R_N* {self._told([each.size for each in (self.law, *self.again)])}'
    spread = float(np.sqrt(np.mean(self.residuals**2)))
    lines = [
      f'with repeated data: {constants}, {worths}; off by {spread:.2%}',
      *(
        f'of {epochs} epochs the data count as {effective(epochs, 1.0, tokens):.3g}'
        for epochs in (2, 4, 16)
      ),
    ]
    if self.at_edge:
      lines.append('warning: R_D* or R_N* ended at the edge of its search; repeat data more often')
    return '\n'.join(lines)

  def _told(self, numbers: Sequence[Any]) -> str:
    """Says the first number with the interval of 80% that the others make."""
    if len(numbers) == 1:
      return f'{numbers[0]:.4g}'
    return str(Interval(numbers[0], *map(float, np.quantile(numbers[1:], [0.1, 0.9]))))


def effective(total: Each | float, first: Each | float, worth: float) -> Each | float:
  """Returns U + U R* (1 - exp(-R / R*)), R = total / U - 1, of U = `first` and R* = `worth`."""
  return first * (1 - worth * np.expm1(-(total / first - 1) / worth))


def fit_repeated(
  runs: Runs,
  unique: Float[np.ndarray, 'r'],
  *,
  sizes: bool = False,
  resamples: Count = 0,
  seed: Count = 0,
  delta: Annotated[float, Range(above=0)] = DELTA,
  flops: Annotated[float, Range(above=0)] = FLOPS,
) -> RepeatedFit:
  """Fits all constants together, by Huber's loss of log L.

  Args:
    runs: sizes, tokens seen and losses.
    unique: distinct tokens of each.
    sizes: whether parameters beyond the data count less as well, by R_N*.
    resamples: fits to residuals drawn again, from which intervals are.
    seed: of these draws.
    delta: of Huber's loss.
    flops: k of C = k N D.

  Raises:
    DataError: too few runs repeat their data, or see `fit_law`.
  """
  size, tokens, loss = (np.asarray(each, np.float64) for each in runs)
  first = np.minimum(tokens, unique)
  if (repeated := int((tokens > first * 1.01).sum())) < FEWEST:
    raise DataError(
      f'{repeated} runs saw data again; expected {FEWEST} at least whose tokens exceed their '
      'unique_tokens'
    )
  found = [
    (fit_law(Runs(size, np.asarray(effective(tokens, first, worth)), loss), delta=delta), worth)
    for worth in _STARTS
  ]
  start, worth = min(found, key=lambda each: each[0].objective)
  n, d = np.log(size).mean(), np.log(tokens).mean()

  def law_of(point: np.ndarray) -> RepeatedLaw:
    e, a, b, alpha, beta, *worths = map(float, np.exp(point))
    a, b = a * np.exp(alpha * n), b * np.exp(beta * d)
    law = Law(e, float(a), float(b), alpha, beta, flops)
    return RepeatedLaw(law, worths[0], worths[1] if sizes else None)

  def residuals(point: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.log(np.asarray(law_of(point).loss(size, tokens, first)) / given)

  law = start.law
  begin = [max(law.e, 1e-12), law.a * np.exp(-law.alpha * n), law.b * np.exp(-law.beta * d),
           law.alpha, law.beta, worth, *([worth] * sizes)]  # fmt: skip
  begin, worths = np.log(begin), np.log(_BOUNDS)
  low = np.array([*begin[:5] - 20.0, *[worths[0]] * (1 + sizes)])
  high = np.array([*begin[:3] + 20.0, np.log(8.0), np.log(8.0), *[worths[1]] * (1 + sizes)])

  def best(begin: np.ndarray, given: np.ndarray, exact: float) -> np.ndarray:
    return least_squares(
      residuals, np.clip(begin, low + 1e-9, high - 1e-9), '3-point', (low, high), loss='huber',
      f_scale=delta, x_scale='jac', ftol=exact, xtol=exact, gtol=exact, max_nfev=2000,
      args=(given,),
    ).x  # fmt: skip

  point = best(begin, loss, 1e-15)
  left = -residuals(point, loss)
  spread = left * np.sqrt(len(loss) / max(len(loss) - len(point), 1))
  generator = np.random.default_rng(seed)
  again = [
    law_of(best(point, loss * np.exp(generator.choice(spread, len(loss)) - left), 1e-10))
    for _ in range(resamples)
  ]
  edge = bool(np.any(np.abs(point[5:, None] - worths) < 1e-3))
  return RepeatedFit(law_of(point), left, edge, tuple(again))
