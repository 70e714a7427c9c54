"""Pictures of laws: IsoFLOP curves, the best size and the loss by compute, residuals."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mgjax.scaling.findings import LawFindings
from mgjax.scaling.isoflop import group_budgets
from mgjax.scaling.law import Law
from mgjax.scaling.plots.canvas import COLOURS, MARKERS, figure, save
from mgjax.scaling.published import PUBLISHED

Arms = Mapping[str, LawFindings]

_POINTS = 60  # of a curve
_BEYOND = 3.0  # times the largest budget up to which laws are drawn
_DASHES = {'text': '--', 'images': ':', 'videos': '-.'}  # of published laws, by what they are of


def draw_laws(arms: Arms, folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Draws all pictures of the laws of one or several arms.

  Args:
    arms: name -> what was found of its runs; the name '' of a single one is not written.
    folder: of the files.

  Returns:
    What a picture shows -> its PNG and its SVG.

  Raises:
    ConfigError: matplotlib is not installed.
  """
  draw = {
    'IsoFLOP curves with their minima': ('isoflop', _draw_curves),
    'Best size by compute': ('size', _draw_sizes),
    'Loss by compute': ('loss', _draw_losses),
    'Residuals of the law': ('residuals', _draw_residuals),
  }
  return {title: each(arms, folder / name) for title, (name, each) in draw.items()}


def _draw_curves(arms: Arms, path: pathlib.Path) -> list[pathlib.Path]:
  with figure(len(arms)) as (drawn, axes):
    for axis, (name, found) in zip(axes, arms.items(), strict=True):
      sizes, losses = found.records.runs.size, found.records.runs.loss
      for place, (at, runs) in enumerate(_budgets(found)):
        colour, marker = _style(place)
        axis.plot(sizes[runs], losses[runs], marker, color=colour, markersize=3.5,
                  label=f'{at:.2g} FLOPs', alpha=0.8)  # fmt: skip
        for number, minimum in enumerate(found.minima):
          if abs(minimum.compute / at - 1) > 1e-9:
            continue
          ends = sizes[runs].min(), sizes[runs].max()
          across = np.geomspace(min(*ends, minimum.size), max(*ends, minimum.size), _POINTS)
          axis.plot(across, minimum.at(across), color=colour, linewidth=1)
          _bar(axis, found.minimum(number), minimum.loss, colour)
      axis.set(xscale='log', yscale='log', xlabel='parameters N', title=name)
      _plain(axis)
      axis.legend(fontsize=6.5)
    axes[0].set_ylabel('loss')
    return save(drawn, path)


def _draw_sizes(arms: Arms, path: pathlib.Path) -> list[pathlib.Path]:
  with figure(width=7.0) as (drawn, (axis,)):
    compute = _range(arms)
    for place, (name, found) in enumerate(arms.items()):
      colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
      _band(axis, found, compute, lambda law, c: law.optimum(c).size, colour, f'{name} law'.strip())
      if found.power is not None:
        axis.plot(compute, [found.power(c) for c in compute], color=colour, linestyle='--',
                  linewidth=0.9, label=f'{name} IsoFLOP minima'.strip())  # fmt: skip
      for number, minimum in enumerate(found.minima):
        each = found.minimum(number)
        error = [[each.value - each.low], [each.high - each.value]]
        axis.errorbar(minimum.compute, each.value, error, color=colour, marker=marker, capsize=2.5,
                      markersize=4, linestyle='')  # fmt: skip
    others = COLOURS[min(len(arms), 3) :]  # that no arm has, unless there are many
    for place, law in enumerate(PUBLISHED):
      axis.plot(compute, [law.best_size(c) for c in compute], color=others[place % len(others)],
                linestyle=_DASHES[law.name.rpartition(' ')[2]], linewidth=0.9, label=law.name,
                zorder=1)  # fmt: skip
    axis.set(xscale='log', yscale='log', xlabel='compute C, FLOPs', ylabel='best size N*')
    drawn.legend(loc='outside right upper', fontsize=6.5)
    return save(drawn, path)


