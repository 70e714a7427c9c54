"""Writes one page that shows a run or a recipe: samples, scores, stages and losses.

The page is one HTML file that needs nothing else, made from `metrics.jsonl` at any time, also of
runs that failed.
"""

import contextlib
import html
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mgjax.core.errors import ConfigError, MgjaxError, first_line, printable
from mgjax.core.files import read_optional_json, write_bytes
from mgjax.core.renamed_keys import migrate
from mgjax.core.runs.find import runs_near
from mgjax.runtime.metrics import FILE, read_metrics, validation_loss
from mgjax.runtime.report.charts import chart, format_number
from mgjax.runtime.report.page import page, table
from mgjax.runtime.report.samples import show_samples

PAGE, SECONDS = 'report.html', 'seconds.json'
_log = logging.getLogger(__name__)
Curves = dict[str, list[tuple[float, float]]]


def write_report(
  workdir: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> pathlib.Path:
  """Writes the page of a run or a recipe, and returns its path.

  By default it is report.html in the work directory.
  Raises ConfigError if there is neither a run nor a recipe.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / PAGE if path is None else pathlib.Path(path)
  if (stages := _stages(workdir)) is not None:
    body = _scores(workdir) + _recipe(workdir, stages)
  elif (workdir / 'config.json').exists() or (workdir / FILE).exists():
    curves = read_curves(workdir)
    row = _row(workdir, workdir.absolute().name, curves)
    body = table([row], 'Run') + _run(workdir, curves)
  else:
    raise ConfigError(
      f'{os.fspath(workdir)!r} is the work directory of neither a run nor a recipe; '
      + (runs_near(workdir) or 'train first, or mend the path')
    )
  write_bytes(path, page(workdir.absolute().name, body).encode())
  return path


@contextlib.contextmanager
def report_at_end(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Writes the page of a run or a recipe when it ends, however it ends.

  A page that cannot be written is no reason to fail. On several hosts the first one writes it.
  """
  try:
    yield
  finally:
    if jax.process_index() == 0:
      try:
        _log.info('curves and numbers: %s', write_report(workdir))
      except (MgjaxError, OSError) as error:  # such as a full disk
        _log.warning('no report of %s: %s', os.fspath(workdir), first_line(error))
      except Exception:
        _log.warning('no report of %s', os.fspath(workdir), exc_info=True)


def read_curves(workdir: str | os.PathLike[str]) -> Curves:
  """Reads the metrics of a run: name -> (step, value)."""
  curves: Curves = {}
  for step, values in read_metrics(workdir):
    for name, value in values.items():
      curves.setdefault(name, []).append((float(step), value))
  return curves


def validation_curve(curves: Mapping[str, list[tuple[float, float]]]) -> list[tuple[float, float]]:
  """Returns the mean of the validation losses of all buckets, by step."""
  steps: dict[float, dict[str, float]] = {}
  for name, points in curves.items():
    for step, value in points:
      steps.setdefault(step, {})[name] = value
  losses = [(step, validation_loss(found)) for step, found in sorted(steps.items())]
  return [(step, loss) for step, loss in losses if loss is not None]


def _stages(workdir: pathlib.Path) -> list[dict[str, Any]] | None:
  """The stages in recipe.json; None where there is none."""
  path = workdir / 'recipe.json'
  if not path.exists():
    return None

  def right(stage: Any) -> bool:
    words = [stage['name'], stage['kind'], stage['folder'], *stage['after']]
    known = all(isinstance(word, str) for word in words) and isinstance(stage['after'], list)
    return known and pathlib.Path(stage['folder']).name == stage['folder']

  recipe = read_optional_json(path, lambda recipe: all(map(right, recipe['stages'])))
  if recipe is None:
    raise ConfigError(f'{os.fspath(path)!r} is damaged; the command of the recipe writes it anew')
  return recipe['stages']


def read_seconds(workdir: str | os.PathLike[str]) -> dict[str, float]:
  """Reads what each stage of a recipe took; {} of a damaged file, with a warning."""

  def right(seconds: Any) -> bool:
    return all(type(each) in (int, float) and 0 <= each < 2**53 for each in seconds.values())

  return read_optional_json(pathlib.Path(workdir) / SECONDS, right) or {}


def _scores(workdir: pathlib.Path) -> str:
  """Tables of the numbers in report.json: one of those by name, one of those alone."""
  report = read_optional_json(workdir / 'report.json', lambda report: bool(report.items())) or {}
  rows, alone = [], {}
  for name, value in report.items():
    if name in ('stages', 'about', 'seconds', 'shown'):
      continue
    if isinstance(value, dict) and (numbers := _numbers(value)):
      rows.append({'': printable(name), **numbers})
    else:
      alone |= _numbers({name: value})
  found = table(rows, 'Scores') if rows else ''
  return found + (table([{'': 'all', **alone}], 'Numbers') if alone else '')


def _numbers(values: Mapping[str, Any]) -> dict[str, str]:
  """Those of the values that are numbers, written for people."""
  kept = {name: value for name, value in values.items() if type(value) in (int, float)}
  return {
    printable(name): format_number(round(value, 3)) if math.isfinite(value) else '-'
    for name, value in kept.items()
  }


def _recipe(workdir: pathlib.Path, stages: list[dict[str, Any]]) -> str:
  seconds = read_seconds(workdir)
  rows, sections, links, marks, first = [], [], {}, {}, 0.0
  together: Curves = {'training': [], 'validation': []}
  for stage in stages:
    place, name = workdir / stage['folder'], stage['name']
    curves = read_curves(place) if stage.get('steps') else {}
    row = _row(place, name, curves) if stage.get('steps') else {'': name}
    row |= {'builds on': ', '.join(stage['after'])} if stage['after'] else {}
    row['minutes'] = format_number(round(seconds.get(name, 0) / 60, 1)) if name in seconds else ''
    rows.append(row)
    if not curves:
      continue
    links[name] = f'#stage-{len(sections)}'
    sections.append(
      f'<details id="{links[name][1:]}"><summary>{html.escape(name)}</summary>'
      f'{_run(place, curves)}</details>'
    )
    marks[name] = first
    for title, points in _losses(curves).items():
      together[title] += [(first + x, y) for x, y in points]
    first += max(x for points in curves.values() for x, _ in points)
  overview = chart('Loss over all stages, by steps', together, marks)
  return (
    f'{table(rows, "Stages", links)}{show_samples(workdir)}'
    f'<div class="charts"><div>{overview}</div></div>{"".join(sections)}'
  )


def _row(workdir: pathlib.Path, name: str, curves: Curves) -> dict[str, str]:
  """What the table says of a run."""
  row = {'': name}
  if not (workdir / 'config.json').exists():
    return row | {'component': 'not begun'}
  config = read_optional_json(workdir / 'config.json', _is_config)
  row['component'] = 'config.json is damaged' if config is None else migrate(config)['component']
  if shapes := read_optional_json(workdir / 'parameters.json', _are_shapes):
    row['parameters'] = f'{sum(math.prod(shape) for shape in shapes.values()):,}'
  done = max((x for points in curves.values() for x, _ in points), default=0)
  row['steps'] = f'{int(done):,}'
  if config is not None:
    row['steps'] += f' of {config["train"]["steps"]:,}'
  if points := curves.get('loss'):
    row['loss'] = f'{points[-1][1]:.4g}'
  if points := validation_curve(curves):
    row['validation loss'] = f'{points[-1][1]:.4g}'
  row |= _speeds(curves)
  return row


def _is_config(config: Any) -> bool:
  config = migrate(config)
  return isinstance(config['component'], str) and type(config['train']['steps']) is int


def _are_shapes(shapes: Any) -> bool:
  return all(
    len(shape) < 16 and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    for shape in shapes.values()
  )


def _speeds(curves: Curves) -> dict[str, str]:
  """Step time as p50 and p99, measured by step where the run has them, else over its reports."""
  found = {}
  seconds = [value for _, value in curves.get('seconds_per_step', ())]
  for percentile in (50, 99):
    exact = [
      points for name, points in curves.items() if 'second' in name and f'p{percentile}' in name
    ]
    values = [value for _, value in exact[0]] if exact else seconds
    if values:
      value = float(np.median(values) if exact else np.percentile(values, percentile))
      found[f'step p{percentile}'] = f'{value:.3g} s'
  if points := curves.get('data_wait'):
    found['data wait'] = f'{np.mean([value for _, value in points]):.1%}'
  return found


def _run(workdir: pathlib.Path, curves: Curves) -> str:
  """What a run made, and its loss; every other curve is in TensorBoard (`runtime/trackers.py`)."""
  if not curves:
    return '<p class="note">No metrics yet.</p>'
  drawn = chart('Loss', _losses(curves))
  return f'{show_samples(workdir)}<div class="charts"><div>{drawn}</div></div>'


def _losses(curves: Curves) -> Curves:
  return {'training': curves.get('loss', []), 'validation': validation_curve(curves)}
