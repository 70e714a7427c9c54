"""What curation costs: each score, of a clip and of very many.

The pass that measures makes all scores of a clip, so that a threshold can be changed later.
"""

import dataclasses
from typing import Any

import numpy as np

from mgjax.lab.curation.filters.table import as_columns
from mgjax.lab.curation.rows import GATED, pyarrow

MANY = 100_000_000  # clips, of the paper's kind of pool
_DAYS = 30


@dataclasses.dataclass(frozen=True)
class Costs:
  """What scores cost."""

  clips: int  # of which all scores were made
  seconds: dict[str, float]  # of a processor, of all clips, by scorer; probe, decode and shots too
  decoded: int  # frames that were decoded while scores were made
  packets: int  # frames that these videos have
  gated: int  # videos that were not decoded

  @property
  def all(self) -> float:
    """Processor seconds of a clip as it was measured, those that were not decoded among them."""
    return sum(self.seconds.values()) / max(self.clips + self.gated, 1)


def costs_of(table: Any) -> Costs:
  """Sums the costs of scores over the rows of a table."""
  measured = np.ones(len(table), bool)
  gated = 0
  for name in {'error', GATED} & set(table.column_names):
    flagged = table[name].is_valid().to_numpy()
    measured &= ~flagged
    gated = int(flagged.sum()) if name == GATED else gated
  places = np.flatnonzero(measured)
  columns = as_columns(table, ('decoded', 'packets', 'place'))
  if 'place' in columns:  # all clips of a video have its numbers in their rows
    places = places[np.unique(columns['place'][places], return_index=True)[1]]
  decoded, packets = (
    int(np.nansum(columns[name][places])) if name in columns else 0
    for name in ('decoded', 'packets')
  )
  return Costs(int(measured.sum()), _seconds(table), decoded, packets, gated)


def describe_costs(costs: Costs) -> list[str]:
  """Describes in lines the cost of each score, the dearest first, and of many clips."""
  if not costs.clips or not costs.seconds:
    return []
  order = sorted(costs.seconds, key=lambda name: -costs.seconds[name])
  parts = (f'{name} {costs.seconds[name] / costs.clips:.3g} s' for name in order)
  return [f'a clip costs, of a processor: {", ".join(parts)}', summary(costs)]


def summary(costs: Costs) -> str:
  """Says what a clip costs, and what very many take."""
  days = costs.all * MANY / 86_400
  return (
    f'{costs.all:.3g} s of a processor a clip; {MANY:,} clips like these, as measured and not cut: '
    f'{days:,.0f} days of a core, or {_DAYS} days of {days / _DAYS:,.0f} cores'
  )


def _seconds(table: Any) -> dict[str, float]:
  """Sums of what rows say by name."""
  if 'seconds_of' not in table.column_names:
    return {}
  import pyarrow.compute as compute

  column = table['seconds_of']
  kind = table.schema.field('seconds_of').type
  names = [field.name for field in kind] if pyarrow().types.is_struct(kind) else []
  sums = {name: compute.sum(compute.struct_field(column, name)).as_py() for name in names}
  return {name: value for name, value in sums.items() if value is not None}
