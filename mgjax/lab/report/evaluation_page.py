"""The page of an evaluation: numbers, intervals, samples, the best and the worst of each metric.

It is made of the record alone: of `measured`, and `against` where it was compared. All metrics in
the record are shown, so a new one needs nothing here.
"""

import base64
import html
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import printable
from mgjax.lab.report.charts import format_number, histogram, interval_chart
from mgjax.lab.report.page import page, section, table
from mgjax.lab.report.preview import preview
from mgjax.lab.report.tables import aligned, cells_of

Record = Fields

SAMPLES = 12  # in the overview
_BYTES = 24 * 2**20  # of all files on a page
_LETTERS = 80  # of a setting that are shown
_BETTER = {1: 'higher', -1: 'lower', 0: ''}
_ENDS = {
  True: {1: ('Right', 'Wrong'), 0: ('Yes', 'No'), -1: ('Right', 'Wrong')},
  False: {1: ('Best', 'Worst'), 0: ('Highest', 'Lowest'), -1: ('Best', 'Worst')},
}
_ABOUT = (
  'Intervals are of 95%: of shares that of Wilson, of means a bootstrap. Where several samples are '
  'of one prompt they are over prompts, since such samples are alike. n counts the samples.'
)
_COMPARED = (
  'Differences are those of this record less the other one. Paired: over prompts that both have, '
  'drawn again with replacement; else from the intervals of both numbers. Of twenty differences '
  'that are none, one is beyond its interval by chance.'
)
# Files stand on the page once; the other places that show one take it from there. What moves does
# so while it is in sight, and stops at a click, or for those who asked for less motion.
_SCRIPT = """<script>
for (const each of document.querySelectorAll('[data-of]'))
  each.src = document.getElementById(each.dataset.of).src
const box = document.getElementById('moving'), videos = document.querySelectorAll('video.loop')
const turn = v => { if (v.near && box.checked) v.play().catch(() => {}); else v.pause() }
if (box) {
  box.checked = !matchMedia('(prefers-reduced-motion:reduce)').matches
  box.onchange = () => videos.forEach(turn)
  const watch = new IntersectionObserver(all => {
    for (const { target, isIntersecting } of all) { target.near = isIntersecting; turn(target) }
  })
  videos.forEach(v => { watch.observe(v); v.onclick = () => v.paused ? v.play() : v.pause() })
}
</script>"""
_BOX = '<p class="note"><label><input type="checkbox" id="moving"> Play videos in sight</label></p>'


def evaluation_page(title: str, record: Record, folder: pathlib.Path) -> str:
  """Returns the page of an evaluation: one HTML document that needs nothing else.

  `record` is that of `mgjax.lab.evaluation.record.measured.Measured.as_dict`, whose files lie in
  `folder`.
  """
  measured = record['measured']
  metrics: Mapping[str, Record] = measured['metrics']
  groups = _group_rows(measured['groups'], metrics)
  shown = _Shown(measured, folder)
  parts = [
    table(_rows(metrics), 'Numbers'),
    _note(_ABOUT),
    *(_note(text) for text in _warnings(metrics)),
    _compared(record['against'], metrics) if 'against' in record else '',
    _charts(metrics),
    table(groups, 'By tag') if groups else '',
    _overview(measured, shown),
    *(_extremes(name, metric, shown) for name, metric in metrics.items()),
    _about(record),
  ]
  if shown.left:
    parts.append(
      _note(f'{shown.left} samples are not shown, which would make this page too large.')
    )
  return page(title, ''.join(parts) + (_SCRIPT if shown.known else ''))


def printed(measured: Record) -> list[str]:
  """Returns the lines of a table of all metrics, and of one of their values by group."""
  metrics = measured['metrics']
  lines = aligned(cells_of(_rows(metrics))) if metrics else []
  groups = _group_rows(measured['groups'], metrics)
  return [*lines, '', *aligned(cells_of(groups))] if groups else lines


class _Shown:
  """Samples as figures; each file comes on the page once."""

  def __init__(self, measured: Record, folder: pathlib.Path):
    self.known: dict[int, str] = {}
    self.left = 0
    self.moves = False
    self._names, self._sound = measured['samples'], measured['sound']
    self._files = {int(place): folder / file for place, file in measured['files'].items()}
    self._bytes = 0
    self._failed = set[int]()

  def has(self, place: int) -> bool:
    return place in self._files

  def figure(self, place: int, before: str = '') -> str:
    """Returns a sample with its prompt below it, after `before`, a number."""
    name = html.escape(printable(self._names[place]))
    number = f'<b>{html.escape(before)}</b> ' if before else ''
    return (
      f'<figure class="sample">{self._media(place, name)}'
      f'<figcaption title="{name}">{number}{name}</figcaption></figure>'
    )

  def _media(self, place: int, name: str) -> str:
    if place in self.known:
      return self._element(self.known[place], f'data-of="sample-{place}"', name)
    if place not in self._files or place in self._failed:
      return ''
    found = preview(self._files[place])
    if found is None or self._bytes + len(found[1]) > _BYTES:
      self._failed.add(place)
      self.left += 1
      return ''
    kind, data = found
    self._bytes += len(data)
    self.known[place] = kind.partition('/')[0]
    source = f'data:{kind};base64,{base64.b64encode(data).decode()}'
    return self._element(self.known[place], f'id="sample-{place}" src="{source}"', name)

  def _element(self, kind: str, source: str, name: str) -> str:
    if kind == 'image':
      return f'<img {source} alt="{name}">'
    if kind == 'audio':
      return f'<audio {source} controls preload="metadata" aria-label="{name}"></audio>'
    if self._sound:
      return f'<video {source} controls loop preload="metadata" aria-label="{name}"></video>'
    self.moves = True
    return (
      f'<video class="loop" {source} muted loop playsinline preload="metadata" '
      f'aria-label="{name}"></video>'
    )


