"""Filters that look at a clip alone: numbers within limits (Movie Gen §3.2.1, Table 44)."""

import dataclasses

import numpy as np

from mgjax.curation.filters.table import Columns, known

_ROUNDING = 0.05  # seconds, one frame at 20 a second, by which a clip may miss its length


@dataclasses.dataclass(frozen=True)
class Limit:
  """The numbers of a column with which a clip is kept.

  Attributes:
    column: of the table.
    low: the least, or what it is above.
    high: the most, or what it is below.
    above: whether `low` itself is too little.
    below: whether `high` itself is too much.
    optional: whether a clip without the number is kept.
  """

  column: str
  low: float | None = None
  high: float | None = None
  above: bool = False
  below: bool = False
  optional: bool = False


def outside(columns: Columns, limits: tuple[Limit, ...]) -> np.ndarray:
  """Says of each clip which limit it breaks first, as 'text_score 0.83 >= 0.6', or ''.

  Args:
    columns: numbers by name, (n).
    limits: in order.

  Returns:
    Objects (n).
  """
  count = len(next(iter(columns.values())))
  reasons = np.full(count, '', object)
  for limit in limits:
    values = columns.get(limit.column)
    if values is None or values.dtype == object:  # nobody measured it, of any clip
      values = np.full(count, np.nan)
    have = known(values)
    if not limit.optional:
      _say(reasons, ~have, [f'{limit.column} is unknown'] * int((~have).sum()))
    if limit.low is not None:
      low = have & ((values <= limit.low) if limit.above else (values < limit.low))
      sign = '<=' if limit.above else '<'
      _say(
        reasons, low, [f'{limit.column} {each:.3g} {sign} {limit.low:g}' for each in values[low]]
      )
    if limit.high is not None:
      high = have & ((values >= limit.high) if limit.below else (values > limit.high))
      sign = '>=' if limit.below else '>'
      _say(
        reasons, high, [f'{limit.column} {each:.3g} {sign} {limit.high:g}' for each in values[high]]
      )
  return reasons


def breaks(columns: Columns, limits: tuple[Limit, ...]) -> np.ndarray:
  """Says which clips break a limit, bool (n): those of which `outside` gives a reason."""
  found = np.zeros(len(next(iter(columns.values()))), bool)
  for limit in limits:
    values = columns.get(limit.column)
    if values is None or values.dtype == object:
      values = np.full(len(found), np.nan)
    have = known(values)
    found |= ~have & (not limit.optional)
    if limit.low is not None:
      found |= have & ((values <= limit.low) if limit.above else (values < limit.low))
    if limit.high is not None:
      found |= have & ((values >= limit.high) if limit.below else (values > limit.high))
  return found


def with_lengths(columns: Columns) -> dict[str, np.ndarray]:
  """Columns with what follows from others: 'aspect', and 'clip_seconds' rounded to its limits."""
  made = dict(columns)
  if 'width' in columns and 'height' in columns:
    made['aspect'] = columns['width'] / np.maximum(columns['height'], 1)
  if 'start' in columns and 'end' in columns:
    made['clip_seconds'] = columns['end'] - columns['start']
  return made


def rounded(low: float, high: float) -> tuple[float, float]:
  """Limits of a length in seconds, with the slack of one frame."""
  return low - _ROUNDING, high + _ROUNDING


def _say(reasons: np.ndarray, rows: np.ndarray, said: list[str]) -> None:
  if not said:
    return
  new = np.full(len(reasons), '', object)
  new[rows] = said
  free = rows & (reasons == '')
  reasons[free] = new[free]
