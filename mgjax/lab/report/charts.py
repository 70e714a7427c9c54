"""Draws histograms and intervals as SVG; `templates/page.css` has their styles.

Each function returns an SVG element and its legend, if any; '' if there is nothing to draw.
"""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from mgjax.core.typing import Num
from mgjax.data.media.titles import ticks

# Pixels of a chart and its margins.
WIDTH = 520
HEIGHT = 240
LEFT = 58
RIGHT = 24
TOP = 26
BOTTOM = 30
APART = 70  # pixels; a vertical line closer to a named one gets no name
BINS = 40  # of a histogram
NAMES = 190  # width of the names of rows
ROW = 24  # height of a row
_TAIL = 0.5  # percent of the values at either end that may lie outside a histogram's axis
_ABOVE = 14  # pixels above the bars, for the names of lines
_LETTER = 6  # pixels of a letter, about
_LETTERS = 30  # of a row's name
COLOURS = 8  # of groups, c0 to c7 in templates/page.css


def histogram(
  title: str, groups: Mapping[str, Num[np.ndarray, '_']], lines: Mapping[str, float] | None = None
) -> Markup:
  """Draws counts of values, stacked by group, and named lines across them.

  The axis covers all lines and 99% of the values. Values outside it count in the first or the last
  bar. Non-finite values are left out.
  """
  finite = {name: np.asarray(values, float) for name, values in groups.items()}
  finite = {name: values[np.isfinite(values)] for name, values in finite.items()}
  lines = {name: value for name, value in (lines or {}).items() if math.isfinite(value)}
  together = np.concatenate([*finite.values(), np.zeros(0)])
  if not len(together):
    return Markup()
  low, high = _ends(together, list(lines.values()))
  edges = np.linspace(low, high, BINS + 1)
  counts = [np.histogram(np.clip(values, low, high), edges)[0] for values in finite.values()]
  tallest = int(np.sum(counts, axis=0).max())
  across = _axis(low, high, LEFT, WIDTH - RIGHT)
  up = _axis(0, tallest, HEIGHT - BOTTOM, TOP + _ABOVE)
  whole_ticks = [tick for tick in ticks(0, tallest) if tick == int(tick)]
  parts = _grid(across, ticks(low, high), up, whole_ticks)
  below = [0] * BINS
  for index, (name, bin_counts) in enumerate(zip(finite, counts, strict=True)):
    bars = [
      f'<rect x="{across(edges[bar]) + 0.5:.1f}" y="{up(below[bar] + count):.1f}" '
      f'width="{across(edges[1]) - across(edges[0]) - 1:.1f}" '
      f'height="{up(below[bar]) - up(below[bar] + count):.1f}"/>'
      for bar, count in enumerate(bin_counts.tolist())
      if count
    ]
    tooltip = html.escape(f'{name}: {int(bin_counts.sum()):,}')
    parts.append(f'<g style="fill:{_colour(index)}"><title>{tooltip}</title>{"".join(bars)}</g>')
    below = (bin_counts + below).tolist()
  parts += _marks(lines, across)
  entries = [f'{name}: {len(values):,}' for name, values in finite.items()]
  limits = [f'{name} at {format_number(value)}' for name, value in lines.items()]
  return Markup(_svg(title, parts, [*entries, *limits]) + _legend(entries, '\u25a0'))


