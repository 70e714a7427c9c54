"""What spoils a law: grids, budgets, seeds, learning rates and runs that records tell of."""

from collections.abc import Iterator

import numpy as np

from mgjax.lab.scaling.isoflop import group_budgets
from mgjax.lab.scaling.law import Law
from mgjax.lab.scaling.parametric import Fit
from mgjax.lab.scaling.records import Records

FURTHEST = 2.0  # decades of an extrapolation
_WIDEST = 1.2  # decades of a grid
_SIDE = 3  # points a side
_OUTLIER, _LEAST = 4.0, 0.005  # robust standard deviations above the law, and of log L at least


def audit(records: Records, fit: Fit) -> list[str]:
  """Returns warnings about what biases the law, a sentence each."""
  best_runs = records.at_best_rates()
  return [*_grids(best_runs, fit.law), *_runs(best_runs, fit), *_rates(records)]


def _grids(records: Records, law: Law) -> Iterator[str]:
  compute = records.compute
  sizes = np.log10(records.runs.size)
  groups = group_budgets(compute)
  for group in range(groups.max() + 1):
    of_budget = np.unique(sizes[groups == group].round(6))  # seeds of a size are one
    at = float(np.exp(np.log(compute[groups == group]).mean()))
    best = np.log10(law.optimum(at).size)
    sides = int(np.sum(of_budget < best)), int(np.sum(of_budget > best))
    if len(of_budget) > 1 and np.ptp(of_budget) > _WIDEST + 1e-6:
      yield (
        f'the sizes at {at:.3g} FLOPs span {np.ptp(of_budget):.1f} decades: parabolas are biased '
        f'beyond {_WIDEST}'
      )
    if len(of_budget) > 1 and min(sides) < _SIDE:
      yield (
        f'at {at:.3g} FLOPs {sides[0]} sizes are below the best one and {sides[1]} above; '
        f'{_SIDE} on each side hold it'
      )
  if np.ptp(np.log10(compute)) < 1:
    yield (
      f'the budgets span {np.ptp(np.log10(compute)):.1f} decades: an exponent needs one at least'
    )


def _runs(records: Records, fit: Fit) -> Iterator[str]:
  runs = records.runs
  if len({*zip(runs.size, runs.tokens, strict=True)}) == len(runs.size):
    yield 'every run is of one seed: nobody knows how much luck moves a loss'
  if fit.at_edge:
    yield 'an exponent ended at the edge of its search: these runs do not tell it'
  spread = 1.4826 * float(np.median(np.abs(fit.residuals)))  # of a normal distribution
  above = fit.residuals > max(_OUTLIER * spread, _LEAST)
  for size, tokens, over in zip(
    runs.size[above], runs.tokens[above], fit.residuals[above], strict=True
  ):
    yield (
      f'the run of {size:.3g} parameters and {tokens:.3g} tokens is {np.expm1(over):.1%} above the '
      'law: it may not have converged'
    )


def _rates(records: Records) -> Iterator[str]:
  for sweep in records.rate_sweeps():
    losses = [records.runs.loss[places].mean() for _, places in sweep]
    best = int(np.argmin(losses))
    if best in (0, len(sweep) - 1):
      size = records.runs.size[sweep[0][1][0]]
      yield (
        f'at {size:.3g} parameters the best of {len(sweep)} learning rates is the '
        f'{"smallest" if best == 0 else "largest"}, {sweep[best][0]:.3g}: a better one may lie '
        'beyond'
      )
