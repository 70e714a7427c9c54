"""What curation costs: each score, and each filter at its place in the order.

The pass that measures makes all scores of a clip, so that a threshold can be changed. What a run
costs that makes the scores of a filter only for clips that the filters before it left follows from
its rows: of each clip they say what its scores cost and which filters drop it.

A filter costs what its scorers cost that no filter before it needed; the first that needs frames
pays for decoding. Filters that look at all clips at once, as that of copies, are not counted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.typing import Bool
from mgjax.curation.filters.registry import Filter, filters_of
from mgjax.curation.filters.table import as_columns
from mgjax.curation.filters.thresholds import breaks, with_lengths
from mgjax.curation.gate import PROBED
from mgjax.curation.rows import GATED, pyarrow
from mgjax.curation.settings import CurationSettings

PROBE, DECODE, SHOTS = 'probe', 'decode', 'shots'
MANY = 100_000_000  # clips, of the paper's kind of pool
_DAYS = 30


@dataclasses.dataclass(frozen=True)
class Place:
  """A filter at its place in an order."""

  name: str
  seconds: float  # of a processor, that the scores cost of a clip that comes so far
  came: float  # share of all clips that comes so far
  dropped: float  # share of these that it drops

  @property
  def a_dropped(self) -> float:
    """Processor seconds for each clip that it drops; inf if it drops none."""
    return self.seconds / self.dropped if self.dropped else float('inf')


@dataclasses.dataclass(frozen=True)
class Costs:
  """What scores cost, and filters in the order of the settings."""

  clips: int  # of which all scores were made
  seconds: dict[str, float]  # scorer, PROBE, DECODE, SHOTS -> of a processor, of all clips
  decoded: int  # frames that were decoded while scores were made
  packets: int  # frames that these videos have
  gated: int  # videos that were not decoded
  order: list[Place]

  @property
  def all(self) -> float:
    """Processor seconds of a clip as it was measured, those that were not decoded among them."""
    return sum(self.seconds.values()) / max(self.clips + self.gated, 1)


def expected(places: Sequence[Place]) -> float:
  """Processor seconds of a clip if scores are made only of what is left."""
  return sum(place.came * place.seconds for place in places)


def costs_of(table: Any, settings: CurationSettings) -> Costs:
  """Adds up what scores cost, and what filters do in the settings' order."""
  whole, gated = np.ones(len(table), bool), 0
  for name in {'error', GATED} & set(table.column_names):
    said = table[name].is_valid().to_numpy()
    whole &= ~said
    gated = int(said.sum()) if name == GATED else gated
  clips, seconds = int(whole.sum()), _seconds(table)
  places = np.flatnonzero(whole)
  columns = as_columns(table, ('decoded', 'packets', 'place'))
  if 'place' in columns:  # what is of a video is in the rows of all its clips
    places = places[np.unique(columns['place'][places], return_index=True)[1]]
  decoded, packets = (
    int(np.nansum(columns[name][places])) if name in columns else 0
    for name in ('decoded', 'packets')
  )
  a_clip = {name: value / max(clips, 1) for name, value in seconds.items()}
  dropped, needs = {}, {}
  for each in filters_of(settings):
    if each.judge is None and not each.off(table, settings.keep):
      scores = {name: rows[whole] for name, rows in as_columns(table, each.columns()).items()}
      dropped[each.name] = breaks(with_lengths(scores), each.limits(settings.keep))
      needs[each.name] = _needs(each, a_clip)
  return Costs(clips, seconds, decoded, packets, gated, _placed(dropped, needs, a_clip, clips))


def describe_costs(costs: Costs) -> list[str]:
  """Says in lines what filters cost in their order, and what many clips take."""
  if not costs.clips or not costs.order:
    return []
  lines = ['filters in their order, if scores are made only of what is left:']
  width = max(len(place.name) for place in costs.order)
  for place in costs.order:
    each = f', {place.a_dropped:.3g} s a clip dropped' if place.dropped else ''
    lines.append(
      f'  {place.name:<{width}}  {1e3 * place.seconds:.3g} ms a clip, drops {place.dropped:.1%} of '
      f'{place.came:.1%} that come{each}'
    )
  return [*lines, *summary(costs)]


def summary(costs: Costs) -> list[str]:
  """Says what a clip costs, and what very many take."""
  days, left = costs.all * MANY / 86_400, expected(costs.order)
  return [
    f'a clip costs {costs.all:.3g} s of a processor as it was measured, {left:.3g} s if scores are '
    'made only of what is left',
    f'{MANY:,} clips like these, as measured and not cut: {days:,.0f} days of a core, or {_DAYS} '
    f'days of {days / _DAYS:,.0f} cores',
  ]


def _seconds(table: Any) -> dict[str, float]:
  """Sums of what rows say by name."""
  if 'seconds_of' not in table.column_names:
    return {}
  import pyarrow.compute as compute

  column, kind = table['seconds_of'], table.schema.field('seconds_of').type
  names = [field.name for field in kind] if pyarrow().types.is_struct(kind) else []
  sums = {name: compute.sum(compute.struct_field(column, name)).as_py() for name in names}
  return {name: value for name, value in sums.items() if value is not None}


def _needs(each: Filter, a_clip: Mapping[str, float]) -> frozenset[str]:
  """What has to be done before a filter can be asked."""
  columns = set(each.columns())
  if columns <= set(PROBED):
    return frozenset({PROBE})
  made = {name for name in a_clip if any(c.startswith(f'{name}_') for c in columns)}
  return frozenset({PROBE, DECODE, SHOTS} | made)


def _placed(
  dropped: Mapping[str, Bool[np.ndarray, 'n']],
  needs: Mapping[str, frozenset[str]],
  a_clip: Mapping[str, float],
  clips: int,
) -> list[Place]:
  """What filters cost one after another."""
  left, paid, places = np.ones(clips, bool), set(), []
  for name, drops in dropped.items():
    came = int(left.sum())
    places.append(
      Place(
        name=name,
        seconds=sum(a_clip.get(each, 0.0) for each in needs[name] - paid),
        came=came / max(clips, 1),
        dropped=int((left & drops).sum()) / max(came, 1),
      )
    )
    paid |= needs[name]
    left &= ~drops
  return places
