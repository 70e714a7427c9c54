"""Draws numbers with their intervals, one below the other, as SVG; `page` has its styles."""

import html
import math
from collections.abc import Mapping

from mgjax.runtime.report.charts import RIGHT, TOP, WIDTH, format_number, ticks

NAMES = 190  # width of the names
ROW, BELOW = 22, 26
_LETTERS = 30  # of a name that are shown


def interval_chart(title: str, rows: Mapping[str, tuple[float, float, float]]) -> str:
  """Draws a point and its interval, (value, low, high), for each name, and a line at 0, as SVG.

  Rows that are not finite are left out; '' where none is left.
  """
  kept = {name: row for name, row in rows.items() if all(map(math.isfinite, row))}
  if not kept:
    return ''
  least = min(0.0, *(min(row) for row in kept.values()))
  most = max(0.0, *(max(row) for row in kept.values()))
  scale = (WIDTH - RIGHT - NAMES) / ((most - least) or 1.0)
  bottom = TOP + ROW * len(kept)

  def across(value: float) -> float:
    return NAMES + (value - least) * scale

  parts = [f'<text class="title" x="4" y="15">{html.escape(title)}</text>']
  for value in ticks(least, most):
    x = f'{across(value):.1f}'
    kind = 'grid' if value else 'mark'
    parts.append(f'<line class="{kind}" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>')
    parts.append(f'<text class="x" x="{x}" y="{bottom + 15}">{format_number(value)}</text>')
  said = []
  for index, (name, (value, low, high)) in enumerate(kept.items()):
    y = TOP + ROW * (index + 0.5)
    short = name if len(name) <= _LETTERS else f'{name[: _LETTERS - 1]}…'
    told = f'{name}: {value:.1f} from {low:.1f} to {high:.1f}'
    said.append(told)
    parts.append(f'<text class="y" x="{NAMES - 10}" y="{y + 4}">{html.escape(short)}</text>')
    parts.append(
      f'<g style="stroke:var(--c0);fill:var(--c0)"><title>{html.escape(told)}</title>'
      f'<line x1="{across(low):.1f}" y1="{y}" x2="{across(high):.1f}" y2="{y}" stroke-width="2"/>'
      f'<circle cx="{across(value):.1f}" cy="{y}" r="4" stroke="none"/></g>'
    )
  label = html.escape(f'{title}. {"; ".join(said)}')
  return (
    f'<svg viewBox="0 0 {WIDTH} {bottom + BELOW}" role="img" aria-label="{label}">'
    f'{"".join(parts)}</svg>'
  )
