"""What runs say of a law, of a budget and of two recipes, in numbers and words."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.report.tables import aligned
from mgjax.lab.scaling.audit import FURTHEST, audit
from mgjax.lab.scaling.comparison import Comparison
from mgjax.lab.scaling.isoflop import (
  Minimum,
  PowerLaw,
  find_minima,
  fit_power,
  group_budgets,
  resample_minima,
)
from mgjax.lab.scaling.law import Law
from mgjax.lab.scaling.parametric import Fit, Runs, fit_law, resample_fits
from mgjax.lab.scaling.published import rows_at
from mgjax.lab.scaling.records import Records, as_records
from mgjax.lab.statistics.intervals import Interval, central_interval

CONFIDENCE = 0.8  # of the intervals: those whose coverage the tests measure
MOST = 1e40  # FLOPs of a budget
_MANY = 10_000  # runs, above which fits are slow
_OFF = (0.25, 0.5, 2.0, 4.0)  # sizes whose price is told, times the best one

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LawFindings:
  """A law, how sure it is, and what spoils it.

  Attributes:
    records: runs that it was fitted to: of a sweep of the learning rate those of the best one.
    again: fits of runs drawn again.
    minima: of the IsoFLOP parabolas, none where no budget has one.
    minima_again: the same of losses drawn again, None where a budget lost its own.
    power: N*(C) through the minima.
    power_again: N*(C) through those of each draw.
  """

  records: Records
  fit: Fit
  again: Sequence[Fit]
  minima: Sequence[Minimum]
  minima_again: Sequence[Sequence[Minimum | None]]
  power: PowerLaw | None
  power_again: Sequence[PowerLaw]
  warnings: Sequence[str]

  def interval(self, what: Callable[[Law], object]) -> Interval:
    """Returns a number of the law with its interval of 80%."""
    return interval(what(self.fit.law), [what(fit.law) for fit in self.again])

  def numbers(self) -> dict[str, Interval]:
    """Returns the constants and the exponent of the best size."""
    names = {
      'E': 'e',
      'A': 'a',
      'B': 'b',
      'alpha': 'alpha',
      'beta': 'beta',
      'N* by C, beta / (alpha + beta)': 'exponent',
    }
    return {
      label: self.interval(lambda law, name=name: getattr(law, name))
      for label, name in names.items()
    }

  def minimum(self, index: int, field: str = 'size') -> Interval:
    """Returns the size or the loss of a minimum with its interval of 80%."""
    again = [draw[index] for draw in self.minima_again]
    values = [getattr(minimum, field) for minimum in again if minimum is not None]
    return interval(getattr(self.minima[index], field), values)

  def best_size(self, compute: float) -> Interval | None:
    """Returns N*(C) by the power law through the minima, with its interval of 80%."""
    if self.power is None:
      return None
    return interval(self.power(compute), [power(compute) for power in self.power_again])

  def minima_rows(self) -> list[tuple[str, str, str, str]]:
    """Returns the rows of a table of the minima, below a header."""
    rows = [('FLOPs', 'best size', 'loss', '')]
    for index, minimum in enumerate(self.minima):
      cells = str(self.minimum(index)), str(self.minimum(index, 'loss'))
      rows.append((f'{minimum.compute:.3g}', *cells, '' if minimum.inside else 'beyond the runs'))
    return rows

  def spread(self) -> str:
    """Says how many runs there are and how far they are off the law."""
    spread = float(np.sqrt(np.mean(self.fit.residuals**2)))
    return f'{len(self.fit.residuals)} runs, off by {spread:.2%} (root mean square)'

  def powers(self) -> list[str]:
    """Returns N*(C) by the minima as text."""
    if self.power is None:
      return []
    exponent = interval(self.power.exponent, [power.exponent for power in self.power_again])
    return [f'N*(C) = {self.power.factor:.4g} C^{self.power.exponent:.4f}, {exponent}']

  def table(self) -> str:
    """Formats the law, the minima and the warnings, for people."""
    lines = ['L(N, D) = E + A / N^alpha + B / D^beta, with intervals of 80%']
    lines += aligned([(name, str(number)) for name, number in self.numbers().items()])
    lines.append(self.spread())
    if self.minima:
      lines += ['', 'IsoFLOP minima (biased where grids are wide or off their minimum)']
      lines += aligned(self.minima_rows())
    lines += self.powers()
    return '\n'.join([*lines, *(f'warning: {warning}' for warning in self.warnings)])

  def as_dict(self) -> JSON:
    """Returns plain JSON values."""
    return {
      'law': dataclasses.asdict(self.fit.law),
      'objective': self.fit.objective,
      'intervals': {name: dataclasses.asdict(number) for name, number in self.numbers().items()},
      'minima': [dataclasses.asdict(minimum) for minimum in self.minima],
      'power': None if self.power is None else dataclasses.asdict(self.power),
      'warnings': list(self.warnings),
    }


def interval(value: Any, again: Sequence[Any]) -> Interval:
  """Returns a number with the interval of 80% of what it was of draws; its own where none is."""
  return Interval(float(value), *central_interval(again or [value], CONFIDENCE))


def find_law(runs: Runs | Records, *, resamples: int = 200, seed: int = 0) -> LawFindings:
  """Fits the law and the IsoFLOP minima to runs, with intervals and warnings; see `fit_law`."""
  records = as_records(runs)
  best_runs = records.at_best_rates()
  if len(best_runs.runs.loss) > _MANY:
    _log.warning(
      '%d runs, fitted %d times: this may take minutes', len(best_runs.runs.loss), resamples
    )
  fit = fit_law(best_runs.runs, flops=best_runs.flops)
  groups = group_budgets(best_runs.compute)
  enough = np.bincount(groups).min() >= 4
  how = {'how': 'case', 'groups': groups} if enough else {'how': 'residual'}
  again = resample_fits(fit, best_runs.runs, resamples=resamples, seed=seed, **how)
  minima = []
  draws = []
  power = None
  powers = []
  with contextlib.suppress(DataError):
    grid = (best_runs.compute, best_runs.runs.size, best_runs.runs.loss)
    minima = find_minima(*grid)
    draws = resample_minima(*grid, resamples=resamples, seed=seed)
    power = _power(minima)
    powers = [_power(draw) for draw in draws if sum(minimum is not None for minimum in draw) > 1]
  return LawFindings(best_runs, fit, again, minima, draws, power, powers, audit(records, fit))


def _power(minima: Sequence[Minimum | None]) -> PowerLaw:
  present = [minimum for minimum in minima if minimum is not None]
  return fit_power(
    np.array([minimum.compute for minimum in present]),
    np.array([minimum.size for minimum in present]),
  )


def predict(findings: LawFindings, compute: float) -> str:
  """Describes the best size and tokens for a budget, their loss, and the price of other sizes."""
  if not 1 <= compute <= MOST:
    raise ConfigError(f'compute = {compute:g} FLOPs; expected a number from 1 to {MOST:g}')
  law = findings.fit.law
  size = findings.interval(lambda law: law.optimum(compute).size)
  tokens = findings.interval(lambda law: law.optimum(compute).tokens)
  loss = findings.interval(lambda law: law.optimum(compute).loss)
  rows = [
    ('parameters', str(size)),
    ('tokens', str(tokens)),
    ('loss', str(loss)),
    *((f'{factor:g} x the size', _price(law, compute, factor)) for factor in _OFF),
  ]
  lines = [f'{compute:.3g} FLOPs are spent best on, with intervals of 80%', *aligned(rows)]
  if (minima := findings.best_size(compute)) is not None:
    lines.append(f'by the IsoFLOP minima {minima} parameters')
  lines += ['', *aligned(rows_at(compute))]
  beyond = np.log10(compute / findings.records.compute.max())
  if beyond > FURTHEST:
    lines.append(
      f'warning: {beyond:.1f} decades beyond the largest run; laws are rarely right beyond '
      f'{FURTHEST:g}'
    )
  return '\n'.join(lines)


def comparison_rows(
  comparison: Comparison, names: tuple[str, str]
) -> tuple[list[tuple[str, str]], str]:
  """Returns the rows of a table of factors of compute, below a header, and a note to it."""
  rows = [('FLOPs', f'compute that {names[0]} needs for the loss of {names[1]}, as a factor')]
  rows += [(f'{compute:.3g}', str(factor)) for compute, factor in comparison.multipliers.items()]
  note = (
    f'exponent of the best size, {names[1]} less {names[0]}: {comparison.exponent}; '
    f'intervals of 95% from {comparison.resamples} draws'
  )
  return rows, note


def describe_comparison(comparison: Comparison, names: tuple[str, str]) -> str:
  """Formats two recipes beside each other, for people."""
  rows, note = comparison_rows(comparison, names)
  fields = ('e', 'a', 'b', 'alpha', 'beta')
  laws = [
    (name, *(f'{getattr(law, field):.4g}' for field in fields))
    for name, law in zip(names, comparison.laws, strict=True)
  ]
  laws = aligned([('', 'E', 'A', 'B', 'alpha', 'beta'), *laws])
  return '\n'.join([*laws, '', *aligned(rows), note])


def _price(law: Law, compute: float, factor: float) -> str:
  worse = law.at(compute, factor * law.optimum(compute).size)
  return f'loss {worse:.4f}, wastes {1 - 1 / law.price(compute, factor):.1%} of the budget'
