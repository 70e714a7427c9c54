"""Pictures of laws and laws.html, a page of its own with their numbers and what spoils them."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, printable
from mgjax.core.files import write_bytes, write_json
from mgjax.core.plug_ins import load_package
from mgjax.lab.report.page import Rows, data_url, render
from mgjax.lab.scaling.comparison import Comparison
from mgjax.lab.scaling.findings import LawFindings, comparison_rows
from mgjax.lab.scaling.held_out import HeldOut
from mgjax.lab.scaling.isoflop import group_budgets
from mgjax.lab.scaling.published import PUBLISHED, rows_at

# Of Okabe and Ito, without the yellow that white paper swallows.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
Arms = Mapping[str, LawFindings]

_POINTS = 60  # of a curve
_FAR = 8.0  # where intervals are cut
_BEYOND = 3.0  # times the largest budget up to which laws are drawn


def write_laws(
  arms: Arms,
  folder: str | os.PathLike[str],
  *,
  tests: Mapping[str, HeldOut] = {},
  comparison: tuple[Comparison, tuple[str, str]] | None = None,
) -> list[pathlib.Path]:
  """Writes the pictures as PNG and SVG, laws.html with all of them, and laws.json; the page first.

  The name '' of a single arm is not written. `tests` are predictions of held-out budgets. Raises
  ConfigError if matplotlib is not installed, or the folder cannot be written to.
  """
  folder = pathlib.Path(folder)
  most = max(findings.records.compute.max() for findings in arms.values())
  with _writing(folder):
    pictures = {
      'IsoFLOP curves with their minima': _draw_isoflops(arms, folder / 'isoflop'),
      'Best size by compute': _draw_by_compute(arms, folder / 'size', 'size'),
      'Loss by compute': _draw_by_compute(arms, folder / 'loss', 'loss'),
    }
    page = render(
      'laws.html',
      'Scaling laws',
      pictures=[(title, _picture_url(paths[1])) for title, paths in pictures.items()],
      arms=[_arm(name, findings, tests.get(name)) for name, findings in arms.items()],
      comparison=None if comparison is None else _comparison(*comparison),
      published={
        'rows': _rows(rows_at(most)),
        'name': f'At {most:.3g} FLOPs',
        'sources': [{'law': law.name, 'source': law.source} for law in PUBLISHED],
      },
    )
    write_bytes(folder / 'laws.html', page.encode())
    write_json(folder / 'laws.json', {name: findings.as_dict() for name, findings in arms.items()})
  drawn = [path for paths in pictures.values() for path in paths]
  return [folder / 'laws.html', folder / 'laws.json', *drawn]


def draw_points(
  panels: Mapping[str, Mapping[str, tuple[float, float]]], up: str, path: pathlib.Path
) -> list[pathlib.Path]:
  """Draws named points in panels that share a vertical axis; returns PNG and SVG.

  `panels` are title -> name -> (x, y); `path` is without its suffix.
  """
  with _writing(path.parent), _figure(len(panels)) as (drawn, axes):
    for axis, (title, points) in zip(axes, panels.items(), strict=True):
      x, y = zip(*points.values(), strict=True)
      axis.plot(x, y, 'o', color=COLOURS[0], markersize=4)
      axis.set(title=title, ylabel=up)
      axis.margins(x=0.15, y=0.12)
      for name, point in points.items():
        axis.annotate(name, point, (3, 3), textcoords='offset points', fontsize=6.5)
    return _save(drawn, path)


def draw_intervals(
  rows: Mapping[str, tuple[float, float, float, int]], across: str, path: pathlib.Path
) -> list[pathlib.Path]:
  """Draws named (value, low, high) in a colour of COLOURS, with lines at -1, 0 and 1.

  Intervals are cut at eight; `path` is without its suffix. Returns PNG and SVG.
  """
  with _writing(path.parent), _figure(width=8.0) as (drawn, (axis,)):
    drawn.set_figheight(0.9 + 0.32 * len(rows))
    for row, (*ends, number) in enumerate(rows.values()):
      value, low, high = np.clip(ends, -_FAR, _FAR)
      colour = COLOURS[number]
      axis.plot((low, high), (row, row), color=colour, linewidth=1.6)
      axis.plot(value, row, 'o', color=colour, markersize=4)
    for line in (-1, 0, 1):
      axis.axvline(line, color='#555555', linewidth=0.8, linestyle='-' if line == 0 else '--')
    axis.set(yticks=range(len(rows)), yticklabels=[*rows])
    axis.set_xlabel(across, loc='right')  # it may be wider than the axis
    axis.invert_yaxis()
    return _save(drawn, path)


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
  """Turns an OSError into a ConfigError that names the folder."""
  try:
    yield
  except OSError as error:
    name = printable(os.fspath(folder))
    label = name if len(name) < 80 else f'{name[:60]}...'
    raise ConfigError(f'{label}: cannot be written to: {error.strerror}; give another') from error


@contextlib.contextmanager
def _figure(panels: int = 1, width: float = 4.6) -> Iterator[tuple[Any, Any]]:
  """Yields a figure of panels side by side, whatever the reader's own style is."""
  matplotlib = load_package('matplotlib', 'pictures of experiments need matplotlib', 'plots')
  from matplotlib.figure import Figure

  # The same numbers give the same bytes; text stays text.
  style = {'svg.hashsalt': 'mgjax', 'svg.fonttype': 'none', 'font.size': 8, 'axes.grid': True}
  with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style, 'grid.alpha': 0.3}):
    drawn = Figure((width * panels, 3.8), dpi=110, layout='constrained')
    yield drawn, drawn.subplots(1, panels, sharey=True, squeeze=False)[0]


