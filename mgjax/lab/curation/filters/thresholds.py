"""Filters that look at a clip alone: numbers within limits (Movie Gen §3.2.1, Table 44)."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mgjax.lab.curation.filters.table import Columns, known

_ROUNDING = 0.05  # seconds, one frame at 20 a second, by which a clip may miss its length


@dataclasses.dataclass(frozen=True)
class Limit:
  """The numbers of a column with which a clip is kept."""

  column: str
  low: float | None = None  # the least, or what it is above
  high: float | None = None  # the most, or what it is below
  above: bool = False  # whether `low` itself is too little
  below: bool = False  # whether `high` itself is too much
  optional: bool = False  # whether a clip without the number is kept


def outside(columns: Columns, limits: tuple[Limit, ...]) -> np.ndarray:
  """Returns the first limit that each clip breaks, as 'text_score 0.83 >= 0.6', or ''."""
  reasons = np.full(len(next(iter(columns.values()))), '', object)
  for broken, values, name, sign, bound in _broken(columns, limits):
    new = broken & (reasons == '')
    reasons[new] = [
      f'{name} {value:.3g} {sign} {bound:g}' if sign else f'{name} is unknown'
      for value in values[new]
    ]
  return reasons


def _broken(
  columns: Columns, limits: tuple[Limit, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray, str, str, float]]:
  """Which clips break each limit, its numbers, their name, and how: '' where none is known."""
  for limit in limits:
    values = columns.get(limit.column)
    if values is None or values.dtype == object:  # nobody measured it, of any clip
      values = np.full(len(next(iter(columns.values()))), np.nan)
    have = known(values)
    if not limit.optional:
      yield ~have, values, limit.column, '', 0.0
    if limit.low is not None:
      low = (values <= limit.low) if limit.above else (values < limit.low)
      yield have & low, values, limit.column, '<=' if limit.above else '<', limit.low
    if limit.high is not None:
      high = (values >= limit.high) if limit.below else (values > limit.high)
      yield have & high, values, limit.column, '>=' if limit.below else '>', limit.high


def with_lengths(columns: Columns) -> dict[str, np.ndarray]:
  """Adds columns that follow from others: 'aspect', and 'clip_seconds' rounded to its limits."""
  extended = dict(columns)
  if 'width' in columns and 'height' in columns:
    extended['aspect'] = columns['width'] / np.maximum(columns['height'], 1)
  if 'start' in columns and 'end' in columns:
    extended['clip_seconds'] = columns['end'] - columns['start']
  return extended


def rounded(low: float, high: float) -> tuple[float, float]:
  """Limits of a length in seconds, with the slack of one frame."""
  return low - _ROUNDING, high + _ROUNDING
