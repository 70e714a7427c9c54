"""The page of an evaluation: numbers, intervals, samples, the best and the worst of each metric.

The page depends on the record alone: on `measured`, and on `against` if the record has a
comparison. It shows all metrics of the record, so a new metric needs no change here.
"""

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import printable
from mgjax.lab.report.charts import format_number, histogram, interval_chart
from mgjax.lab.report.page import Rows, data_url, render
from mgjax.lab.report.preview import preview
from mgjax.lab.report.tables import aligned, cells_of

Record = Fields

SAMPLES = 12  # in the overview
_BYTES = 24 * 2**20  # of all files on a page
_LETTERS = 80  # of a setting; longer ones are left out
_BETTER = {1: 'higher', -1: 'lower', 0: ''}
_ENDS = {
  True: {1: ('Right', 'Wrong'), 0: ('Yes', 'No'), -1: ('Right', 'Wrong')},
  False: {1: ('Best', 'Worst'), 0: ('Highest', 'Lowest'), -1: ('Best', 'Worst')},
}


def evaluation_page(title: str, record: Record, folder: pathlib.Path) -> str:
  """Returns the page of an evaluation: one self-contained HTML document.

  `record` is that of `mgjax.lab.evaluation.record.measured.Measured.as_dict`, with its files in
  `folder`.
  """
  measured = record['measured']
  metrics: Mapping[str, Record] = measured['metrics']
  samples = _Samples(measured, folder)
  overview = _overview(measured, samples)
  plays = samples.has_loops
  extremes = [_extremes(name, metric, samples) for name, metric in metrics.items()]
  return render(
    'evaluation.html',
    title,
    numbers=_rows(metrics),
    warnings=_warnings(metrics),
    comparison=_compared(record['against'], metrics) if 'against' in record else None,
    shares=_charts(metrics),
    groups=_group_rows(measured['groups'], metrics),
    overview=overview,
    about=measured['about'],
    plays=plays,
    metrics=[metric for metric in extremes if metric is not None],
    settings=_settings(record),
    left_out=samples.left_out,
    has_media=bool(samples.kinds),
  )


def printed(measured: Record) -> list[str]:
  """Returns the lines of a table of all metrics and of a table of their values by group."""
  metrics = measured['metrics']
  lines = aligned(cells_of(_rows(metrics))) if metrics else []
  groups = _group_rows(measured['groups'], metrics)
  return [*lines, '', *aligned(cells_of(groups))] if groups else lines


class _Figure(NamedTuple):
  """A sample on the page; the first figure of a file holds its bytes as a URL."""

  index: int
  kind: str  # 'image', 'audio', 'video' with controls, 'loop', or '' for no file
  url: str
  name: str
  number: str


class _Samples:
  """Turns samples into figures; the page holds the bytes of each file once."""

  def __init__(self, measured: Record, folder: pathlib.Path):
    self.kinds: dict[int, str] = {}
    self.left_out = 0
    self.has_loops = False
    self._names = measured['samples']
    self._has_sound = measured['sound']
    self._files = {int(index): folder / file for index, file in measured['files'].items()}
    self._bytes = 0
    self._failed = set[int]()

  def has(self, index: int) -> bool:
    return index in self._files

  def figure(self, index: int, number: str = '') -> _Figure:
    """Returns the figure of a sample, with a number and its prompt below it."""
    kind, url = self._media(index)
    return _Figure(index, kind, url, printable(self._names[index]), number)

  def _media(self, index: int) -> tuple[str, str]:
    if index in self.kinds:
      return self.kinds[index], ''
    if index not in self._files or index in self._failed:
      return '', ''
    copy = preview(self._files[index])
    if copy is None or self._bytes + len(copy[1]) > _BYTES:
      self._failed.add(index)
      self.left_out += 1
      return '', ''
    mime, data = copy
    self._bytes += len(data)
    kind = mime.partition('/')[0]
    if kind == 'video' and not self._has_sound:
      kind = 'loop'
      self.has_loops = True
    self.kinds[index] = kind
    return kind, data_url(mime, data)


def _label(name: str, metric: Record) -> str:
  return printable(metric['label'] or name)


def _number(value: Any, sign: bool = False) -> str:
  if value is None or not math.isfinite(value):
    return ''
  return f'{value:+.3g}' if sign else format_number(float(f'{value:.4g}'))


def _interval(metric: Record, sign: bool = False) -> str:
  ends = [_number(metric[end], sign) for end in ('low', 'high')]
  return f'{ends[0]} to {ends[1]}' if all(ends) else ''


def _why_none(metric: Record) -> str:
  return '' if metric['value'] is None else metric.get('warning') or ''


def _count(metric: Record) -> str:
  count = f'{metric["count"]:,}' if metric['count'] else ''
  return f'{count} and {metric["references"]:,}' if metric.get('references') else count


