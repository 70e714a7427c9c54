"""A number of the report beside ours."""

import dataclasses
import math
from typing import Any

UNKNOWN = 'not in public sources'


@dataclasses.dataclass(frozen=True)
class About:
  """A number of which the report gives so many digits."""

  value: float

  def __str__(self):
    unit, name = (1e9, 'B') if self.value >= 1e9 else (1e6, 'M')
    return f'{self.value / unit:g}{name}'

  @property
  def digits(self) -> int:
    return len(f'{self.value:.10e}'.split('e')[0].replace('.', '').rstrip('0'))


@dataclasses.dataclass(frozen=True)
class Row:
  """One number: where the report has it, its name, ours, the report's, why they differ if so."""

  place: str
  name: str
  ours: Any
  report: Any
  reason: str = ''

  @property
  def equal(self) -> bool:
    if isinstance(self.report, About):
      return float(f'{self.ours:.{self.report.digits - 1}e}') == self.report.value
    if isinstance(self.report, float):
      return math.isclose(self.ours, self.report, rel_tol=1e-9)
    return self.ours == self.report

  def __str__(self):
    mark = '=' if self.equal else self.reason
    return '  '.join((self.place, self.name, shown(self.ours), shown(self.report), mark))


def shown(value: Any) -> str:
  if isinstance(value, tuple):
    return ', '.join(map(shown, value))
  return (
    f'{value:,}'
    if isinstance(value, int)
    else f'{value:g}'
    if isinstance(value, float)
    else str(value)
  )
