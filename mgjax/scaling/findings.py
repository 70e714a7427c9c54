"""What runs say of a law, of a budget and of two recipes, in numbers and words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.tables import aligned
from mgjax.scaling.comparison import Comparison, Interval
from mgjax.scaling.isoflop import Minimum, PowerLaw, find_minima, fit_power, group_budgets
from mgjax.scaling.law import Law
from mgjax.scaling.parametric import Fit, Runs, fit_law, resample_fits

CONFIDENCE = 0.8  # of the intervals: those whose coverage the tests measure
_OFF = (0.25, 0.5, 2.0, 4.0)  # sizes whose price is told, times the best one
_WIDEST, _FURTHEST, _SIDE = 1.2, 2.0, 3  # decades of a grid, of an extrapolation; points a side


@dataclasses.dataclass(frozen=True)
class LawFindings:
  """A law, how sure it is, and what spoils it.

  Attributes:
    fit: of all runs.
    again: of runs drawn again.
    minima: of the IsoFLOP parabolas, none where no budget has one.
    power: N*(C) through these.
    warnings: see `audit`.
  """

  fit: Fit
  again: Sequence[Fit]
  minima: Sequence[Minimum]
  power: PowerLaw | None
  warnings: Sequence[str]

  def interval(self, what: Any) -> Interval:
    """Returns a number of the law with its interval of 80%."""
    low, high = np.quantile(
      [what(each.law) for each in self.again], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    )
    return Interval(float(what(self.fit.law)), float(low), float(high))

  def numbers(self) -> dict[str, Interval]:
    """Returns the constants and the exponent of the best size."""
    names = {'E': 'e', 'A': 'a', 'B': 'b', 'alpha': 'alpha', 'beta': 'beta',
             'N* by C, beta / (alpha + beta)': 'exponent'}  # fmt: skip
    return {
      label: self.interval(lambda law, name=name: getattr(law, name))
      for label, name in names.items()
    }

  def table(self) -> str:
    """Formats the law, the minima and the warnings, for people."""
    lines = ['L(N, D) = E + A / N^alpha + B / D^beta, with intervals of 80%']
    lines += aligned([(name, str(number)) for name, number in self.numbers().items()])
    spread = float(np.sqrt(np.mean(self.fit.residuals**2)))
    lines.append(f'{len(self.fit.residuals)} runs, off by {spread:.2%} (root mean square)')
    if self.power is not None:
      lines += ['', 'IsoFLOP minima (biased where grids are wide or off their minimum)']
      rows = [('FLOPs', 'best size', 'loss', '')]
      rows += [
        (f'{each.compute:.3g}', f'{each.size:.4g}', f'{each.loss:.4f}',
         '' if each.inside else 'beyond the runs')
        for each in self.minima
      ]  # fmt: skip
      lines += aligned(rows)
      lines.append(f'N*(C) = {self.power.factor:.4g} C^{self.power.exponent:.4f}')
    return '\n'.join([*lines, *(f'warning: {each}' for each in self.warnings)])

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    return {
      'law': dataclasses.asdict(self.fit.law),
      'objective': self.fit.objective,
      'intervals': {name: dataclasses.asdict(each) for name, each in self.numbers().items()},
      'minima': [dataclasses.asdict(each) for each in self.minima],
      'power': None if self.power is None else dataclasses.asdict(self.power),
      'warnings': list(self.warnings),
    }


def find_law(runs: Runs, *, resamples: int = 200, seed: int = 0) -> LawFindings:
  """Fits the law and the IsoFLOP minima to runs, with intervals and warnings.

  Args:
    runs: sizes, tokens and losses.
    resamples: fits that the intervals are from; cases are drawn within budgets where these have
      four runs or more, residuals elsewhere.
    seed: of the draws.

  Raises:
    DataError: see `fit_law`.
  """
  fit = fit_law(runs)
  compute = fit.law.flops * runs.size * runs.tokens
  groups = group_budgets(compute)
  many = np.bincount(groups).min() >= 4
  how = {'how': 'case', 'groups': groups} if many else {'how': 'residual'}
  again = resample_fits(fit, runs, resamples=resamples, seed=seed, **how)
  try:
    minima = find_minima(compute, runs.size, runs.loss)
    power = fit_power(
      np.array([each.compute for each in minima]), np.array([each.size for each in minima])
    )
  except DataError:
    minima, power = [], None
  return LawFindings(fit, again, minima, power, audit(runs, fit))


def audit(runs: Runs, fit: Fit) -> list[str]:
  """Says what spoils a law of these runs, a sentence each."""
  found, sizes = [], np.log10(runs.size)
  compute = fit.law.flops * runs.size * runs.tokens
  groups = group_budgets(compute)
  for group in range(groups.max() + 1):
    of_budget = sizes[groups == group]
    at = float(np.exp(np.log(compute[groups == group]).mean()))
    best = np.log10(fit.law.optimum(at).size)
    sides = int(np.sum(of_budget < best)), int(np.sum(of_budget > best))
    if len(of_budget) > 1 and np.ptp(of_budget) > _WIDEST + 1e-6:
      found.append(
        f'the sizes at {at:.3g} FLOPs span {np.ptp(of_budget):.1f} decades: parabolas are biased '
        f'beyond {_WIDEST}'
      )
    if len(of_budget) > 1 and min(sides) < _SIDE:
      found.append(
        f'at {at:.3g} FLOPs {sides[0]} sizes are below the best one and {sides[1]} above; '
        f'{_SIDE} on each side hold it'
      )
  if np.ptp(np.log10(compute)) < 1:
    found.append(
      f'the budgets span {np.ptp(np.log10(compute)):.1f} decades: an exponent needs one at least'
    )
  if len({*zip(runs.size, runs.tokens, strict=True)}) == len(runs.size):
    found.append('every run is of one seed: nobody knows how much luck moves a loss')
  if fit.at_edge:
    found.append('an exponent ended at the edge of its search: these runs do not tell it')
  return found


def predict(found: LawFindings, runs: Runs, compute: float) -> str:
  """Says how a budget is spent best, what that gives, and what other sizes cost."""
  law = found.fit.law
  best = law.optimum(compute)
  size = found.interval(lambda each: each.optimum(compute).size)
  tokens = found.interval(lambda each: each.optimum(compute).tokens)
  loss = found.interval(lambda each: each.optimum(compute).loss)
  rows = [
    ('parameters', str(size)), ('tokens', str(tokens)), ('loss', str(loss)),
    *((f'{factor:g} x the size', _price(law, compute, factor)) for factor in _OFF),
  ]  # fmt: skip
  lines = [f'{compute:.3g} FLOPs are spent best on, with intervals of 80%', *aligned(rows)]
  beyond = np.log10(best.compute / (law.flops * runs.size * runs.tokens).max())
  if beyond > _FURTHEST:
    lines.append(
      f'warning: {beyond:.1f} decades beyond the largest run; laws are rarely right beyond '
      f'{_FURTHEST:g}'
    )
  return '\n'.join(lines)


def describe_comparison(found: Comparison, names: tuple[str, str]) -> str:
  """Formats two recipes beside each other, for people."""
  rows = [('FLOPs', f'compute that {names[0]} needs for the loss of {names[1]}, as a factor')]
  rows += [(f'{compute:.3g}', str(each)) for compute, each in found.multipliers.items()]
  laws = aligned(
    [('', 'E', 'A', 'B', 'alpha', 'beta')]
    + [
      (name, *(f'{getattr(law, field):.4g}' for field in ('e', 'a', 'b', 'alpha', 'beta')))
      for name, law in zip(names, found.laws, strict=True)
    ]
  )
  note = (
    f'exponent of the best size, {names[1]} less {names[0]}: {found.exponent}; '
    f'intervals of 95% from {found.resamples} draws'
  )
  return '\n'.join([*laws, '', *aligned(rows), note])


def _price(law: Law, compute: float, factor: float) -> str:
  worse = law.at(compute, factor * law.optimum(compute).size)
  return f'loss {worse:.4f}, wastes {1 - 1 / law.price(compute, factor):.1%} of the budget'