def _rows(metrics: Mapping[str, Record]) -> Rows:
  rows = []
  for name, metric in metrics.items():
    row = {
      '': _label(name, metric),
      'value': _number(metric['value']),
      '95% interval': _interval(metric) or _why_none(metric),
      'n': _count(metric),
      'better': _BETTER[metric['better']],
    }
    rows.append(row | {printable(way): _number(number) for way, number in metric['beside'].items()})
  return rows


def _warnings(metrics: Mapping[str, Record]) -> Iterable[str]:
  flagged = ((name, metric) for name, metric in metrics.items() if metric.get('warning'))
  return (f'{_label(name, metric)}: {metric["warning"]}.' for name, metric in flagged)


def _compared(against: Record, metrics: Mapping[str, Record]) -> Record:
  """Returns the other record's numbers and the differences."""
  rows = []
  warnings = []
  for name, change in against['metrics'].items():
    metric = metrics[name]
    paired = change['prompts']
    rows.append(
      {
        '': _label(name, metric),
        'other': _number(change['other']),
        'this': _number(metric['value']),
        'difference': _number(change['difference'], sign=True),
        '95% interval': _interval(change, sign=True),
        'how': f'paired, {paired:,} prompts' if paired else 'not paired',
        'which is': _verdict(change, metric['better']),
      }
    )
    if change['warning']:
      warnings.append(change['warning'])
  return {
    'name': f'Against {printable(against["path"])}',
    'notes': [printable(note) for note in against['notes']],
    'rows': rows,
    'warnings': [f'{text}.' for text in warnings],
  }


def _verdict(change: Record, better: int) -> str:
  low, high = change['low'], change['high']
  if change['warning'] or low is None or high is None or low <= 0 <= high:
    return 'unsure'
  if not better:
    return 'more' if low > 0 else 'less'
  return 'better' if (low > 0) == (better > 0) else 'worse'


def _charts(metrics: Mapping[str, Record]) -> list[Markup]:
  """Draws all shares with their intervals."""
  shares = {
    _label(name, metric): tuple(100 * metric[end] for end in ('value', 'low', 'high'))
    for name, metric in metrics.items()
    if metric['share'] and None not in (metric['value'], metric['low'], metric['high'])
  }
  drawn = interval_chart('Shares, %', shares)
  return [drawn] if drawn else []


def _group_rows(groups: Mapping[str, Mapping[str, Record]], metrics: Mapping[str, Record]) -> Rows:
  rows = []
  for group, values in groups.items():
    count = max((value['count'] for value in values.values()), default=0)
    row = {'': printable(group), 'n': f'{count:,}'}
    for name, value in values.items():
      ends = _interval(value)
      cell = f'{_number(value["value"])} ({ends})' if ends else _number(value['value'])
      row[_label(name, metrics[name])] = cell
    rows.append(row)
  return rows


def _overview(measured: Record, samples: _Samples) -> list[_Figure]:
  files = [int(index) for index in measured['files']]
  indices = [index for index in measured['spread'] if samples.has(index)]
  indices = [*indices, *(index for index in files if index not in indices)][:SAMPLES]
  return [samples.figure(index) for index in sorted(indices)]


def _extremes(name: str, metric: Record, samples: _Samples) -> Record | None:
  """Returns the histogram of one metric, and its best and worst samples."""
  label = _label(name, metric)
  values = metric['each']
  numbers = np.array(values, np.float64)  # None becomes NaN
  varied = not metric['share'] and len(np.unique(numbers[np.isfinite(numbers)])) > 1
  line = {} if metric['value'] is None else {'all': metric['value']}
  chart = histogram(label, {'samples': numbers}, line) if varied else ''
  extremes = []
  for title, indices in zip(
    _ENDS[metric['share']][metric['better']], (metric['best'], metric['worst']), strict=True
  ):
    if indices:
      before = ['' if metric['share'] else _number(values[index]) for index in indices]
      extremes.append((title, list(map(samples.figure, indices, before))))
  if not extremes and not chart:
    return None
  interval = _interval(metric)
  parts = [_number(metric['value']), f'({interval})' if interval else '']
  return {
    'title': f'{label}: {" ".join(filter(None, parts))}',
    'charts': [chart] if chart else [],
    'extremes': extremes,
  }


def _settings(record: Record) -> Rows:
  """Returns the provenance of the numbers: weights, seed and settings."""
  rows = []
  for name in ('task', 'weights', 'seed', 'settings', 'perceptual', 'clip', 'judge', 'reference'):
    value = record.get(name)
    fields = value if isinstance(value, Mapping) else {'': value}
    for part, setting in fields.items():
      text = printable(setting)
      if setting not in (None, '') and len(text) <= _LETTERS:
        rows.append({'': f'{name} {printable(part)}'.rstrip().replace('_', ' '), 'value': text})
  return rows
