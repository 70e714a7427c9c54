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
from collections.abc import Sequence

import numpy as np

from mgjax.core.configuration.keys import flatten
from mgjax.core.errors import printable
from mgjax.core.files import write_bytes
from mgjax.lab.curation.costs import costs_of, summary
from mgjax.lab.curation.filters.registry import FILTERS
from mgjax.lab.curation.filters.table import as_columns
from mgjax.lab.curation.filters.thresholds import with_lengths
from mgjax.lab.curation.pages.page_examples import Masks, Pictures, show_examples
from mgjax.lab.curation.select import Selection, Step
from mgjax.lab.curation.settings import CurationSettings
from mgjax.lab.report.charts import format_number, histogram
from mgjax.lab.report.page import page, section, table

# Columns that are no scores: what a clip is, not how good.
ABOUT = (
  'video',
  'clip',
  'place',
  'start',
  'end',
  'shot',
  'shots',
  'frames',
  'seconds',
  'width',
  'height',
  'fps',
  'caption',
  'sound',
  'clip_seconds',
  'aspect',
  'packets',
  'decoded',
)
_NO_SCORES = ('middle', 'loop', 'seconds_of', 'gated', 'error')
_REASONS = 12  # of a filter that are listed; the rest are counted together
_ANSWERS = 20  # of a score in words, likewise
_BROKEN = 20  # videos that could not be measured, by name
_NUMBER = re.compile(r'(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?')
_Scores = dict[str, np.ndarray]


def write_page(
  selection: Selection, settings: CurationSettings, path: str | os.PathLike[str], pictures: Pictures
) -> pathlib.Path:
  """Writes the page, and returns where it is; `pictures` gets numbers of rows and a kind."""
  rows, steps = selection.table, selection.steps
  scores = with_lengths(
    as_columns(rows, [name for name in rows.column_names if name not in _NO_SCORES])
  )
  measured = ~rows['error'].is_valid().to_numpy()
  reached = {}
  alive = measured
  for step in steps:
    came = alive
    alive = alive & (selection.dropped_by != step.name)
    reached[step.name] = came, alive
  body = [
    _summary(scores, measured, alive),
    _warnings(steps),
    _funnel(scores, steps, reached, measured),
    _reason_tables(steps),
    show_examples(scores, selection.reasons, reached, alive, pictures),
    _histograms(scores, reached, measured, alive, settings),
    _times(rows, steps),
    _broken(scores, selection.reasons, measured),
    _settings(settings),
  ]
  path = pathlib.Path(path)
  write_bytes(path, page('Curation', ''.join(body)).encode())
  return path


def _hours(scores: _Scores, chosen: np.ndarray) -> float:
  return float(np.nansum(scores['clip_seconds'][chosen])) / 3600 if 'clip_seconds' in scores else 0


def _summary(scores: _Scores, measured: np.ndarray, alive: np.ndarray) -> str:
  rows = [
    {
      '': name,
      'videos': f'{len(set(scores["video"][chosen])):,}',
      'clips': f'{int(chosen.sum()):,}',
      'hours': format_number(round(_hours(scores, chosen), 3)),
    }
    for name, chosen in (('measured', measured), ('kept', alive))
  ]
  if not measured.all():
    rows.append({'': 'could not be measured', 'videos': f'{int((~measured).sum()):,}'})
  return table(rows, 'Clips')


def _warnings(steps: Sequence[Step]) -> str:
  items = ''.join(
    f'<li><b>{html.escape(each.name)}</b>'
    f'{html.escape(printable(each.off).removeprefix(each.name))}</li>'
    for each in steps
    if each.off
  )
  return section('Filters that did nothing', f'<ul>{items}</ul>') if items else ''


def _funnel(scores: _Scores, steps: Sequence[Step], reached: Masks, measured: np.ndarray) -> str:
  total = max(int(measured.sum()), 1)
  rows = []
  before = 1.0
  for step in steps:
    share = step.kept / total
    paper = FILTERS[step.name].published if step.name in FILTERS else None
    row = {
      'filter': step.name + ' (off)' * bool(step.off),
      'dropped': f'{step.before - step.kept:,}',
      'left': f'{step.kept:,}',
      'hours left': format_number(round(_hours(scores, reached[step.name][1]), 3)),
      'left of all': _percent(share),
      'Table 44': '' if paper is None else _percent(paper),
      'kept of what came': _percent(step.kept / step.before) if step.before else '',
      'kept in Table 44': '' if paper is None else _percent(paper / before),
    }
    before = before if paper is None else paper
    rows.append(row)
  note = (
    'Table 44 is of the strictest set of the paper. Its shares depend on the footage and on the '
    'order of the filters, ours too.'
  )
  return section('Funnel', table(rows, 'What each filter left'), f'<p class="note">{note}</p>')


