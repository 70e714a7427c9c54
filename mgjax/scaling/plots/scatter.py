"""Named points, a panel beside the other."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.scaling.plots.canvas import COLOURS, figure, save

_SMALL = 6.5  # points of the names
_LETTERS, _LINES = 78, 26  # of that size that a panel has room for


class Point(NamedTuple):
  """A named place in a picture."""

  name: str
  x: float
  y: float


def scatter(
  panels: Mapping[str, Sequence[Point]],
  up: str,
  titles: Mapping[str, str],
  path: pathlib.Path,
) -> list[pathlib.Path]:
  """Draws points with their names, a panel beside the other, of one vertical axis.

  Args:
    panels: name of the horizontal axis -> points.
    up: name of the vertical axis.
    titles: panel -> what is written above it.
    path: of the files, without their ending.

  Returns:
    The PNG and the SVG.

  Raises:
    ConfigError: matplotlib is not installed.
  """
  with figure(len(panels)) as (drawn, axes):
    for axis, (across, points) in zip(axes, panels.items(), strict=True):
      axis.plot([p.x for p in points], [p.y for p in points], 'o', color=COLOURS[0], markersize=4)
      axis.set(xlabel=across, title=titles[across])
      axis.margins(x=0.15, y=0.12)
      _name(axis, points)
    axes[0].set_ylabel(up)
    return save(drawn, path)


def _name(axis: Any, points: Sequence[Point]) -> None:
  """Writes the names beside the points, one that would cover another further up or down."""
  low_x, high_x, low_y, high_y = *axis.get_xlim(), *axis.get_ylim()
  taken: list[tuple[float, float, float]] = []  # left, right and middle of a name, in letters
  for point in sorted(points, key=lambda each: each.x):
    x = (point.x - low_x) / (high_x - low_x) * _LETTERS
    y = (point.y - low_y) / (high_y - low_y) * _LINES
    line = next(
      up
      for up in (0.5, -0.7, *np.arange(1.5, _LINES))
      if not any(
        left < x + len(point.name) and x < right and abs(y + up - at) < 1
        for left, right, at in taken
      )
    )
    taken.append((x, x + len(point.name), y + line))
    axis.annotate(
      point.name, (point.x, point.y), (3, (line - 0.5) * _SMALL * 1.3 + 1),
      textcoords='offset points', fontsize=_SMALL,
      arrowprops={'arrowstyle': '-', 'linewidth': 0.4} if line > 1 else None,
    )  # fmt: skip
