"""Two recipes on the same data: how much more compute one needs for the loss of the other."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from scipy.stats import t as student

from mgjax.core.settings import Count, Positive, Range, arguments
from mgjax.lab.scaling.isoflop import group_budgets
from mgjax.lab.scaling.law import FLOPS, Law
from mgjax.lab.scaling.parametric import DELTA, Runs, draw_runs, fit_laws
from mgjax.lab.statistics.intervals import Interval
from mgjax.training.monitoring.progress import counted


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A second recipe beside a first one; their laws share E.

  `multipliers`: budget -> how many times that budget the first recipe needs for the loss that the
  second has there; above 1 the second is better. `exponent`, of the best size by compute, is the
  second's less the first's; `resamples` counts the draws that intervals are from.
  """

  laws: tuple[Law, Law]
  multipliers: dict[float, Interval]
  exponent: Interval
  resamples: int


def multiplier(first: Law, second: Law, compute: float) -> float:
  """Returns m with L_first*(m C) = L_second*(C), losses of the best sizes; inf where none is so."""
  return first.compute_for(second.optimum(compute).loss) / compute


def compare_recipes(
  first: Runs,
  second: Runs,
  budgets: Sequence[float],
  *,
  confidence: Annotated[float, Range(above=0, below=1)] = 0.95,
  resamples: Positive = 200,
  delta: Annotated[float, Range(above=0)] = DELTA,
  flops: Annotated[float, Range(above=0)] = FLOPS,
  seed: Count = 0,
) -> Comparison:
  """Compares two recipes on the same data by laws that share E, fitted together.

  Intervals are Student's, with the spread over fits to resampled residuals: the sizes and data of a
  grid are not random. Budgets are C in FLOPs, `delta` is of Huber's loss, `flops` is k in
  C = k N D. Raises DataError as `fit_laws` does.
  """
  options = {
    'confidence': confidence,
    'resamples': resamples,
    'delta': delta,
    'flops': flops,
    'seed': seed,
  }
  arguments(compare_recipes, options, 'compare_recipes', ('first', 'second', 'budgets'))
  fits = fit_laws((first, second), delta=delta, flops=flops)
  laws = (fits[0].law, fits[1].law)
  generator = np.random.default_rng(seed)
  drawn = []
  for _ in counted(resamples, 'fit'):
    again = [
      draw_runs(generator, fit, runs, 'residual')
      for fit, runs in zip(fits, (first, second), strict=True)
    ]
    drawn.append([fit.law for fit in fit_laws(again, delta=delta, flops=flops, starts=laws)])

  freedom = len(first.loss) + len(second.loss) - 9  # E and four constants of each
  reach = float(student.ppf((1 + confidence) / 2, freedom))

  def interval(value: float, values: Sequence[float]) -> Interval:
    """Returns Student's interval, which needs fewer draws than quantiles."""
    half = reach * float(np.std(values, ddof=1))
    return Interval(value, value - half, value + half)

  def factor(compute: float) -> Interval:
    """Returns the interval of the logarithm: a factor and its inverse are as far from 1."""
    logs = [math.log(multiplier(*pair, compute)) for pair in drawn]
    if not np.isfinite(logs).all():  # some draw never comes to that loss
      return Interval(multiplier(*laws, compute), float(np.exp(np.min(logs))), math.inf)
    log_factor = interval(math.log(multiplier(*laws, compute)), logs)
    return Interval(math.exp(log_factor.value), math.exp(log_factor.low), math.exp(log_factor.high))

  return Comparison(
    laws,
    {compute: factor(compute) for compute in budgets},
    interval(
      laws[1].exponent - laws[0].exponent,
      [second_law.exponent - first_law.exponent for first_law, second_law in drawn],
    ),
    resamples,
  )


def budgets_of(runs: Runs, flops: float = FLOPS) -> list[float]:
  """Returns the budgets that runs were made for, the smallest first."""
  compute = flops * np.asarray(runs.size) * np.asarray(runs.tokens)
  groups = group_budgets(compute)
  return [float(np.exp(np.log(compute[groups == k]).mean())) for k in range(groups.max() + 1)]
