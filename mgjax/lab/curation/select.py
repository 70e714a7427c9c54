"""The cheap pass: filters say of every clip whether it stays, from its scores alone.

Filters are asked in the order of the settings, each about what those before it left; a clip falls
to the first that drops it.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

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
  def kept(self) -> Table:
    """The rows that are kept, without what they cost."""
    rows = self.table.filter(self.dropped_by == '')
    for name, vectors in self.vectors.items():
      kept = vectors[self._kept_rows]
      column = [None if np.isnan(each).any() else each for each in kept]
      rows = rows.append_column(name, pyarrow().array(column, pyarrow().list_(pyarrow().float32())))
    return rows.drop_columns([name for name in _UNTOLD if name in rows.column_names])

  def kept_rows(self, names: Sequence[str]) -> list[JSON]:
    """Returns some columns of the rows that are kept, those of `names` that are there."""
    found = [name for name in self.table.column_names if name in names]
    return self.table.select(found).filter(self.dropped_by == '').to_pylist()

  @property
  def _kept_rows(self) -> np.ndarray:
    return np.flatnonzero(self.dropped_by == '')

  @property
  def decisions(self) -> Table:
    """The table (clip, filter, reason), a row for every clip."""
    told = {'filter': self.dropped_by.tolist(), 'reason': self.reasons.tolist()}
    return pyarrow().table({'clip': self.table.column('clip'), **told})

  def then(self, name: str, reasons: Sequence[str], seconds: float = 0.0) -> 'Selection':
    """Returns what is left after a step that looks at more than scores.

    Its `reasons` are of the clips kept so far, '' of one that it does not drop.
    """
    rows = self._kept_rows
    said = np.asarray([*reasons, ''], object)[:-1]
    dropped_by = self.dropped_by.copy()
    why = self.reasons.copy()
    lost = said != ''
    dropped_by[rows[lost]] = name
    why[rows[lost]] = said[lost]
    step = Step(name, len(rows), int((~lost).sum()), reasons=alike(said[lost]), seconds=seconds)
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


def select(table: Table, settings: CurationSettings, vectors: Vectors | None = None) -> Selection:
  """Asks the filters about all rows; `vectors` are columns that are not in the table."""
  asked = filters_of(settings)
  vectors = vectors or {}
  dropped_by, reasons = np.full(len(table), '', object), np.full(len(table), '', object)
  errors = table.column('error')
  broken = errors.is_valid().to_numpy()
  dropped_by[broken] = UNMEASURED
  reasons[broken] = errors.filter(broken).to_pylist()
  left = np.flatnonzero(~broken)
  steps = []
  for each in asked:
    began = time.monotonic()
    rows = _rows(table, each.columns(), left, vectors)
    if len(left) and (off := each.off(rows, settings.keep)):
      steps.append(Step(each.name, len(left), len(left), off))
      continue
    found = np.asarray(each.keep(rows, settings.keep), object)
    stays = found == ''
    lost = left[~stays]
    dropped_by[lost] = each.name
    reasons[lost] = found[~stays]
    why = alike(found[~stays])
    seconds = time.monotonic() - began
    steps.append(Step(each.name, len(left), int(stays.sum()), '', why, seconds))
    left = left[stays]
  return Selection(table, dropped_by, reasons, steps, vectors)


def _rows(table: Table, names: Sequence[str], left: np.ndarray, vectors: Vectors) -> JSON:
  """Some rows, and of their columns those that are named and there."""
  rows = table.select([name for name in table.column_names if name in {'clip', *names}])
  rows = rows if len(left) == len(table) else rows.take(left)
  found = {name: rows.column(name) for name in rows.column_names}
  return found | {name: each[left] for name, each in vectors.items() if name in names}
