"""The cheap pass: filters say of every clip whether it stays, from its scores alone.

Filters are asked in the order of the settings, each about what those before it left; a clip falls
to the first that drops it.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.data.ingest.entries import alike
from mgjax.lab.curation.filters.registry import filters_of
from mgjax.lab.curation.filters.table import Table
from mgjax.lab.curation.rows import Vectors, pyarrow
from mgjax.lab.curation.settings import CurationSettings

UNMEASURED = 'unmeasured'
_UNTOLD = ('seconds_of', 'error')  # columns that are not in what is kept


@dataclasses.dataclass(frozen=True)
class Step:
  """What one filter did."""

  name: str
  before: int  # clips that it was asked about
  kept: int  # of them
  off: str = ''  # why it was not asked at all; '' if it was
  # Reason -> clips dropped for it; those that differ in numbers alone count together.
  reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0  # that it took


@dataclasses.dataclass(frozen=True)
class Selection:
  """What is kept, and what became of the rest."""

  table: Table  # pyarrow.Table of all rows
  dropped_by: np.ndarray  # objects: a filter, '' of what is kept, UNMEASURED of a broken video
  reasons: np.ndarray  # objects, why
  steps: list[Step]
  vectors: Vectors = dataclasses.field(default_factory=dict)  # columns that are not in the table

  @property
  def clips(self) -> int:
    return int((self.dropped_by != UNMEASURED).sum())

  @property
  def kept(self) -> Any:
    """The rows that are kept, without their costs."""
    rows = self.table.filter(self.dropped_by == '')
    for name, vectors in self.vectors.items():
      selected = vectors[self._kept_rows]
      column = [None if np.isnan(vector).any() else vector for vector in selected]
      rows = rows.append_column(name, pyarrow().array(column, pyarrow().list_(pyarrow().float32())))
    return rows.drop_columns([name for name in _UNTOLD if name in rows.column_names])

  def kept_rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns columns of the rows that are kept: those in `names` that exist."""
    columns = [name for name in self.table.column_names if name in names]
    return self.table.select(columns).filter(self.dropped_by == '').to_pylist()

  @property
  def _kept_rows(self) -> np.ndarray:
    return np.flatnonzero(self.dropped_by == '')

  @property
  def decisions(self) -> Table:
    """The table (clip, filter, reason), a row for every clip."""
    fields = {'filter': self.dropped_by.tolist(), 'reason': self.reasons.tolist()}
    return pyarrow().table({'clip': self.table.column('clip'), **fields})

  def then(self, name: str, reasons: Sequence[str], seconds: float = 0.0) -> 'Selection':
    """Returns the selection after a step that reads more than scores.

    `reasons` are of the clips kept so far, '' for a clip that the step keeps.
    """
    rows = self._kept_rows
    step_reasons = np.asarray([*reasons, ''], object)[:-1]
    dropped_by = self.dropped_by.copy()
    why = self.reasons.copy()
    lost = step_reasons != ''
    dropped_by[rows[lost]] = name
    why[rows[lost]] = step_reasons[lost]
    step = Step(
      name, len(rows), int((~lost).sum()), reasons=alike(step_reasons[lost]), seconds=seconds
    )
    return dataclasses.replace(self, dropped_by=dropped_by, reasons=why, steps=[*self.steps, step])

  def funnel(self) -> JSON:
    """Returns the counts in plain JSON values."""
    return {
      'clips': self.clips,
      'kept': int((self.dropped_by == '').sum()),
      UNMEASURED: alike(self.reasons[self.dropped_by == UNMEASURED]),
      'filters': [
        {
          'name': step.name,
          'before': step.before,
          'kept': step.kept,
          'share': step.kept / max(self.clips, 1),
          'off': step.off,
          'reasons': dict(step.reasons),
        }
        for step in self.steps
      ],
    }


def select(table: Any, settings: CurationSettings, vectors: Vectors | None = None) -> Selection:
  """Applies the filters to all rows; `vectors` are columns that are not in the table."""
  filters = filters_of(settings)
  vectors = vectors or {}
  dropped_by = np.full(len(table), '', object)
  reasons = np.full(len(table), '', object)
  errors = table.column('error')
  broken = errors.is_valid().to_numpy()
  dropped_by[broken] = UNMEASURED
  reasons[broken] = errors.filter(broken).to_pylist()
  remaining = np.flatnonzero(~broken)
  steps = []
  for rule in filters:
    began = time.monotonic()
    rows = _rows(table, rule.columns(), remaining, vectors)
    if len(remaining) and (off := rule.off(rows, settings.keep)):
      steps.append(Step(rule.name, len(remaining), len(remaining), off))
      continue
    row_reasons = np.asarray(rule.keep(rows, settings.keep), object)
    stays = row_reasons == ''
    lost = remaining[~stays]
    dropped_by[lost] = rule.name
    reasons[lost] = row_reasons[~stays]
    why = alike(row_reasons[~stays])
    seconds = time.monotonic() - began
    steps.append(Step(rule.name, len(remaining), int(stays.sum()), '', why, seconds))
    remaining = remaining[stays]
  return Selection(table, dropped_by, reasons, steps, vectors)


def _rows(
  table: Any, names: Sequence[str], remaining: np.ndarray, vectors: Vectors
) -> dict[str, Any]:
  """Returns the remaining rows, with those columns in `names` that exist."""
  rows = table.select([name for name in table.column_names if name in {'clip', *names}])
  rows = rows if len(remaining) == len(table) else rows.take(remaining)
  columns = {name: rows.column(name) for name in rows.column_names}
  return columns | {name: vector[remaining] for name, vector in vectors.items() if name in names}
