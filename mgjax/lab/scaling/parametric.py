"""Fits the law to runs: variable projection for the starts, then Levenberg-Marquardt.

Given the exponents the law is linear, so each point of a grid of these has its best other
constants, none of them negative. The best points are improved on the robust loss; of 240 fits to
noisy surfaces none ended in a wrong minimum, as gradient methods from a grid of starts often do.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls
from scipy.special import huber

from mgjax.core.errors import DataError
from mgjax.core.settings import Count, Positive, Range, arguments
from mgjax.core.typing import Float, Int
from mgjax.lab.scaling.law import FLOPS, Law
from mgjax.training.monitoring.progress import counted

DELTA = 1e-3  # of Huber's loss, as in Hoffmann et al.
FEWEST = 6  # runs: one more than constants
_GRID = np.linspace(0.05, 1.05, 21)  # of the exponents
_STARTS = 4
_MANY = 10_000  # runs; of more, some will do to find where to start
_LEAST = 1e-12  # of a constant, for its logarithm
_LOSSES = (1e-9, 1e9)
_MOST = 20.0  # logarithm of a part of the loss over the largest loss, at the runs' middle
_BOUNDS = (math.log(1e-3), math.log(8.0))  # of the exponents' logarithms


@dataclasses.dataclass(frozen=True)
class Fit:
  """A law and how it fits: the sum of Huber's loss of log L_predicted - log L, and what is left.

  Residuals are log L - log L_predicted of every run. `at_edge`: an exponent ended where the search
  ends, so that the law says little.
  """

  law: Law
  objective: float
  residuals: Float[np.ndarray, 'r']
  at_edge: bool


class Runs(NamedTuple):
  """What is known of runs: parameters N, tokens D and the loss at the end, one of each a run."""

  size: Float[np.ndarray, '_']
  tokens: Float[np.ndarray, '_']
  loss: Float[np.ndarray, '_']


def fit_law(
  runs: Runs,
  *,
  delta: Annotated[float, Range(above=0)] = DELTA,
  flops: Annotated[float, Range(above=0)] = FLOPS,
  start: Law | None = None,
) -> Fit:
  """Fits E, A, B, alpha and beta to runs; DataError: there are too few, or not all are positive.

  It minimizes the sum over runs of Huber(log L(N, D) - log L), quadratic below `delta`, linear
  above, so that single bad runs weigh little (Hoffmann et al., 2022). `flops` is k of C = k N D,
  `start` a law nearby, which spares the grid: of resampled runs, that of all.
  """
  starts = None if start is None else (start,)
  return fit_laws((runs,), delta=delta, flops=flops, starts=starts)[0]


def fit_laws(
  arms: Sequence[Runs],
  *,
  delta: Annotated[float, Range(above=0)] = DELTA,
  flops: Annotated[float, Range(above=0)] = FLOPS,
  starts: Sequence[Law] | None = None,
) -> list[Fit]:
  """Fits a law to each of several arms, which share E: the same data leave the same loss."""
  arms = [Runs(*(np.asarray(column, np.float64) for column in runs)) for runs in arms]
  for runs in arms:
    _check_runs(runs)
  middles = [(np.log(runs.size).mean(), np.log(runs.tokens).mean()) for runs in arms]
  positions = [
    (np.log(runs.size) - n, np.log(runs.tokens) - d)
    for runs, (n, d) in zip(arms, middles, strict=True)
  ]
  target = np.log(np.concatenate([runs.loss for runs in arms]))
  if starts is None and len(arms) > 1:
    starts = [fit_law(runs, delta=delta, flops=flops).law for runs in arms]
  if starts is None:
    some = slice(None, None, 1 + len(arms[0].loss) // _MANY)
    begins = _grid(*(values[some] for values in (*positions[0], arms[0].loss)))
  else:
    points = [_point(*pair) for pair in zip(starts, middles, strict=True)]
    e = math.log(np.mean([math.exp(point[0]) for point in points]))
    begins = [np.concatenate([[e], *(point[1:] for point in points)])]

  def terms(point: np.ndarray, arm: int) -> np.ndarray:
    x, y = positions[arm]
    a, b, alpha, beta = point[1 + 4 * arm : 5 + 4 * arm]
    return np.exp(
      np.stack([np.full_like(x, point[0]), a - np.exp(alpha) * x, b - np.exp(beta) * y])
    )

  def residuals(point: np.ndarray) -> np.ndarray:
    return np.concatenate([np.log(terms(point, k).sum(0)) for k in range(len(arms))]) - target

  def jacobian(point: np.ndarray) -> np.ndarray:
    derivatives = np.zeros((len(target), len(point)))
    row = 0
    for arm, (x, y) in enumerate(positions):
      parts = terms(point, arm)
      shares = parts / parts.sum(0)
      first = 1 + 4 * arm
      alpha, beta = np.exp(point[first + 2 : first + 4])
      columns = (shares[1], shares[2], -shares[1] * alpha * x, -shares[2] * beta * y)
      derivatives[row : row + len(x), 0] = shares[0]
      derivatives[row : row + len(x), first : first + 4] = np.stack(columns, 1)
      row += len(x)
    return derivatives

  most = float(target.max()) + _MOST  # or a step on the way overflows
  each_low = [math.log(_LEAST)] * 2 + [_BOUNDS[0]] * 2
  each_high = [most] * 2 + [_BOUNDS[1]] * 2
  low = np.array([math.log(_LEAST), *each_low * len(arms)])
  high = np.array([most, *each_high * len(arms)])
  exact = 1e-15 if starts is None else 1e-10  # of what is drawn again noise is far above that
  best = None
  for begin in begins:
    solution = least_squares(
      residuals,
      np.clip(begin, low + 1e-9, high - 1e-9),
      jacobian,
      (low, high),
      loss='huber',
      f_scale=delta,
      x_scale='jac',
      ftol=exact,
      xtol=exact,
      gtol=exact,
      max_nfev=2000,
    )
    if best is None or solution.cost < best.cost:
      best = solution
  assert best is not None
  e = math.exp(best.x[0])
  misfits = np.split(-residuals(best.x), np.cumsum([len(x) for x, _ in positions])[:-1])
  fits = []
  for arm, (n, d) in enumerate(middles):
    point = best.x[1 + 4 * arm : 5 + 4 * arm]
    a, b, alpha, beta = np.exp(point)
    law = Law(
      e if e > 2 * _LEAST else 0.0,
      float(a * np.exp(alpha * n)),
      float(b * np.exp(beta * d)),
      float(alpha),
      float(beta),
      flops,
    )
    edge = bool(np.any(np.abs(point[2:, None] - np.array(_BOUNDS)) < 1e-6))
    fits.append(Fit(law, float(huber(delta, misfits[arm]).sum()), misfits[arm], edge))
  return fits


def resample_fits(
  fit: Fit,
  runs: Runs,
  *,
  how: Literal['case', 'residual'] = 'case',
  groups: Int[np.ndarray, '_'] | None = None,
  resamples: Positive = 200,
  delta: Annotated[float, Range(above=0)] = DELTA,
  seed: Count = 0,
) -> list[Fit]:
  """Fits the law to resampled runs, which shows how precise it is."""
  options = {'resamples': resamples, 'delta': delta, 'seed': seed}
  arguments(resample_fits, options, 'resample_fits', ('fit', 'runs', 'how', 'groups'))
  generator = np.random.default_rng(seed)
  return [
    fit_law(
      draw_runs(generator, fit, runs, how, groups), delta=delta, flops=fit.law.flops, start=fit.law
    )
    for _ in counted(resamples, 'fit')
  ]


def draw_runs(
  generator: np.random.Generator,
  fit: Fit,
  runs: Runs,
  how: Literal['case', 'residual'] = 'case',
  groups: Int[np.ndarray, '_'] | None = None,
) -> Runs:
  """Resamples runs, as another experiment of the same kind might have had them.

  'case' draws runs with replacement, within `groups` such as budgets, so that none loses its runs;
  'residual' keeps sizes and data and draws the residuals of the losses.
  """
  size, tokens, loss = (np.asarray(column, np.float64) for column in runs)
  if how == 'residual':
    # Residuals are smaller than the noise by as much as the law's constants absorbed.
    spread = fit.residuals * math.sqrt(len(loss) / (len(loss) - 5))
    return Runs(
      size, tokens, fit.law.loss(size, tokens) * np.exp(generator.choice(spread, len(loss)))
    )
  groups = np.zeros(len(loss), np.int64) if groups is None else groups
  members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
  while True:  # of few runs a draw may be of too few different ones for a law
    chosen = np.concatenate([generator.choice(indices, len(indices)) for indices in members])
    if _different(size[chosen], tokens[chosen]) >= FEWEST:
      return Runs(size[chosen], tokens[chosen], loss[chosen])


def _point(law: Law, middle: tuple[float, float]) -> Float[np.ndarray, '5']:
  n, d = middle
  numbers = (law.e, law.a * np.exp(-law.alpha * n), law.b * np.exp(-law.beta * d))
  return np.log(np.maximum([*numbers, law.alpha, law.beta], _LEAST))


def _grid(
  x: Float[np.ndarray, 'r'], y: Float[np.ndarray, 'r'], loss: Float[np.ndarray, 'r']
) -> list[Float[np.ndarray, '5']]:
  """Returns the best points of a grid of exponents, with the other constants fitted to them."""
  candidates = []
  for alpha in _GRID:
    for beta in _GRID:
      columns = np.stack([np.ones_like(x), np.exp(-alpha * x), np.exp(-beta * y)], 1)
      constants, error = nnls(columns / loss[:, None], np.ones_like(loss))
      candidates.append((error, (*constants, alpha, beta)))
  best = sorted(candidates, key=lambda candidate: candidate[0])[:_STARTS]
  return [np.log(np.maximum(point, _LEAST)) for _, point in best]


def _check_runs(runs: Runs) -> None:
  size, tokens, loss = runs
  if not size.shape == tokens.shape == loss.shape or size.ndim != 1:
    raise DataError(
      f'sizes, tokens and losses of {size.shape}, {tokens.shape} and {loss.shape} do not go '
      'together; give one of each a run'
    )
  for name, numbers in runs._asdict().items():
    if not (np.isfinite(numbers) & (numbers > 0)).all():
      raise DataError(f'{name}: every run needs a number above 0; leave runs without one out')
  if not _LOSSES[0] <= loss.min() <= loss.max() <= _LOSSES[1]:
    raise DataError(
      f'losses from {loss.min():g} to {loss.max():g}; expected {_LOSSES[0]:g} to {_LOSSES[1]:g}, '
      'in another unit'
    )
  pairs = _different(size, tokens)
  if pairs < FEWEST:
    raise DataError(
      f'{pairs} runs of different size or data; expected {FEWEST} at least, for the law has five '
      'constants'
    )


def _different(size: Float[np.ndarray, 'r'], tokens: Float[np.ndarray, 'r']) -> int:
  return len(set(zip(size, tokens, strict=True)))
