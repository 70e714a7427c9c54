"""The page of a curation: what each filter kept and dropped, and why (Movie Gen §3.2.1, Table 44).

One HTML file that needs nothing else: the funnel beside that of Table 44, every score with its
thresholds, examples of what was kept and dropped, reasons by number, and what each filter cost.
"""

import collections
import dataclasses
import html
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.config import flatten
from mgjax.core.errors import DataError, printable
from mgjax.core.files import write_bytes
from mgjax.curation.costs import Costs, costs_of, summary
from mgjax.curation.filters.registry import FILTERS
from mgjax.curation.filters.table import as_columns
from mgjax.curation.filters.thresholds import with_lengths
from mgjax.curation.page_examples import Pictures, show_examples
from mgjax.curation.settings import CurationSettings
from mgjax.runtime.report.charts import format_number
from mgjax.runtime.report.histogram import funnel_chart, histogram
from mgjax.runtime.report.page import page, table

# Columns that are no scores: what a clip is, not how good.
ABOUT = (
  'video', 'clip', 'place', 'start', 'end', 'shot', 'shots', 'frames', 'seconds', 'width', 'height',
  'fps', 'caption', 'sound', 'middle', 'seconds_of', 'error', 'clip_seconds', 'aspect', 'packets',
  'decoded', 'gated', 'loop', 'shard',
)  # fmt: skip
_NO_SCORES = ('middle', 'loop', 'seconds_of', 'gated', 'error')
_REASONS = 12  # of a filter that are listed; the rest are counted together
_ANSWERS = 20  # of a score in words, likewise
_BROKEN = 20  # videos that could not be measured, by name
_NUMBER = re.compile(r'(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?')


def write_page(
  rows: Any,
  reasons: Mapping[str, Any],
  settings: CurationSettings,
  seconds: Mapping[str, float],
  path: str | os.PathLike[str],
  *,
  off: Mapping[str, str] = {},
  pictures: Pictures | None = None,
  moving: Pictures | None = None,
) -> pathlib.Path:
  """Writes the page, and returns where it is.

  Args:
    rows: a row a clip: dictionaries, or a table of columns (pyarrow's, or a dictionary).
    reasons: of every filter in its order, one a row: why it drops the clip, '' where it keeps it.
      What is said of a clip that an earlier filter dropped does not count.
    settings: of the curation; thresholds become lines across the histograms.
    seconds: of each filter, for all clips; those of the scores are in the rows' `seconds_of`.
    path: of the page.
    off: filter -> why it did nothing.
    pictures: numbers of rows -> JPEGs; by default the rows' `middle`.
    moving: numbers of rows -> animated WebPs, shown in place of pictures; by default the rows'
      `loop`.

  Raises:
    DataError: reasons are not one a row.
  """
  columns = _columns(rows)
  count = len(next(iter(columns.values()), ()))
  errors = [each or '' for each in columns.get('error', [''] * count)]
  broken = np.array([bool(each) for each in errors], bool)
  scores = _scores(columns)
  reached, alive = {}, ~broken
  for name, said in reasons.items():
    if len(said) != count:
      raise DataError(f'filter {name!r} has {len(said)} reasons for {count} rows; give one a row')
    kept = np.asarray(said, object) == ''
    reached[name] = alive, alive & kept
    alive = alive & kept
  body = [
    _summary(scores, broken, alive),
    _warnings(off),
    _funnel(scores, reached, ~broken, off),
    _reason_tables(reasons, reached, _names(columns)),
    show_examples(columns, reasons, reached, alive, pictures, moving),
    _histograms(scores, reached, ~broken, alive, settings),
    _times(columns, reached, seconds, settings),
    _broken(columns, errors),
    _settings(settings),
  ]
  path = pathlib.Path(path)
  write_bytes(path, page('Curation', ''.join(body)).encode())
  return path


def _columns(rows: Any) -> dict[str, Any]:
  """Columns by name of whatever a table is."""
  if hasattr(rows, 'column_names'):  # pyarrow's
    named = [name for name in rows.column_names if name != 'seconds_of']
    costs = {'seconds_of': rows['seconds_of']} if 'seconds_of' in rows.column_names else {}
    return as_columns(rows, named) | costs
  if isinstance(rows, Mapping):
    return dict(rows)
  names = dict.fromkeys(name for row in rows for name in row)
  return {name: [row.get(name) for row in rows] for name in names}