def interval_chart(title: str, rows: Mapping[str, tuple[float, float, float]]) -> Markup:
  """Draws a point and its interval, (value, low, high), for each name, and a line at 0.

  Rows with non-finite numbers are left out.
  """
  finite = {name: row for name, row in rows.items() if all(map(math.isfinite, row))}
  if not finite:
    return Markup()
  least = min(0.0, *(min(row) for row in finite.values()))
  most = max(0.0, *(max(row) for row in finite.values()))
  across = _axis(least, most if most > least else least + 1, NAMES, WIDTH - RIGHT)
  bottom = TOP + ROW * len(finite)
  parts = []
  descriptions = []
  for value in ticks(least, most):
    kind = 'grid' if value else 'mark'
    parts.append(_line(across(value), TOP, across(value), bottom, kind))
    parts.append(_text('x', across(value), bottom + 15, format_number(value)))
  for index, (name, (value, low, high)) in enumerate(finite.items()):
    y = TOP + ROW * (index + 0.5)
    descriptions.append(f'{name}: {value:.1f} from {low:.1f} to {high:.1f}')
    parts.append(_row_name(name, y - ROW / 2))
    parts.append(
      f'<g style="stroke:{_colour(0)};fill:{_colour(0)}">'
      f'<title>{html.escape(descriptions[-1])}</title>'
      f'<line x1="{across(low):.1f}" y1="{y}" x2="{across(high):.1f}" y2="{y}" stroke-width="2"/>'
      f'<circle cx="{across(value):.1f}" cy="{y}" r="4" stroke="none"/></g>'
    )
  return Markup(_svg(title, parts, descriptions, bottom + BOTTOM, left=4))


def _svg(
  title: str,
  parts: Iterable[str],
  descriptions: Iterable[str],
  height: float = HEIGHT,
  left: float = LEFT,
) -> str:
  label = html.escape(f'{title}. {"; ".join(descriptions)}')
  return (
    f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
    f'{_text("title", left, 15, title)}{"".join(parts)}</svg>'
  )


def _legend(names: Iterable[str], sign: str) -> str:
  entries = [
    f'<span><b style="color:{_colour(index)}" aria-hidden="true">{sign}</b> '
    f'{html.escape(name)}</span>'
    for index, name in enumerate(names)
  ]
  return f'<div class="legend">{" ".join(entries)}</div>'


def _colour(index: int) -> str:
  return f'var(--c{index % COLOURS})'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
  return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = '') -> str:
  style = f' style="text-anchor:{anchor}"' if anchor else ''
  return f'<text class="{kind}"{style} x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _row_name(name: str, top: float) -> str:
  short = name if len(name) <= _LETTERS else f'{name[: _LETTERS - 1]}…'
  return _text('y', NAMES - 8, top + ROW / 2 + 4, short)


def _grid(
  across: Callable, below: Sequence[float], up: Callable, beside: Sequence[float]
) -> list[str]:
  """Draws the numbers of both axes, and a horizontal line for each number of the vertical axis."""
  parts = [_text('x', across(x), HEIGHT - BOTTOM + 16, format_number(x)) for x in below]
  parts += [_line(LEFT, up(y), WIDTH - RIGHT, up(y), 'grid') for y in beside]
  return parts + [_text('y', LEFT - 5, up(y) + 4, format_number(y)) for y in beside]


def _marks(marks: Mapping[str, float], across: Callable) -> list[str]:
  """Draws vertical lines, with names where they do not overlap."""
  parts = []
  named = -math.inf
  for name, value in sorted(marks.items(), key=lambda mark: mark[1]):
    x = across(value)
    parts.append(_line(x, TOP, x, HEIGHT - BOTTOM, 'mark'))
    if x - named >= APART:
      fits = x + 3 + _LETTER * len(name) < WIDTH
      side, anchor = (3, 'start') if fits else (-3, 'end')
      parts.append(_text('mark', x + side, TOP + 10, name, anchor))
      named = x
  return parts


def _axis(low: float, high: float, start: float, end: float) -> Callable:
  """Returns the function that maps values to pixels."""
  if high == low:
    return lambda value: (start + end) / 2
  return lambda value: start + (end - start) * (value - low) / (high - low)


def _ends(values: np.ndarray, lines: Sequence[float]) -> tuple[float, float]:
  """Returns the ends of a histogram's axis; a single value is in the middle."""
  low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
  low, high = float(min(low, *lines, high)), float(max(high, *lines, low))
  if high == low:
    margin = abs(low) / 2 or 0.5
    return low - margin, high + margin
  margin = (high - low) / (2 * BINS)  # keeps a line at the end off the frame
  return (low - margin if low else low), high + margin


def format_number(value: float) -> str:
  """Writes a number in few letters: `12,000`, `0.25`, `3e-05`."""
  if value == int(value) and 1000 <= abs(value) < 1e7:
    return f'{int(value):,}'
  return f'{value:.4g}'
