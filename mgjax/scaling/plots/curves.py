"""Numbers by another number that doubles and doubles, a panel beside the other."""

import pathlib
from collections.abc import Mapping, Sequence

from mgjax.scaling.plots.canvas import COLOURS, MARKERS, figure, save

_WIDTH = 2.8  # of a panel, inches

Curves = Mapping[str, Sequence[tuple[float, float]]]  # name -> (x, y)


def draw_curves(
  panels: Mapping[str, Curves], across: str, path: pathlib.Path
) -> list[pathlib.Path]:
  """Draws curves over an axis on which each step doubles, a panel beside the other.

  Args:
    panels: what is written above it -> its curves.
    across: name of the horizontal axis.
    path: of the files, without their ending.

  Returns:
    The PNG and the SVG.

  Raises:
    ConfigError: matplotlib is not installed.
  """
  with figure(len(panels), _WIDTH, one_scale=False) as (drawn, axes):
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
      for colour, marker, (name, points) in zip(COLOURS, MARKERS, curves.items(), strict=False):
        x, y = zip(*sorted(points), strict=True)
        axis.plot(x, y, color=colour, marker=marker, markersize=4, label=name)
      axis.set_xscale('log', base=2)
      axis.xaxis.set_major_formatter('{x:g}')
      axis.set_ylim(0, 1.05 * axis.get_ylim()[1])  # from 0, or noise would look like a difference
      axis.set(title=title, xlabel=across)
      axis.legend(loc='lower right')
    return save(drawn, path)