def _draw_losses(arms: Arms, path: pathlib.Path) -> list[pathlib.Path]:
  with figure(width=5.6) as (drawn, (axis,)):
    compute = _range(arms)
    for place, (name, found) in enumerate(arms.items()):
      colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
      runs = found.records
      axis.plot(runs.compute, runs.runs.loss, '.', color=colour, markersize=3, alpha=0.45,
                label=f'{name} runs'.strip())  # fmt: skip
      _band(axis, found, compute, lambda law, c: law.optimum(c).loss, colour, f'{name} law'.strip())
      for number, minimum in enumerate(found.minima):
        each = found.minimum(number, 'loss')
        error = [[each.value - each.low], [each.high - each.value]]
        axis.errorbar(minimum.compute, each.value, error, color=colour, marker=marker, capsize=2.5,
                      markersize=4, linestyle='')  # fmt: skip
    axis.set(xscale='log', yscale='log', xlabel='compute C, FLOPs', ylabel='loss')
    _plain(axis)
    axis.legend(fontsize=6.5)
    return save(drawn, path)


def _draw_residuals(arms: Arms, path: pathlib.Path) -> list[pathlib.Path]:
  with figure(len(arms)) as (drawn, axes):
    for axis, (name, found) in zip(axes, arms.items(), strict=True):
      for place, (at, runs) in enumerate(_budgets(found)):
        colour, marker = _style(place)
        axis.plot(found.records.runs.size[runs], 100 * np.expm1(found.fit.residuals[runs]), marker,
                  color=colour, markersize=3.5, label=f'{at:.2g} FLOPs')  # fmt: skip
      axis.axhline(0, color='0.3', linewidth=0.8)
      axis.set(xscale='log', xlabel='parameters N', title=name)
      axis.legend(fontsize=6.5)
    axes[0].set_ylabel('loss above the law, %')
    return save(drawn, path)


def _budgets(found: LawFindings) -> Iterator[tuple[float, np.ndarray]]:
  """Yields the budgets, the smallest first, with which runs are theirs."""
  groups = group_budgets(found.records.compute)
  for group in range(groups.max() + 1):
    runs = groups == group
    yield float(np.exp(np.log(found.records.compute[runs]).mean())), runs


def _style(place: int) -> tuple[str, str]:
  """Returns the colour and the marker of a budget."""
  return COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)]


def _range(arms: Arms) -> np.ndarray:
  all_runs = np.concatenate([found.records.compute for found in arms.values()])
  return np.geomspace(all_runs.min() / _BEYOND, all_runs.max() * _BEYOND, _POINTS)


def _band(
  axis: Any,
  found: LawFindings,
  compute: np.ndarray,
  what: Callable[[Law, float], float],
  colour: str,
  label: str,
) -> None:
  """Draws a number of the law by compute, with its interval of 80%."""
  each = [found.interval(lambda law, c=c: what(law, c)) for c in compute]
  axis.plot(compute, [one.value for one in each], color=colour, linewidth=1.3, label=label)
  axis.fill_between(compute, [one.low for one in each], [one.high for one in each], color=colour,
                    alpha=0.18, linewidth=0)  # fmt: skip


def _bar(axis: Any, across: Any, up: float, colour: str) -> None:
  """Draws a minimum as a star with the interval of its size."""
  error = [[across.value - across.low], [across.high - across.value]]
  axis.errorbar(across.value, up, xerr=error, color=colour, marker='*', markersize=9, capsize=2.5,
                markeredgecolor='white', markeredgewidth=0.4)  # fmt: skip


def _plain(axis: Any) -> None:
  """Writes losses as 0.25 beside a logarithmic axis, not as 2.5 x 10^-1."""
  from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

  low, high = axis.get_ylim()
  if high < 10 * low:
    axis.yaxis.set_major_locator(MaxNLocator(8))
    axis.yaxis.set_minor_locator(NullLocator())
  axis.yaxis.set_major_formatter(StrMethodFormatter('{x:.3g}'))
