"""A law put to the test: fitted to the smaller budgets, it predicts runs of the largest."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.settings import Count, Positive, arguments
from mgjax.lab.report.tables import aligned
from mgjax.lab.scaling.findings import LawFindings, find_law, interval
from mgjax.lab.scaling.isoflop import find_minima, group_budgets, resample_minima
from mgjax.lab.scaling.parametric import Runs
from mgjax.lab.scaling.records import Records, as_records
from mgjax.lab.statistics.intervals import Interval


@dataclasses.dataclass(frozen=True)
class Guess:
  """What was predicted, with its interval of 80%, and what came.

  Attributes:
    size: of the run, None for what is of a budget.
    what: 'loss', or by what the best size was predicted.
    measured: what came; of a best size with the interval of its parabola.
  """

  compute: float
  size: float | None
  what: str
  measured: Interval
  predicted: Interval

  @property
  def error(self) -> float:
    """Returns by how much the prediction is too high, as a share of what came."""
    return self.predicted.value / self.measured.value - 1

  @property
  def honoured(self) -> bool:
    """Says whether what came lies in the interval; of a best size, whether both intervals meet."""
    low = self.measured.low if self.size is None else self.measured.value
    high = self.measured.high if self.size is None else self.measured.value
    return low <= self.predicted.high and high >= self.predicted.low


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """Predictions of the largest budgets by a law of the others.

  `losses` are of every run that was left out, `sizes` of each of its budgets that has a minimum, by
  the law and by the IsoFLOP minima.
  """

  findings: LawFindings
  losses: Sequence[Guess]
  sizes: Sequence[Guess]

  def rows(self) -> list[tuple[str, ...]]:
    """Returns the rows of a table of losses, below a header."""
    rows = [('FLOPs', 'parameters', 'loss', 'predicted', 'error', 'in its interval')]
    rows += [
      (
        f'{guess.compute:.3g}',
        f'{guess.size:.4g}',
        f'{guess.measured.value:.4f}',
        str(guess.predicted),
        f'{guess.error:+.2%}',
        'yes' if guess.honoured else 'no',
      )
      for guess in self.losses
    ]
    return rows

  @property
  def title(self) -> str:
    """The title of tables of it."""
    return f'Predicted by the {len(self.findings.fit.residuals)} runs of smaller budgets'

  def size_rows(self) -> list[tuple[str, ...]]:
    """Returns the rows of a table of best sizes, below a header."""
    rows = [('FLOPs', 'predicted by', 'best size', 'predicted', 'error', 'intervals meet')]
    rows += [
      (
        f'{guess.compute:.3g}',
        guess.what,
        str(guess.measured),
        str(guess.predicted),
        f'{guess.error:+.1%}',
        'yes' if guess.honoured else 'no',
      )
      for guess in self.sizes
    ]
    return rows

  def summary(self) -> str:
    """Describes how many losses were predicted within their intervals."""
    inside = sum(guess.honoured for guess in self.losses)
    off = np.sqrt(np.mean([guess.error**2 for guess in self.losses]))
    return (
      f'{inside} of {len(self.losses)} losses lie in their intervals of 80%; off by {off:.2%} '
      '(root mean square)'
    )

  def table(self) -> str:
    """Formats predictions and what came, for people."""
    lines = [self.title]
    lines += [*aligned(self.rows()), self.summary()]
    return '\n'.join([*lines, '', *aligned(self.size_rows(), 2)] if self.sizes else lines)


def hold_out(
  runs: Runs | Records, budgets: Positive = 1, *, resamples: Positive = 200, seed: Count = 0
) -> HeldOut:
  """Fits a law to the smaller budgets and predicts the largest ones, `budgets` of them.

  The interval of a loss is that of the law plus a resampled residual of a run. Raises DataError if
  fewer than two budgets are left, or as `find_law` does.
  """
  options = {'budgets': budgets, 'resamples': resamples, 'seed': seed}
  arguments(hold_out, options, 'hold_out', ('runs',))
  records = as_records(runs).at_best_rates()
  groups = group_budgets(records.compute)
  fitted = int(groups.max()) + 1 - budgets
  if fitted < 2:
    raise DataError(
      f'{groups.max() + 1} budgets, of which {budgets} are to be left out; expected two at least '
      'to be left'
    )
  findings = find_law(records.keep(groups < fitted), resamples=resamples, seed=seed)
  top = records.keep(groups >= fitted)
  generator = np.random.default_rng(seed)
  count = len(findings.fit.residuals)
  noise = findings.fit.residuals * np.sqrt(count / (count - 5))
  losses = []
  for size, tokens, loss, compute in zip(*top.runs, top.compute, strict=True):
    again = [
      float(fit.law.loss(size, tokens)) * np.exp(generator.choice(noise)) for fit in findings.again
    ]
    guess = interval(findings.fit.law.loss(size, tokens), again)
    came = Interval(float(loss), float(loss), float(loss))
    losses.append(Guess(float(compute), float(size), 'loss', came, guess))
  return HeldOut(findings, losses, _sizes(findings, top, resamples, seed))


def _sizes(findings: LawFindings, top: Records, resamples: int, seed: int) -> list[Guess]:
  grid = (top.compute, top.runs.size, top.runs.loss)
  try:
    minima = find_minima(*grid)
  except DataError:
    return []
  draws = resample_minima(*grid, resamples=resamples, seed=seed)
  guesses = []
  for index, minimum in enumerate(minima):
    again = [draw[index] for draw in draws]
    came = interval(minimum.size, [drawn.size for drawn in again if drawn is not None])
    ways = {'the law': findings.interval(lambda law, at=minimum.compute: law.optimum(at).size)}
    if (by_minima := findings.best_size(minimum.compute)) is not None:
      ways['IsoFLOP minima'] = by_minima
    guesses += [Guess(minimum.compute, None, way, came, guess) for way, guess in ways.items()]
  return guesses
