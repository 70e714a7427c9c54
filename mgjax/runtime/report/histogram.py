"""How often which numbers come, as SVG; `page` has the style of its parts."""

import html
import itertools
import math
from collections.abc import Sequence

import numpy as np

from mgjax.runtime.report.charts import (
  BOTTOM,
  HEIGHT,
  LEFT,
  RIGHT,
  TOP,
  WIDTH,
  format_number,
  ticks,
)

_BINS = 24  # at most


def histogram(title: str, numbers: Sequence[float], mark: float = math.nan) -> str:
  """Draws how many of some numbers lie where, and a line at one of them, such as their mean.

  Args:
    title: above it.
    numbers: those that are not finite are left out.
    mark: where the line stands, NaN for none.

  Returns:
    An SVG element, or '' of fewer than two different numbers.
  """
  kept = np.array([number for number in numbers if math.isfinite(number)], np.float64)
  if len(kept) < 2 or np.ptp(kept) == 0:
    return ''
  low, high = float(kept.min()), float(kept.max())
  counts, edges = np.histogram(kept, min(_BINS, max(4, math.ceil(2 * len(kept) ** (1 / 3)))))
  most, bottom = int(counts.max()), HEIGHT - BOTTOM

  def across(value: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * (value - low) / (high - low)

  def up(count: float) -> float:
    return bottom - (bottom - TOP) * count / most

  parts = [f'<text class="title" x="{LEFT}" y="15">{html.escape(title)}</text>']
  for count in dict.fromkeys(round(each) for each in ticks(0, most)):
    parts.append(
      f'<line class="grid" x1="{LEFT}" y1="{up(count):.1f}" x2="{WIDTH - RIGHT}" '
      f'y2="{up(count):.1f}"/><text class="y" x="{LEFT - 5}" y="{up(count) + 4:.1f}">{count}</text>'
    )
  for value in ticks(low, high):
    parts.append(
      f'<text class="x" x="{across(value):.1f}" y="{bottom + 16}">{format_number(value)}</text>'
    )
  between = itertools.pairwise(edges.tolist())
  for count, (first, last) in zip(counts.tolist(), between, strict=True):
    told = f'{count} from {format_number(first)} to {format_number(last)}'
    parts.append(
      f'<rect x="{across(first) + 0.5:.1f}" y="{up(count):.1f}" '
      f'width="{across(last) - across(first) - 1:.1f}" height="{bottom - up(count):.1f}" '
      f'style="fill:var(--c0)"><title>{told}</title></rect>'
    )
  if low <= mark <= high:
    x = f'{across(mark):.1f}'
    parts.append(f'<line class="mark" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>')
  label = html.escape(
    f'{title}: {len(kept)} numbers from {format_number(low)} to {format_number(high)}'
  )
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
  )
