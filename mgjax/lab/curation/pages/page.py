"""The page of a curation: what each filter kept and dropped, and why (Movie Gen §3.2.1, Table 44).

One HTML file that needs nothing else: the funnel beside that of Table 44, every score with its
thresholds, examples of what was kept and dropped, reasons by number, and what each filter cost.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from mgjax.core.configuration.keys import flatten
from mgjax.core.errors import printable
from mgjax.core.files import write_bytes
from mgjax.lab.curation.costs import costs_of, summary
from mgjax.lab.curation.filters.registry import FILTERS
from mgjax.lab.curation.filters.table import as_columns
from mgjax.lab.curation.filters.thresholds import with_lengths
from mgjax.lab.curation.pages.page_examples import Masks, Pictures, examples
from mgjax.lab.curation.select import Selection, Step
from mgjax.lab.curation.settings import CurationSettings
from mgjax.lab.report.charts import format_number, histogram
from mgjax.lab.report.page import Rows, render

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
  histograms, answers = _scores(scores, reached, measured, alive, settings)
  times, time_notes = _times(rows, steps)
  broken = np.flatnonzero(~measured)
  text = render(
    'curation.html',
    'Curation',
    clips=_summary(scores, measured, alive),
    filters_off=[
      (step.name, printable(step.off).removeprefix(step.name)) for step in steps if step.off
    ],
    funnel=_funnel(scores, steps, reached, measured),
    reasons=_reason_rows(steps),
    examples=examples(scores, selection.reasons, reached, alive, pictures),
    histograms=histograms,
    answers=answers,
    times=times,
    time_notes=time_notes,
    broken=[
      {
        'video': printable(scores['video'][index]),
        'reason': printable(selection.reasons[index]),
      }
      for index in broken[:_BROKEN]
    ],
    more_broken=max(len(broken) - _BROKEN, 0),
    settings=_settings(settings),
  )
  path = pathlib.Path(path)
  write_bytes(path, text.encode())
  return path


def _hours(scores: _Scores, chosen: np.ndarray) -> float:
  return float(np.nansum(scores['clip_seconds'][chosen])) / 3600 if 'clip_seconds' in scores else 0


def _summary(scores: _Scores, measured: np.ndarray, alive: np.ndarray) -> Rows:
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
  return rows


def _funnel(scores: _Scores, steps: Sequence[Step], reached: Masks, measured: np.ndarray) -> Rows:
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
  return rows


def _percent(share: float) -> str:
  return f'{format_number(round(100 * share, 2))}%'


def _reason_rows(steps: Sequence[Step]) -> Rows:
  rows = []
  for step in steps:
    counts = collections.Counter()
    for reason, count in step.reasons.items():
      like = 'copy of …' if reason.startswith('copy of ') else _NUMBER.sub('…', reason, count=1)
      counts[like] += count
    common = counts.most_common(_REASONS)
    other_count = counts.total() - sum(number for _, number in common)
    common += [(f'{len(counts) - len(common)} other reasons', other_count)] if other_count else []
    rows += [
      {'reason': f'{step.name}: {printable(reason)}', 'clips': f'{number:,}'}
      for reason, number in common
    ]
  return rows


def _scores(
  scores: _Scores,
  reached: Masks,
  measured: np.ndarray,
  alive: np.ndarray,
  settings: CurationSettings,
) -> tuple[list[Markup], list[tuple[str, Rows]]]:
  """Returns histograms of numeric scores, and columns and rows of scores that are text."""
  drawn = []
  answers = []
  limited = set()
  for name, (incoming, remaining) in reached.items():
    limits = FILTERS[name].limits(settings.keep) if name in FILTERS else ()
    for limit in limits:
      lines = {
        format_number(value): value for value in (limit.low, limit.high) if value is not None
      }
      limited.add(limit.column)
      if limit.column in scores:
        values = scores[limit.column]
        groups = {
          f'kept by {name}': values[remaining],
          'dropped by it': values[incoming & ~remaining],
        }
        drawn.append(histogram(f'{name}: {limit.column}', groups, lines))
  for column, values in scores.items():
    if column in limited or column in ABOUT or values.ndim > 1:
      continue
    if values.dtype.kind == 'f':
      groups = {'kept in the end': values[alive], 'dropped': values[measured & ~alive]}
      drawn.append(histogram(column, groups))
    elif all(value is None or isinstance(value, str) for value in values):
      answers.append((column, _answer_rows(values, measured, alive)))
  return [chart for chart in drawn if chart], answers


def _answer_rows(values: np.ndarray, incoming: np.ndarray, remaining: np.ndarray) -> Rows:
  counts = collections.Counter(values[index] for index in np.flatnonzero(incoming))
  kept_counts = collections.Counter(values[index] for index in np.flatnonzero(remaining))
  return [
    {
      'answer': printable(answer) if answer else '(none)',
      'clips': f'{number:,}',
      'of them kept': f'{kept_counts[answer]:,}',
    }
    for answer, number in counts.most_common(_ANSWERS)
  ]


def _times(rows: Any, steps: Sequence[Step]) -> tuple[Rows, list[str]]:
  """Returns rows with the cost of each filter, and notes about them."""
  costs = costs_of(rows)
  steps_by_name = {step.name: step for step in steps}
  total = sum(costs.seconds.values()) + sum(step.seconds for step in steps)
  cells = []
  for name in dict.fromkeys([*costs.seconds, *steps_by_name]):
    measured = costs.seconds.get(name, 0.0)
    step = steps_by_name.get(name)
    spent = measured + (step.seconds if step else 0.0)
    row = {'': name, 'share': _percent(spent / total) if total else ''}
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
  return cells, notes


def _settings(settings: CurationSettings) -> Rows:
  plain = flatten(dataclasses.asdict(settings))
  return [{'': name, 'value': printable(value)} for name, value in plain.items()]