def _percent(share: float) -> str:
  return f'{format_number(round(100 * share, 2))}%'


def _reason_tables(steps: Sequence[Step]) -> str:
  rows = []
  for step in steps:
    counts = collections.Counter()
    for reason, count in step.reasons.items():
      like = 'copy of …' if reason.startswith('copy of ') else _NUMBER.sub('…', reason, count=1)
      counts[like] += count
    common = counts.most_common(_REASONS)
    more = counts.total() - sum(number for _, number in common)
    common += [(f'{len(counts) - len(common)} other reasons', more)] if more else []
    rows += [
      {'reason': f'{step.name}: {printable(reason)}', 'clips': f'{number:,}'}
      for reason, number in common
    ]
  return section('Reasons', table(rows, 'Why clips were dropped')) if rows else ''


def _histograms(
  scores: _Scores,
  reached: Masks,
  measured: np.ndarray,
  alive: np.ndarray,
  settings: CurationSettings,
) -> str:
  drawn = []
  words = []
  seen = set()
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
  charts = f'<p class="note">{note}</p><div class="charts">{charts}</div>'
  return section('Scores', charts, *words)


def _words(column: str, values: np.ndarray, came: np.ndarray, left: np.ndarray) -> str:
  counts = collections.Counter(values[each] for each in np.flatnonzero(came))
  kept = collections.Counter(values[each] for each in np.flatnonzero(left))
  rows = [
    {
      'answer': printable(answer) if answer else '(none)',
      'clips': f'{number:,}',
      'of them kept': f'{kept[answer]:,}',
    }
    for answer, number in counts.most_common(_ANSWERS)
  ]
  return table(rows, column)


def _times(rows: object, steps: Sequence[Step]) -> str:
  costs = costs_of(rows)
  asked = {step.name: step for step in steps}
  whole = sum(costs.seconds.values()) + sum(step.seconds for step in steps)
  cells = []
  for name in dict.fromkeys([*costs.seconds, *asked]):
    measured = costs.seconds.get(name, 0.0)
    step = asked.get(name)
    spent = measured + (step.seconds if step else 0.0)
    row = {'': name, 'share': _percent(spent / whole) if whole else ''}
    if name in costs.seconds:
      row |= {
        'seconds of scores': format_number(round(measured, 3)),
        'a clip, ms': format_number(round(1e3 * measured / max(costs.clips, 1), 3)),
      }
    if step:
      dropped = step.before - step.kept
      row |= {
        'seconds of the filter': format_number(round(step.seconds, 3)),
        'dropped': f'{dropped:,}',
        'a clip dropped, ms': format_number(round(1e3 * spent / dropped, 3)) if dropped else '',
      }
    cells.append(row)
  if not cells:
    return ''
  notes = [
    'Scores are made of every clip, in seconds of a processor; filters read them, in seconds.'
  ]
  if costs.packets:
    notes.append(
      f'{costs.decoded:,} frames were decoded, of {costs.packets:,} that the videos have: '
      f'{costs.decoded / costs.packets:.2f} times each.'
    )
  if costs.gated:
    notes.append(f'{costs.gated:,} videos were dropped by a probe and not decoded.')
  if costs.clips and costs.seconds:
    notes.append(f'{summary(costs)}.')
  told = ''.join(f'<p class="note">{note}</p>' for note in notes)
  return section('Time', table(cells, 'Running time'), told)


def _broken(scores: _Scores, reasons: np.ndarray, measured: np.ndarray) -> str:
  found = np.flatnonzero(~measured)
  if not len(found):
    return ''
  rows = [
    {'video': printable(scores['video'][each]), 'reason': printable(reasons[each])}
    for each in found[:_BROKEN]
  ]
  more = f'<p class="note">and {len(found) - _BROKEN:,} more</p>' * (len(found) > _BROKEN)
  title = 'Videos that could not be measured'
  return section(title, table(rows, title), more)


def _settings(settings: CurationSettings) -> str:
  plain = flatten(dataclasses.asdict(settings))
  rows = [{'': name, 'value': printable(value)} for name, value in plain.items()]
  return f'<details><summary>Settings</summary>{table(rows, "Settings")}</details>'
