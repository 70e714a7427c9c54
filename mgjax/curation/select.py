"""The cheap pass: filters say of every clip whether it stays, from its scores alone.

Filters are asked in the order of the settings, each about what those before it left; a clip falls
to the first that drops it. Nothing is measured here, so a threshold may be changed as often as
wanted.
"""

import collections
import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.curation.filters.registry import FILTERS
from mgjax.curation.settings import CurationSettings

_NUMBER = re.compile(r'-?\d+(\.\d+)?(e-?\d+)?')
_UNTOLD = ('seconds_of', 'shard', 'error')  # columns that are not in what is kept


@dataclasses.dataclass(frozen=True)
class Step:
  """What one filter did.

  Attributes:
    name: of the filter.
    before: clips that it was asked about.
    kept: of them.
    off: why it was not asked at all; '' if it was.
    reasons: reason -> clips dropped for it; those that differ in numbers alone count together.
    seconds: that it took.
  """

  name: str
  before: int
  kept: int
  off: str = ''
  reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Selection:
  """What is kept, and what became of the rest.

  Attributes:
    table: pyarrow.Table of all clips that could be measured.
    dropped_by: the filter that dropped each of them; '' of one that is kept.
    reasons: why.
    steps: what each filter did, in their order.
    unmeasured: video -> why it could not be measured.
  """

  table: Any
  dropped_by: np.ndarray
  reasons: np.ndarray
  steps: list[Step]
  unmeasured: dict[str, str]

  @property
  def kept(self) -> Any:
    """The rows that are kept, without what they cost."""
    rows = self.table.filter(self.dropped_by == '')
    return rows.drop_columns([name for name in _UNTOLD if name in rows.column_names])

  @property
  def decisions(self) -> Any:
    """The table (clip, filter, reason) of all clips and of the videos that cannot be measured."""
    import pyarrow

    videos = list(self.unmeasured)
    return pyarrow.table(
      {
        'clip': [*self.table.column('clip').to_pylist(), *videos],
        'filter': [*self.dropped_by.tolist(), *['measured'] * len(videos)],
        'reason': [*self.reasons.tolist(), *self.unmeasured.values()],
      }
    )

  def funnel(self) -> dict[str, Any]:
    """Returns the counts in plain JSON values."""
    clips = len(self.table)
    return {
      'clips': clips,
      'kept': int((self.dropped_by == '').sum()),
      'unmeasured': alike(self.unmeasured.values()),
      'filters': [
        {
          'name': step.name,
          'before': step.before,
          'kept': step.kept,
          'share': step.kept / clips if clips else 0.0,
          'off': step.off,
          'reasons': dict(step.reasons),
        }
        for step in self.steps
      ],
    }


def select(table: Any, settings: CurationSettings) -> Selection:
  """Asks the filters about all rows.

  Args:
    table: pyarrow.Table of rows as `measure.py` makes them.
    settings: of filters and their order.

  Raises:
    ConfigError: a filter of the order is unknown.
  """
  if unknown := [name for name in settings.order if name not in FILTERS]:
    raise ConfigError(f'order names {unknown[0]!r}; expected filters of {", ".join(FILTERS)}')
  errors = table.filter(table.column('error').is_valid())
  unmeasured = dict(
    zip(*(errors.column(name).to_pylist() for name in ('video', 'error')), strict=True)
  )
  table = table.filter(table.column('error').is_null())
  dropped_by, reasons = np.full(len(table), '', object), np.full(len(table), '', object)
  left, steps = np.arange(len(table)), []
  for name in settings.order:
    chosen, began = FILTERS[name], time.monotonic()
    rows = table if len(left) == len(table) else table.take(left)
    if off := chosen.off(rows, settings.keep):
      steps.append(Step(name, len(left), len(left), off))
      continue
    found = np.asarray(chosen.keep(rows, settings.keep), object)
    stays = found == ''
    dropped_by[left[~stays]], reasons[left[~stays]] = name, found[~stays]
    counts = alike(found[~stays])
    steps.append(Step(name, len(left), int(stays.sum()), '', counts, time.monotonic() - began))
    left = left[stays]
  return Selection(table, dropped_by, reasons, steps, unmeasured)


def alike(reasons: Any) -> dict[str, int]:
  """Counts reasons, commonest first; those that differ in numbers alone count as the commonest."""
  groups: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  for reason, count in collections.Counter(reasons).items():
    groups[_NUMBER.sub('0', reason)][reason] += count
  counted = {group.most_common(1)[0][0]: group.total() for group in groups.values()}
  return dict(sorted(counted.items(), key=lambda each: -each[1]))