def _label(name: str, metric: Record) -> str:
  return printable(metric['label'] or name)


def _number(value: Any, sign: bool = False) -> str:
  if value is None or not math.isfinite(value):
    return ''
  return f'{value:+.3g}' if sign else format_number(float(f'{value:.4g}'))


def _interval(told: Record, sign: bool = False) -> str:
  ends = [_number(told[end], sign) for end in ('low', 'high')]
  return f'{ends[0]} to {ends[1]}' if all(ends) else ''


def _why_none(metric: Record) -> str:
  return '' if metric['value'] is None else metric.get('warning') or ''


def _count(metric: Record) -> str:
  count = f'{metric["count"]:,}' if metric['count'] else ''
  return f'{count} and {metric["references"]:,}' if metric.get('references') else count


def _rows(metrics: Mapping[str, Record]) -> list[dict[str, str]]:
  rows = []
  for name, metric in metrics.items():
    row = {
      '': _label(name, metric),
      'value': _number(metric['value']),
      '95% interval': _interval(metric) or _why_none(metric),
      'n': _count(metric),
      'better': _BETTER[metric['better']],
    }
    rows.append(row | {printable(way): _number(each) for way, each in metric['beside'].items()})
  return rows


def _warnings(metrics: Mapping[str, Record]) -> Iterable[str]:
  found = ((name, metric) for name, metric in metrics.items() if metric.get('warning'))
  return (f'{_label(name, metric)}: {metric["warning"]}.' for name, metric in found)


def _note(text: str) -> str:
  return f'<p class="note">{html.escape(text)}</p>'


def _compared(against: Record, metrics: Mapping[str, Record]) -> str:
  """The other record's numbers and the differences."""
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
  name = f'Against {printable(against["path"])}'
  notes = ''.join(f'<p>{html.escape(printable(note))}</p>' for note in against['notes'])
  warned = ''.join(f'<p class="warning">{html.escape(text)}.</p>' for text in warnings)
  shown = (table(rows, name), warned, _note(_COMPARED)) if rows else (warned,)
  return section('Comparison', notes, *shown)


def _verdict(change: Record, better: int) -> str:
  low, high = change['low'], change['high']
  if change['warning'] or low is None or high is None or low <= 0 <= high:
    return 'unsure'
  if not better:
    return 'more' if low > 0 else 'less'
  return 'better' if (low > 0) == (better > 0) else 'worse'


def _charts(metrics: Mapping[str, Record]) -> str:
  """All shares, with their intervals."""
  shares = {
    _label(name, metric): tuple(100 * metric[end] for end in ('value', 'low', 'high'))
    for name, metric in metrics.items()
    if metric['share'] and None not in (metric['value'], metric['low'], metric['high'])
  }
  drawn = interval_chart('Shares, %', shares)
  return f'<div class="charts"><div>{drawn}</div></div>' if drawn else ''


def _group_rows(
  groups: Mapping[str, Mapping[str, Record]], metrics: Mapping[str, Record]
) -> list[dict[str, str]]:
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


def _overview(measured: Record, shown: _Shown) -> str:
  files = [int(place) for place in measured['files']]
  places = [place for place in measured['spread'] if shown.has(place)]
  places = [*places, *(place for place in files if place not in places)][:SAMPLES]
  figures = ''.join(shown.figure(place) for place in sorted(places))
  if not figures:
    return ''
  about = _note(f'From left to right: {measured["about"]}.') if measured['about'] else ''
  box = _BOX if shown.moves else ''
  return section('Samples', about, box, f'<div class="shown">{figures}</div>')


def _extremes(name: str, metric: Record, shown: _Shown) -> str:
  """The numbers of one metric as a histogram, and its best and worst samples."""
  label = _label(name, metric)
  each = metric['each']
  numbers = np.array(each, np.float64)  # None becomes NaN
  varied = not metric['share'] and len(np.unique(numbers[np.isfinite(numbers)])) > 1
  line = {} if metric['value'] is None else {'all': metric['value']}
  drawn = histogram(label, {'samples': numbers}, line) if varied else ''
  rows = []
  for title, places in zip(
    _ENDS[metric['share']][metric['better']], (metric['best'], metric['worst']), strict=True
  ):
    if places:
      before = ['' if metric['share'] else _number(each[place]) for place in places]
      figures = ''.join(map(shown.figure, places, before))
      rows.append(f'<h3>{title}</h3><div class="shown">{figures}</div>')
  if not rows and not drawn:
    return ''
  told = ' '.join(filter(None, (_number(metric['value']), f'({_interval(metric)})')))
  drawn = f'<div class="charts"><div>{drawn}</div></div>' if drawn else ''
  return section(f'{label}: {told.replace(" ()", "")}', drawn, *rows)


def _about(record: Record) -> str:
  """Where the numbers are from: weights, seed and settings."""
  rows = []
  for name in ('task', 'weights', 'seed', 'settings', 'perceptual', 'clip', 'judge', 'reference'):
    value = record.get(name)
    told = value if isinstance(value, Mapping) else {'': value}
    for part, found in told.items():
      text = printable(found)
      if found not in (None, '') and len(text) <= _LETTERS:
        rows.append({'': f'{name} {printable(part)}'.rstrip().replace('_', ' '), 'value': text})
  return section('What was evaluated', table(rows, 'Settings'))
