"""Line charts as SVG, without a plotting library; `page` has the style of their parts."""

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 26, 30  # margins
APART = 70  # names of vertical lines that are nearer to one another are left out
MOST = 400  # points of a curve that are drawn; of more, the lowest and highest of each stretch
DECADES = 1.5  # that values span from which on their axis is logarithmic
# Of curves, by their number, on white and on dark paper.
COLOURS = ('#1f6fb4', '#c4521c', '#2b8a3e', '#8a3ea8', '#946a00', '#555555', '#c2255c', '#0b7285')
DARK_COLOURS = (
  '#6cb2f0', '#f2925e', '#6fcf85', '#cf9ae6', '#dcb347', '#b8bcc2', '#f285ab', '#4fc3d7'
)  # fmt: skip


def chart(
  title: str, curves: Mapping[str, Points], marks: Mapping[str, float] | None = None
) -> str:
  """Draws curves, name -> (x, y) by ascending x, over one another: an SVG element and its legend.

  What is not finite is left out; '' where no curve has a point. `marks` are vertical lines, name ->
  x.
  """
  kept = {
    name: [p for p in points if all(map(math.isfinite, p))] for name, points in curves.items()
  }
  kept = {name: thinned(points) for name, points in kept.items() if points}
  if not kept:
    return ''
  xs, ys = zip(*(point for points in kept.values() for point in points), strict=True)
  logarithmic = min(ys) > 0 and math.log10(max(ys) / min(ys)) > DECADES
  across = _axis(min(0.0, *xs), max(xs), LEFT, WIDTH - RIGHT)
  up = _axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP, logarithmic)
  parts = [f'<text class="title" x="{LEFT}" y="15">{html.escape(title)}</text>']
  for value in ticks(min(0.0, *xs), max(xs)):
    parts.append(_line(across(value), HEIGHT - BOTTOM, across(value), HEIGHT - BOTTOM + 4, 'axis'))
    parts.append(
      f'<text class="x" x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}">'
      f'{format_number(value)}</text>'
    )
  for value in ticks(min(ys), max(ys), logarithmic):
    parts.append(_line(LEFT, up(value), WIDTH - RIGHT, up(value), 'grid'))
    parts.append(
      f'<text class="y" x="{LEFT - 5}" y="{up(value) + 4:.1f}">{format_number(value)}</text>'
    )
  named = -APART
  for name, value in (marks or {}).items():
    place = across(value)
    parts.append(_line(place, TOP, place, HEIGHT - BOTTOM, 'mark'))
    if place - named >= APART:
      parts.append(
        f'<text class="mark" x="{place + 3:.1f}" y="{TOP + 10}">{html.escape(name)}</text>'
      )
      named = place
  said = []
  for index, (name, points) in enumerate(kept.items()):
    path = ' '.join(f'{across(x):.1f},{up(y):.1f}' for x, y in points)
    said.append(f'{name}: {format_number(points[-1][1])} at {format_number(points[-1][0])}')
    told, colour = html.escape(said[-1]), _colour(index)
    if len(points) == 1:
      x, y = path.split(',')
      parts.append(
        f'<circle cx="{x}" cy="{y}" r="3" style="fill:{colour}"><title>{told}</title></circle>'
      )
    else:
      parts.append(
        f'<polyline points="{path}" style="stroke:{colour}"><title>{told}</title></polyline>'
      )
  told = html.escape(f'{title}. {"; ".join(said)}')
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">{"".join(parts)}</svg>'
    f'{_legend(kept)}'
  )


def _legend(curves: Mapping[str, Points]) -> str:
  entries = [
    f'<span><b style="color:{_colour(index)}" aria-hidden="true">\u2501</b>'
    f' {html.escape(name)}</span>'
    for index, name in enumerate(curves)
  ]
  return f'<div class="legend">{" ".join(entries)}</div>'


def _colour(index: int) -> str:
  return f'var(--c{index % len(COLOURS)})'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
  return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _axis(low: float, high: float, start: float, end: float, logarithmic: bool = False):
  """Returns the function from values to places."""
  if logarithmic:
    linear = _axis(math.log10(low), math.log10(high), start, end)
    return lambda value: linear(math.log10(value))
  if high == low:
    return lambda value: (start + end) / 2
  return lambda value: start + (end - start) * (value - low) / (high - low)


def thinned(points: Points, most: int = MOST) -> list[tuple[float, float]]:
  """Returns about `most` points at most: of each stretch the lowest and the highest, and the last.

  So a spike of a single point is still visible.
  """
  if len(points) <= most:
    return list(points)
  size = -(-2 * len(points) // most)
  kept = []
  for start in range(0, len(points), size):
    stretch = points[start : start + size]
    kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
  return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def ticks(low: float, high: float, logarithmic: bool = False) -> list[float]:
  """Returns two to eight round numbers in [low, high]; one where both are the same."""
  if high == low:
    return [low]
  if logarithmic:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    step, within = -(-len(decades) // 6), (1, 3) if len(decades) < 5 else (1,)
    found = [factor * 10.0**decade for decade in decades[::step] for factor in within]
    return [value for value in found if low <= value <= high] or [low, high]
  rough = (high - low) / 5
  decade = 10.0 ** math.floor(math.log10(rough))
  step = next(decade * factor for factor in (1, 2, 5, 10) if decade * factor >= rough)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [index * step for index in range(first, last + 1)]


def format_number(value: float) -> str:
  """Writes a number in few letters: 12,000, 0.25, 3e-05."""
  if value == int(value) and 1000 <= abs(value) < 1e7:
    return f'{int(value):,}'
  return f'{value:.4g}'
