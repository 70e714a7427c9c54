"""Draws histograms, and shares that are left step by step, as SVG; `page` has their styles."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mgjax.core.typing import Num
from mgjax.runtime.report.charts import (
  APART,
  BOTTOM,
  HEIGHT,
  LEFT,
  RIGHT,
  TOP,
  WIDTH,
  format_number,
  ticks,
)

BINS = 40
_TAIL = 0.5  # percent of the values at either end that may lie beyond the axis
_ABOVE = 14  # pixels over the bars, for the names of lines
_ROW, _NAMES, _BELOW, _NUMBERS = 24, 150, 26, 58
_LETTERS = 22  # of a name that are shown


def histogram(
  title: str, groups: Mapping[str, Num[np.ndarray, '_']], lines: Mapping[str, float] | None = None
) -> str:
  """Draws counts of values, stacked by group, and named lines across them: SVG and its legend.

  The axis goes over all lines and 99% of the values; what lies beyond counts in its last bar. What
  is not finite is left out; '' where no value is left.
  """
  kept = {name: np.asarray(each, float) for name, each in groups.items()}
  kept = {name: each[np.isfinite(each)] for name, each in kept.items()}
  lines = {name: value for name, value in (lines or {}).items() if math.isfinite(value)}
  together = np.concatenate([*kept.values(), np.zeros(0)])
  if not len(together):
    return ''
  low, high = _ends(together, list(lines.values()))
  edges = np.linspace(low, high, BINS + 1)
  counts = [np.histogram(np.clip(each, low, high), edges)[0] for each in kept.values()]
  tallest = int(np.sum(counts, axis=0).max())

  def across(value: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * (value - low) / (high - low)

  def up(count: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP - _ABOVE) * count / tallest

  parts = [f'<text class="title" x="{LEFT}" y="15">{html.escape(title)}</text>']
  for value in ticks(low, high):
    parts.append(
      f'<text class="x" x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}">'
      f'{format_number(value)}</text>'
    )
  for value in (each for each in ticks(0, tallest) if each == int(each)):
    parts.append(_line(LEFT, up(value), WIDTH - RIGHT, up(value), 'grid'))
    parts.append(
      f'<text class="y" x="{LEFT - 5}" y="{up(value) + 4:.1f}">{format_number(value)}</text>'
    )
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
    parts.append(f'<g style="fill:var(--c{index})"><title>{told}</title>{"".join(bars)}</g>')
    below = (each + below).tolist()
  parts += _marks(lines, across)
  said = [f'{name}: {len(each):,}' for name, each in kept.items()]
  limits = [f'{name} at {format_number(value)}' for name, value in lines.items()]
  label = html.escape(f'{title}. {"; ".join([*said, *limits])}')
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    f'{_legend(said)}'
  )


def funnel_chart(
  title: str, rows: Mapping[str, tuple[float, float | None]], names: tuple[str, str]
) -> str:
  """Draws what is left after each step, on a logarithmic axis, beside what others had left, as SVG.

  `rows` are step -> (share, share of the others or None), 0 to 1, without a bar for 0; `names` are
  those of the two shares. '' without a row.
  """
  if not rows:
    return ''
  shares = [share for row in rows.values() for share in row if share]
  decades = max(1, math.ceil(-math.log10(min(shares, default=0.1)) - 1e-9))
  bottom, end = TOP + _ROW * len(rows), WIDTH - _NUMBERS

  def across(share: float) -> float:
    return _NAMES + (end - _NAMES) * (1 + math.log10(share) / decades)

  parts = [f'<text class="title" x="4" y="15">{html.escape(title)}</text>']
  for decade in range(-decades, 1):
    x = across(10.0**decade)
    parts.append(_line(x, TOP, x, bottom, 'grid'))
    parts.append(f'<text class="x" x="{x:.1f}" y="{bottom + 15}">{_share(10.0**decade)}</text>')
  said = []
  for index, (name, (share, other)) in enumerate(rows.items()):
    y = TOP + _ROW * index
    short = name if len(name) <= _LETTERS else f'{name[: _LETTERS - 1]}…'
    told = f'{name}: {_share(share)}' + (f', {names[1]} {_share(other)}' if other else '')
    said.append(told)
    parts.append(
      f'<text class="y" x="{_NAMES - 8}" y="{y + _ROW / 2 + 4:.1f}">{html.escape(short)}</text>'
    )
    bars = [(share, y + 3, _ROW - 6, 'var(--c0)')]
    if other:
      bars = [(share, y + 3, _ROW / 2 - 3, 'var(--c0)'), (other, y + _ROW / 2, 5, 'var(--c1)')]
    drawn = ''.join(
      f'<rect x="{_NAMES}" y="{top:.1f}" width="{max(across(each) - _NAMES, 1):.1f}" '
      f'height="{high:.1f}" style="fill:{colour}"/>'
      for each, top, high, colour in bars
      if each
    )
    parts.append(f'<g><title>{html.escape(told)}</title>{drawn}</g>')
    parts.append(
      f'<text class="x" style="text-anchor:start" x="{end + 6}" y="{y + _ROW / 2 + 4:.1f}">'
      f'{_share(share)}</text>'
    )
  label = html.escape(f'{title}. {"; ".join(said)}')
  shown = names if any(other for _, other in rows.values()) else names[:1]
  return (
    f'<svg viewBox="0 0 {WIDTH} {bottom + _BELOW}" role="img" aria-label="{label}">'
    f'{"".join(parts)}</svg>{_legend(shown)}'
  )


def _legend(names: Sequence[str]) -> str:
  entries = [
    f'<span><b style="color:var(--c{index})" aria-hidden="true">\u25a0</b> '
    f'{html.escape(name)}</span>'
    for index, name in enumerate(names)
  ]
  return f'<div class="legend">{" ".join(entries)}</div>'


def _share(share: float) -> str:
  return f'{format_number(round(100 * share, 2))}%'


def _ends(values: np.ndarray, lines: Sequence[float]) -> tuple[float, float]:
  """The ends of the axis; a single value stands in its middle."""
  low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
  low, high = float(min(low, *lines, high)), float(max(high, *lines, low))
  if high == low:
    margin = abs(low) / 2 or 0.5
    return low - margin, high + margin
  margin = (high - low) / (2 * BINS)  # or a line at the end would stand on the frame
  return (low - margin if low else low), high + margin


def _marks(lines: Mapping[str, float], across) -> list[str]:
  """Lines across the bars, with names where these do not cover one another."""
  parts, named = [], -math.inf
  for name, value in sorted(lines.items(), key=lambda line: line[1]):
    place = across(value)
    parts.append(_line(place, TOP, place, HEIGHT - BOTTOM, 'mark'))
    if place - named >= APART:
      right = place > (LEFT + WIDTH) / 2
      side, anchor = (-3, 'end') if right else (3, 'start')
      parts.append(
        f'<text class="mark" style="text-anchor:{anchor}" x="{place + side:.1f}" y="{TOP + 10}">'
        f'{html.escape(name)}</text>'
      )
      named = place
  return parts


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
  return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
