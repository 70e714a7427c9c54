"""Figures of panels, in colours that the colour-blind tell apart, saved as PNG and SVG."""

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes

# Of Okabe and Ito, without the yellow that white paper swallows.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
MARKERS = 'osD^vP<'  # so that print in grey tells them apart as well
_SIZE, _DPI = (4.6, 3.8), 110


@contextlib.contextmanager
def figure(
  panels: int = 1, width: float = _SIZE[0], *, one_scale: bool = True
) -> Iterator[tuple[Any, Any]]:
  """Yields a figure of panels side by side, whatever the reader's own style is.

  Args:
    panels: how many, side by side.
    width: of each, inches.
    one_scale: whether they have one vertical axis.

  Raises:
    ConfigError: matplotlib is not installed.
  """
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
    drawn = Figure((width * panels, _SIZE[1]), dpi=_DPI, layout='constrained')
    yield drawn, drawn.subplots(1, panels, sharey=one_scale, squeeze=False)[0]


def save(drawn: Any, path: pathlib.Path) -> list[pathlib.Path]:
  """Writes a figure; returns the PNG and the SVG.

  Args:
    drawn: of `figure`.
    path: of the files, without their ending.
  """
  paths = []
  for kind, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
    data = io.BytesIO()
    drawn.savefig(data, format=kind, metadata=metadata)
    paths.append(path.with_suffix(f'.{kind}'))
    write_bytes(paths[-1], data.getvalue())
  return paths
