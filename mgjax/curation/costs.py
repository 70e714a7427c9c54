"""What curation costs: each score, each filter, and the order in which filters cost least.

The pass that measures makes all scores of a clip, so that a threshold can be changed. What a run
costs that makes the scores of a filter only for clips that the filters before it left follows from
its rows: of each clip they say what its scores cost and which filters drop it.

A filter costs what its scorers cost that no filter before it needed; the first that needs frames
pays for decoding. The best order takes, one after another, the filter with the least cost per clip
that it drops, of the clips that are left. Filters that look at all clips at once, as that of
copies, keep their places at the end.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.typing import Bool
from mgjax.curation.filters.registry import Filter, filters_of
from mgjax.curation.filters.table import as_columns
from mgjax.curation.filters.thresholds import breaks, with_lengths
from mgjax.curation.gate import PROBED
from mgjax.curation.rows import GATED
from mgjax.curation.settings import CurationSettings

PROBE, DECODE, SHOTS = 'probe', 'decode', 'shots'
MANY = 100_000_000  # clips, of the paper's kind of pool
_DAYS = 30


@dataclasses.dataclass(frozen=True)
class Scored:
  """What scores cost.

  Attributes:
    clips: of which all scores were made.
    seconds: name of a scorer, PROBE, DECODE and so on -> processor seconds of all clips.
    decoded: frames that were decoded while scores were made.
    packets: frames that these videos have.
    gated: videos that were not decoded.
  """

  clips: int
  seconds: dict[str, float]
  decoded: int
  packets: int
  gated: int

  def a_clip(self, name: str) -> float:
    """Processor seconds of a clip."""
    return self.seconds.get(name, 0.0) / max(self.clips, 1)


@dataclasses.dataclass(frozen=True)
class Place:
  """A filter at its place in an order.

  Attributes:
    name: of the filter.
    seconds: of a processor, that the scores cost of a clip that comes so far.
    came: share of all clips that comes so far.
    dropped: share of these that it drops.
    alone: share of all clips that it would drop.
  """

  name: str
  seconds: float
  came: float
  dropped: float
  alone: float

  @property
  def a_dropped(self) -> float:
    """Processor seconds for each clip that it drops; inf if it drops none."""
    return self.seconds / self.dropped if self.dropped else float('inf')


@dataclasses.dataclass(frozen=True)
class Costs:
  """What orders of filters cost.

  Attributes:
    scored: what scores cost.
    order: the filters in the order of the settings.
    best: and in the best one.
    rest: processor seconds of a clip for scores that none of these filters reads.
  """

  scored: Scored
  order: list[Place]
  best: list[Place]
  rest: float

  @property
  def all(self) -> float:
    """Processor seconds of a clip as it was measured, those that were not decoded among them."""
    count = self.scored.clips + self.scored.gated
    return sum(self.scored.seconds.values()) / max(count, 1)

  @property
  def is_best(self) -> bool:
    """Whether the order of the settings costs no more than the best one."""
    return expected(self.order) <= expected(self.best) * (1 + 1e-9)


def expected(places: Sequence[Place]) -> float:
  """Processor seconds of a clip if scores are made only of what is left."""
  return sum(place.came * place.seconds for place in places)


def scored(table: Any) -> Scored:
  """Adds up what the rows say.

  Args:
    table: of rows as `measure.py` makes them, a pyarrow.Table or columns by name.
  """
  held = table.column_names if hasattr(table, 'column_names') else list(table)
  columns = as_columns(table, ('decoded', 'packets', 'place'))
  whole = _whole(table)
  gated = int(_said(table[GATED]).sum()) if GATED in held else 0
  places = np.flatnonzero(whole)
  if 'place' in columns:  # what is of a video is in the rows of all its clips
    _, first = np.unique(columns['place'][places], return_index=True)
    places = places[first]
  frames = {
    name: int(np.nansum(columns[name][places])) if name in columns else 0
    for name in ('decoded', 'packets')
  }
  seconds = _seconds(table['seconds_of']) if 'seconds_of' in held else {}
  return Scored(int(whole.sum()), seconds, frames['decoded'], frames['packets'], gated)


def costs_of(table: Any, settings: CurationSettings) -> Costs:
  """Says what the filters cost, in the order of the settings and in the best one.

  Args:
    table: of rows, as for `scored`.
    settings: of the filters.
  """
  spent = scored(table)
  asked = [
    each
    for each in filters_of(settings)
    if each.judge is None and not each.off(table, settings.keep)
  ]
  whole = _whole(table)
  dropped = {each.name: _dropped(each, table, whole, settings) for each in asked}
  needs = {each.name: _needs(each, spent) for each in asked}
  order = _placed([each.name for each in asked], dropped, needs, spent)
  best = _placed(_best(dropped, needs, spent), dropped, needs, spent)
  used = set().union(*needs.values()) if needs else set()
  rest = sum(spent.a_clip(name) for name in spent.seconds if name not in used)
  return Costs(spent, order, best, rest)


def describe_costs(costs: Costs) -> list[str]:
  """Says in lines what filters cost, in which order they should run, and what many clips take."""
  if not costs.scored.clips or not costs.best:
    return []
  lines = ['filters by their cost per dropped clip, if scores are made only of what is left:']
  width = max(len(place.name) for place in costs.best)
  for place in costs.best:
    each = f', {place.a_dropped:.3g} s a clip dropped' if place.dropped else ''
    lines.append(
      f'  {place.name:<{width}}  {1e3 * place.seconds:.3g} ms a clip, drops {place.dropped:.1%} of '
      f'{place.came:.1%} that come{each}'
    )
  return [*lines, *summary(costs)]


def summary(costs: Costs) -> list[str]:
  """Says what a clip costs in either order, and what very many take."""
  told = 'which is as cheap' if costs.is_best else 'which costs more'
  days = costs.all * MANY / 86_400
  best = expected(costs.best)
  return [
    f'the configuration has the order {", ".join(place.name for place in costs.order)}, {told}',
    f'a clip costs {best:.3g} s of a processor in the best order, {expected(costs.order):.3g} s in '
    f'that of the configuration, {costs.all:.3g} s as it was measured',
    f'{MANY:,} clips like these, as measured and not cut: {days:,.0f} days of a core, or {_DAYS} '
    f'days of {days / _DAYS:,.0f} cores; in the best order {best * MANY / 86_400:,.0f} days of one',
  ]


def _plain(column: Any) -> Any:
  return column.to_pylist() if hasattr(column, 'to_pylist') else column


def _seconds(column: Any) -> dict[str, float]:
  """Sums of what is said by name, of a column of structures or of dictionaries."""
  if hasattr(column, 'type') and str(column.type).startswith('struct'):
    import pyarrow.compute

    fields = [column.type.field(number).name for number in range(column.type.num_fields)]
    sums = {
      name: pyarrow.compute.sum(pyarrow.compute.struct_field(column, name)).as_py()
      for name in fields
    }
    return {name: value for name, value in sums.items() if value is not None}
  spent: dict[str, float] = {}
  for each in _plain(column):
    for name, value in dict(each or {}).items():
      if value is not None:
        spent[name] = spent.get(name, 0.0) + value
  return spent


def _dropped(
  each: Filter, table: Any, whole: Bool[np.ndarray, 'n'], settings: CurationSettings
) -> Bool[np.ndarray, 'm']:
  """Which of the clips that have all scores a filter drops."""
  columns = {name: rows[whole] for name, rows in as_columns(table, each.columns()).items()}
  return breaks(with_lengths(columns), each.limits(settings.keep))


def _whole(table: Any) -> Bool[np.ndarray, 'n']:
  """Which rows are of clips that have all scores."""
  held = table.column_names if hasattr(table, 'column_names') else list(table)
  whole = np.ones(len(table['clip']) if 'clip' in held else 0, bool)
  for name in ('error', GATED):
    if name in held:
      whole &= ~_said(table[name])
  return whole


def _said(column: Any) -> Bool[np.ndarray, 'n']:
  """Which rows of a column of reasons have one."""
  if hasattr(column, 'is_valid'):
    return column.is_valid().to_numpy(zero_copy_only=False)
  return np.array([bool(each) for each in column], bool)


def _needs(each: Filter, spent: Scored) -> frozenset[str]:
  """What has to be done before a filter can be asked."""
  columns = set(each.columns())
  if columns <= set(PROBED):
    return frozenset({PROBE})
  made = {name for name in spent.seconds if any(c.startswith(f'{name}_') for c in columns)}
  return frozenset({PROBE, DECODE, SHOTS} | made)


def _placed(
  names: Sequence[str], dropped: dict[str, Any], needs: dict[str, frozenset[str]], spent: Scored
) -> list[Place]:
  left = np.ones(spent.clips, bool)
  paid: set[str] = set()
  places = []
  for name in names:
    came = int(left.sum())
    falls = int((left & dropped[name]).sum())
    places.append(
      Place(
        name=name,
        seconds=sum(spent.a_clip(each) for each in needs[name] - paid),
        came=came / max(spent.clips, 1),
        dropped=falls / max(came, 1),
        alone=float(np.mean(dropped[name])) if spent.clips else 0.0,
      )
    )
    paid |= needs[name]
    left &= ~dropped[name]
  return places


def _best(dropped: dict[str, Any], needs: dict[str, frozenset[str]], spent: Scored) -> list[str]:
  """Takes the filter with the least cost per clip that it drops, again and again."""
  left, paid, names = np.ones(spent.clips, bool), set(), []

  def cost(name: str) -> tuple[float, float]:
    seconds = sum(spent.a_clip(each) for each in needs[name] - paid)
    falls = float((left & dropped[name]).sum())
    return (seconds * left.sum() / falls if falls else float('inf')), seconds

  while len(names) < len(dropped):
    name = min((each for each in dropped if each not in names), key=cost)
    names.append(name)
    paid |= needs[name]
    left &= ~dropped[name]
  return names