def _save(drawn: Any, path: pathlib.Path) -> list[pathlib.Path]:
  paths = []
  for kind, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
    data = io.BytesIO()
    drawn.savefig(data, format=kind, metadata=metadata)
    paths.append(path.with_suffix(f'.{kind}'))
    write_bytes(paths[-1], data.getvalue())
  return paths


def _draw_isoflops(arms: Arms, path: pathlib.Path) -> list[pathlib.Path]:
  from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

  with _figure(len(arms)) as (drawn, axes):
    for axis, (name, findings) in zip(axes, arms.items(), strict=True):
      sizes, _, losses = findings.records.runs
      groups = group_budgets(findings.records.compute)
      minima = {
        minimum.compute: (number, minimum) for number, minimum in enumerate(findings.minima)
      }
      for group in range(groups.max() + 1):
        runs = groups == group
        colour = COLOURS[group % len(COLOURS)]
        at = float(np.exp(np.log(findings.records.compute[runs]).mean()))
        axis.plot(
          sizes[runs],
          losses[runs],
          'o',
          color=colour,
          markersize=3.5,
          alpha=0.8,
          label=f'{at:.2g} FLOPs',
        )
        if at in minima:
          number, minimum = minima[at]
          there = np.append(sizes[runs], minimum.size)
          across = np.geomspace(there.min(), there.max(), _POINTS)
          axis.plot(across, minimum.at(across), color=colour, linewidth=1)
          best_size = findings.minimum(number)
          error = [[best_size.value - best_size.low], [best_size.high - best_size.value]]
          axis.errorbar(
            best_size.value,
            minimum.loss,
            xerr=error,
            color=colour,
            marker='*',
            markersize=9,
            capsize=2.5,
          )
      axis.set(xscale='log', yscale='log', xlabel='model size N, parameters', title=name)
      axis.legend(fontsize=6.5)
      _name_ticks(axis.xaxis, EngFormatter(sep=''), LogLocator(subs=(1, 2, 5)))
      _name_ticks(axis.yaxis, '{x:g}', MaxNLocator(8))
    axes[0].set_ylabel('loss at the end of the run')
    return _save(drawn, path)


def _name_ticks(axis: Any, major: Any, locator: Any) -> None:
  """Names ticks of a log axis that spans less than a decade or two, where powers would be few."""
  axis.set_major_locator(locator)
  axis.set_major_formatter(major)
  axis.set_minor_formatter('')


def _draw_by_compute(arms: Arms, path: pathlib.Path, what: str) -> list[pathlib.Path]:
  """Draws the best 'size' or its 'loss' by compute; sizes with published laws beside them."""
  budgets = np.concatenate([findings.records.compute for findings in arms.values()])
  compute = np.geomspace(budgets.min() / _BEYOND, budgets.max() * _BEYOND, _POINTS)
  with _figure(width=7.0) as (drawn, (axis,)):
    for index, (name, findings) in enumerate(arms.items()):
      colour = COLOURS[index % len(COLOURS)]
      band = [findings.interval(lambda law, c=c: getattr(law.optimum(c), what)) for c in compute]
      axis.plot(
        compute, [interval.value for interval in band], color=colour, label=f'{name} law'.strip()
      )
      axis.fill_between(
        compute,
        [interval.low for interval in band],
        [interval.high for interval in band],
        color=colour,
        alpha=0.18,
        linewidth=0,
      )
      if what == 'loss':
        axis.plot(
          findings.records.compute,
          findings.records.runs.loss,
          '.',
          color=colour,
          markersize=3,
          alpha=0.45,
        )
      for number, minimum in enumerate(findings.minima):
        interval = findings.minimum(number, what)
        error = [[interval.value - interval.low], [interval.high - interval.value]]
        axis.errorbar(
          minimum.compute,
          interval.value,
          error,
          color=colour,
          marker='o',
          capsize=2.5,
          markersize=4,
        )
    free_colours = COLOURS[min(len(arms), 3) :]  # that no arm has, unless there are many
    for index, law in enumerate(PUBLISHED if what == 'size' else ()):
      axis.plot(
        compute,
        [law.best_size(c) for c in compute],
        ('--', ':')[index // len(free_colours) % 2],
        linewidth=0.9,
        zorder=1,
        color=free_colours[index % len(free_colours)],
        label=law.name,
      )
    names = {'size': 'best model size N*, parameters', 'loss': 'loss at the end of the run'}
    axis.set(xscale='log', yscale='log', xlabel='compute C, FLOPs', ylabel=names[what])
    drawn.legend(loc='outside right upper', fontsize=6.5)
    return _save(drawn, path)


def _picture_url(path: pathlib.Path) -> str:
  return data_url('image/svg+xml', path.read_bytes())


def _arm(name: str, findings: LawFindings, test: HeldOut | None) -> dict[str, Any]:
  numbers = [{'': parameter, 'value [80%]': str(v)} for parameter, v in findings.numbers().items()]
  return {
    'title': printable(name) or 'Law and minima',
    'numbers': numbers,
    'spread': findings.spread(),
    'minima': _rows(findings.minima_rows()) if findings.minima else [],
    'powers': findings.powers(),
    'test': None if test is None else _test(test),
    'warnings': findings.warnings,
  }


def _test(test: HeldOut) -> dict[str, Any]:
  return {
    'name': test.title,
    'rows': _rows(test.rows()),
    'summary': test.summary(),
    'sizes': _rows(test.size_rows()) if test.sizes else [],
  }


def _comparison(compared: Comparison, names: tuple[str, str]) -> dict[str, Any]:
  rows, note = comparison_rows(compared, names)
  return {'name': printable(' and '.join(names)), 'rows': _rows(rows), 'note': note}


def _rows(rows: Sequence[Sequence[str]]) -> Rows:
  header, *body = rows
  return [dict(zip(header, row, strict=True)) for row in body]