def _scores(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Numbers and texts of the rows, and what filters make of them."""
  names = [name for name in columns if name not in _NO_SCORES]
  return with_lengths(as_columns(columns, names))


def _hours(scores: Mapping[str, np.ndarray], chosen: np.ndarray) -> float:
  return float(np.nansum(scores['clip_seconds'][chosen])) / 3600 if 'clip_seconds' in scores else 0


def _summary(scores, broken, alive) -> str:
  videos = scores.get('video', [''] * len(broken))
  rows = [
    {
      '': 'measured',
      'videos': f'{len({v for v, bad in zip(videos, broken, strict=True) if not bad}):,}',
      'clips': f'{int((~broken).sum()):,}',
      'hours': format_number(round(_hours(scores, ~broken), 3)),
    },
    {
      '': 'kept',
      'videos': f'{len({v for v, good in zip(videos, alive, strict=True) if good}):,}',
      'clips': f'{int(alive.sum()):,}',
      'hours': format_number(round(_hours(scores, alive), 3)),
    },
  ]
  if broken.any():
    rows.append({'': 'could not be measured', 'videos': f'{int(broken.sum()):,}'})
  return table(rows, 'Clips')


def _warnings(off: Mapping[str, str]) -> str:
  if not off:
    return ''
  items = ''.join(
    f'<li><b>{html.escape(name)}</b>{html.escape(printable(why).removeprefix(name))}</li>'
    for name, why in off.items()
  )
  return f'<section><h2>Filters that did nothing</h2><ul>{items}</ul></section>'


def _funnel(scores, reached, measured, off) -> str:
  total, rows, bars, before = max(int(measured.sum()), 1), [], {}, 1.0
  for name, (came, left) in reached.items():
    share, paper = int(left.sum()) / total, FILTERS[name].published if name in FILTERS else None
    row = {
      'filter': name + ' (off)' * (name in off),
      'dropped': f'{int(came.sum() - left.sum()):,}',
      'left': f'{int(left.sum()):,}',
      'hours left': format_number(round(_hours(scores, left), 3)),
      'left of all': _percent(share),
      'Table 44': '' if paper is None else _percent(paper),
      'kept of what came': _percent(int(left.sum()) / int(came.sum())) if came.any() else '',
      'kept in Table 44': '' if paper is None else _percent(paper / before),
    }
    before = before if paper is None else paper
    rows.append(row)
    bars[row['filter']] = share, paper
  drawn = funnel_chart('Clips left after each filter', bars, ('here', 'Table 44'))
  note = (
    'Table 44 is of the strictest set of the paper. Its shares depend on the footage and on the '
    'order of the filters, ours too.'
  )
  return (
    f'<section><h2>Funnel</h2>{table(rows, "What each filter left")}<p class="note">{note}</p>'
    f'<div class="charts"><div>{drawn}</div></div></section>'
  )


def _percent(share: float) -> str:
  return f'{format_number(round(100 * share, 2))}%'


def pattern(reason: str, names: Collection[str] = ()) -> str:
  """A reason without its first number, or the name of a clip at its end, so that like ones count.

  'x 0.83 >= 0.6' and 'x 0.7 >= 0.6' are one, and so are copies of whichever clip.
  """
  words = reason.split(' ')
  for number in range(len(words)):
    if ' '.join(words[number:]) in names:
      return ' '.join([*words[:number], '…'])
  return _NUMBER.sub('…', reason, count=1)


def _names(columns: Mapping[str, Any]) -> set[str]:
  return {str(each) for name in ('video', 'clip') for each in columns.get(name, ())}


def _reason_tables(reasons, reached, names: set[str]) -> str:
  rows = []
  for name, said in reasons.items():
    came, left = reached[name]
    dropped = np.flatnonzero(came & ~left)
    counts = collections.Counter()
    for reason, count in collections.Counter(said[each] for each in dropped).items():
      counts[pattern(reason, names)] += count
    common = counts.most_common(_REASONS)
    more = sum(counts.values()) - sum(number for _, number in common)
    common += [(f'{len(counts) - len(common)} other reasons', more)] if more else []
    rows += [
      {'reason': f'{name}: {printable(reason)}', 'clips': f'{number:,}'}
      for reason, number in common
    ]
  return (
    f'<section><h2>Reasons</h2>{table(rows, "Why clips were dropped")}</section>' if rows else ''
  )


def _histograms(scores, reached, measured, alive, settings: CurationSettings) -> str:
  drawn, words, seen = [], [], set()
  for name, (came, left) in reached.items():
    limits = FILTERS[name].limits(settings.keep) if name in FILTERS else ()
    for limit in limits:
      lines = {
        format_number(value): value for value in (limit.low, limit.high) if value is not None
      }
      seen.add(limit.column)
      if limit.column in scores:
        values = scores[limit.column]
        groups = {f'kept by {name}': values[left], 'dropped by it': values[came & ~left]}
        drawn.append(histogram(f'{name}: {limit.column}', groups, lines))
  for column, values in scores.items():
    if column in seen or column in ABOUT or values.ndim > 1:
      continue
    if values.dtype.kind == 'f':
      groups = {'kept in the end': values[alive], 'dropped': values[measured & ~alive]}
      drawn.append(histogram(column, groups))
    elif all(each is None or isinstance(each, str) for each in values):
      words.append(_words(column, values, measured, alive))
  if not drawn and not words:
    return ''
  note = (
    'A clip counts in the histogram of a filter if it came as far. The first and the last bar have '
    'all that lies beyond them.'
  )
  charts = ''.join(f'<div>{each}</div>' for each in drawn if each)
  return (
    f'<section><h2>Scores</h2><p class="note">{note}</p>'
    f'<div class="charts">{charts}</div>{"".join(words)}</section>'
  )


def _words(column, values, came, left) -> str:
  counts = collections.Counter(values[each] for each in np.flatnonzero(came))
  kept = collections.Counter(values[each] for each in np.flatnonzero(left))
  rows = [
    {'answer': printable(answer) if answer else '(none)', 'clips': f'{number:,}',
     'of them kept': f'{kept[answer]:,}'}
    for answer, number in counts.most_common(_ANSWERS)
  ]  # fmt: skip
  return table(rows, column)


def _times(rows, reached, seconds, settings: CurationSettings) -> str:
  costs = costs_of(rows, settings)
  done, whole = costs.scored, sum(costs.scored.seconds.values()) + sum(seconds.values())
  cells = []
  for name in dict.fromkeys([*done.seconds, *reached, *seconds]):
    measured, filtered = done.seconds.get(name, 0.0), seconds.get(name, 0.0)
    row = {'': name, 'share': _percent((measured + filtered) / whole) if whole else ''}
    if name in done.seconds:
      row |= {
        'seconds of scores': format_number(round(measured, 3)),
        'a clip, ms': format_number(round(1e3 * done.a_clip(name), 3)),
      }
    if name in seconds:
      row['seconds of the filter'] = format_number(round(filtered, 3))
    if name in reached:
      came, left = reached[name]
      dropped = int(came.sum() - left.sum())
      row['dropped'] = f'{dropped:,}'
      if dropped:
        row['a clip dropped, ms'] = format_number(round(1e3 * (measured + filtered) / dropped, 3))
    cells.append(row)
  if not cells:
    return ''
  notes = [
    'Scores are made of every clip, in seconds of a processor; filters read them, in seconds.'
  ]
  if done.packets:
    notes.append(
      f'{done.decoded:,} frames were decoded, of {done.packets:,} that the videos have: '
      f'{done.decoded / done.packets:.2f} times each.'
    )
  if done.gated:
    notes.append(f'{done.gated:,} videos were dropped by a probe and not decoded.')
  told = ''.join(f'<p class="note">{note}</p>' for note in notes)
  return f'<section><h2>Time</h2>{table(cells, "Running time")}{told}{_order(costs)}</section>'


def _order(costs: Costs) -> str:
  """What the filters would cost if scores were made only of what is left, in the best order."""
  if not costs.scored.clips or not costs.best:
    return ''
  places = {place.name: number for number, place in enumerate(costs.order, 1)}
  rows = [
    {
      'filter': place.name,
      'place here': str(places[place.name]),
      'ms a clip that comes': format_number(round(1e3 * place.seconds, 3)),
      'come': _percent(place.came),
      'drops of them': _percent(place.dropped),
      'drops of all': _percent(place.alone),
      'ms a clip dropped': format_number(round(1e3 * place.a_dropped, 1)) if place.dropped else '',
    }
    for place in costs.best
  ]
  told = ''.join(f'<p class="note">{html.escape(line)}</p>' for line in summary(costs))
  return f'{table(rows, "The order that costs least")}{told}'


def _broken(columns, errors: Sequence[str]) -> str:
  found = [number for number, error in enumerate(errors) if error]
  if not found:
    return ''
  names = columns.get('video', columns.get('clip', [''] * len(errors)))
  rows = [
    {'video': printable(names[each]), 'reason': printable(errors[each])} for each in found[:_BROKEN]
  ]
  more = f'<p class="note">and {len(found) - _BROKEN:,} more</p>' * (len(found) > _BROKEN)
  title = 'Videos that could not be measured'
  return f'<section><h2>{title}</h2>{table(rows, title)}{more}</section>'


def _settings(settings: CurationSettings) -> str:
  plain = flatten(dataclasses.asdict(settings))
  rows = [{'': name, 'value': printable(value)} for name, value in plain.items()]
  return f'<details><summary>Settings</summary>{table(rows, "Settings")}</details>'
