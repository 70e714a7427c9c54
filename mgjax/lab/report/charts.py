"""Draws histograms and intervals as SVG; `templates/page.css` has their styles.

Each returns an SVG element, with its legend where it has one; '' where there is nothing to draw.
"""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from mgjax.core.typing import Num
from mgjax.data.media.titles import ticks

WIDTH, HEIGHT = 520, 240
# margins
LEFT = 58
RIGHT = 24
TOP = 26
BOTTOM = 30
APART = 70  # names of vertical lines that are nearer to one another are left out
BINS = 40  # of a histogram
NAMES, ROW = 190, 24  # width of the names, and height of a row, of rows that have names
_TAIL = 0.5  # percent of the values at either end that may lie beyond a histogram's axis
_ABOVE = 14  # pixels over the bars, for the names of lines
_LETTER, _LETTERS = 6, 30  # pixels of a letter, about, and letters of a row's name
COLOURS = 8  # of groups, c0 to c7 in templates/page.css


def histogram(
  title: str, groups: Mapping[str, Num[np.ndarray, '_']], lines: Mapping[str, float] | None = None
) -> Markup:
  """Draws counts of values, stacked by group, and named lines across them.

  The axis goes over all lines and 99% of the values; what lies beyond counts in its last bar. What
  is not finite is left out.
  """
  kept = {name: np.asarray(each, float) for name, each in groups.items()}
  kept = {name: each[np.isfinite(each)] for name, each in kept.items()}
  lines = {name: value for name, value in (lines or {}).items() if math.isfinite(value)}
  together = np.concatenate([*kept.values(), np.zeros(0)])
  if not len(together):
    return Markup()
  low, high = _ends(together, list(lines.values()))
  edges = np.linspace(low, high, BINS + 1)
  counts = [np.histogram(np.clip(each, low, high), edges)[0] for each in kept.values()]
  tallest = int(np.sum(counts, axis=0).max())
  across = _axis(low, high, LEFT, WIDTH - RIGHT)
  up = _axis(0, tallest, HEIGHT - BOTTOM, TOP + _ABOVE)
  whole = [each for each in ticks(0, tallest) if each == int(each)]
  parts = _grid(across, ticks(low, high), up, whole)
  below = [0] * BINS
  for index, (name, each) in enumerate(zip(kept, counts, strict=True)):
    bars = [
      f'<rect x="{across(edges[bar]) + 0.5:.1f}" y="{up(below[bar] + count):.1f}" '
      f'width="{across(edges[1]) - across(edges[0]) - 1:.1f}" '
      f'height="{up(below[bar]) - up(below[bar] + count):.1f}"/>'
      for bar, count in enumerate(each.tolist())
      if count
    ]
    told = html.escape(f'{name}: {int(each.sum()):,}')
    parts.append(f'<g style="fill:{_colour(index)}"><title>{told}</title>{"".join(bars)}</g>')
    below = (each + below).tolist()
  parts += _marks(lines, across)
  said = [f'{name}: {len(each):,}' for name, each in kept.items()]
  limits = [f'{name} at {format_number(value)}' for name, value in lines.items()]
  return Markup(_svg(title, parts, [*said, *limits]) + _legend(said, '\u25a0'))


def interval_chart(title: str, rows: Mapping[str, tuple[float, float, float]]) -> Markup:
  """Draws a point and its interval, (value, low, high), for each name, and a line at 0.

  Rows that are not finite are left out.
  """
  kept = {name: row for name, row in rows.items() if all(map(math.isfinite, row))}
  if not kept:
    return Markup()
  least = min(0.0, *(min(row) for row in kept.values()))
  most = max(0.0, *(max(row) for row in kept.values()))
  across = _axis(least, most if most > least else least + 1, NAMES, WIDTH - RIGHT)
  bottom = TOP + ROW * len(kept)
  parts = []
  said = []
  for value in ticks(least, most):
    kind = 'grid' if value else 'mark'
    parts.append(_line(across(value), TOP, across(value), bottom, kind))
    parts.append(_text('x', across(value), bottom + 15, format_number(value)))
  for index, (name, (value, low, high)) in enumerate(kept.items()):
    y = TOP + ROW * (index + 0.5)
    said.append(f'{name}: {value:.1f} from {low:.1f} to {high:.1f}')
    parts.append(_row_name(name, y - ROW / 2))
    parts.append(
      f'<g style="stroke:{_colour(0)};fill:{_colour(0)}"><title>{html.escape(said[-1])}</title>'
      f'<line x1="{across(low):.1f}" y1="{y}" x2="{across(high):.1f}" y2="{y}" stroke-width="2"/>'
      f'<circle cx="{across(value):.1f}" cy="{y}" r="4" stroke="none"/></g>'
    )
  return Markup(_svg(title, parts, said, bottom + BOTTOM, left=4))


def _svg(
  title: str, parts: Iterable[str], said: Iterable[str], height: float = HEIGHT, left: float = LEFT
) -> str:
  label = html.escape(f'{title}. {"; ".join(said)}')
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
  """Numbers below a chart, and numbers beside it with a line each."""
  parts = [_text('x', across(x), HEIGHT - BOTTOM + 16, format_number(x)) for x in below]
  parts += [_line(LEFT, up(y), WIDTH - RIGHT, up(y), 'grid') for y in beside]
  return parts + [_text('y', LEFT - 5, up(y) + 4, format_number(y)) for y in beside]


def _marks(marks: Mapping[str, float], across: Callable) -> list[str]:
  """Vertical lines, with names where these do not cover one another."""
  parts = []
  named = -math.inf
  for name, value in sorted(marks.items(), key=lambda mark: mark[1]):
    place = across(value)
    parts.append(_line(place, TOP, place, HEIGHT - BOTTOM, 'mark'))
    if place - named >= APART:
      fits = place + 3 + _LETTER * len(name) < WIDTH
      side, anchor = (3, 'start') if fits else (-3, 'end')
      parts.append(_text('mark', place + side, TOP + 10, name, anchor))
      named = place
  return parts


def _axis(low: float, high: float, start: float, end: float) -> Callable:
  """Returns the function from values to places."""
  if high == low:
    return lambda value: (start + end) / 2
  return lambda value: start + (end - start) * (value - low) / (high - low)


def _ends(values: np.ndarray, lines: Sequence[float]) -> tuple[float, float]:
  """The ends of a histogram's axis; a single value stands in its middle."""
  low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
  low, high = float(min(low, *lines, high)), float(max(high, *lines, low))
  if high == low:
    margin = abs(low) / 2 or 0.5
    return low - margin, high + margin
  margin = (high - low) / (2 * BINS)  # or a line at the end would stand on the frame
  return (low - margin if low else low), high + margin


def format_number(value: float) -> str:
  """Writes a number in few letters: `12,000`, `0.25`, `3e-05`."""
  if value == int(value) and 1000 <= abs(value) < 1e7:
    return f'{int(value):,}'
  return f'{value:.4g}'
