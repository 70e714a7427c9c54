"""Pictures of experiments, as PNG and SVG."""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes

COLOUR = '#0072b2'  # of Okabe and Ito, which the colour-blind tell apart
_SIZE, _DPI = (4.6, 3.8), 110
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
  with _figure(len(panels)) as (figure, axes):
    for axis, (across, points) in zip(axes, panels.items(), strict=True):
      axis.plot([p.x for p in points], [p.y for p in points], 'o', color=COLOUR, markersize=4)
      axis.set(xlabel=across, title=titles[across])
      axis.margins(x=0.15, y=0.12)
      _name(axis, points)
    axes[0].set_ylabel(up)
    return _save(figure, path)


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


@contextlib.contextmanager
def _figure(panels: int) -> Iterator[tuple[Any, Any]]:
  """Yields a figure of panels side by side, whatever the reader's own style is."""
  try:
    import matplotlib
    from matplotlib.figure import Figure
  except ImportError:
    raise ConfigError(
      "pictures of experiments need matplotlib, which is not installed: pip install 'mgjax[plots]'"
    ) from None
  # The same numbers give the same bytes; text stays text.
  style = {'svg.hashsalt': 'mgjax', 'svg.fonttype': 'none', 'font.size': 8, 'axes.grid': True}
  with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style, 'grid.alpha': 0.3}):
    figure = Figure((_SIZE[0] * panels, _SIZE[1]), dpi=_DPI, layout='constrained')
    yield figure, figure.subplots(1, panels, sharey=True, squeeze=False)[0]


def _save(figure: Any, path: pathlib.Path) -> list[pathlib.Path]:
  paths = []
  for kind, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata=metadata)
    paths.append(path.with_suffix(f'.{kind}'))
    write_bytes(paths[-1], data.getvalue())
  return paths
