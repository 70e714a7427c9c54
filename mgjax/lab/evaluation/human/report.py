"""What votes say, as tables like those of the report and as a page (Movie Gen §3.5, Table 6)."""

import dataclasses
import html
import json
import math
import os
import pathlib
from collections.abc import Sequence

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import printable
from mgjax.core.files import write_bytes
from mgjax.lab.evaluation.human.agreement import describe_rater
from mgjax.lab.evaluation.human.analysis import Analysis, Comparison, analyse_study
from mgjax.lab.evaluation.human.win_rates import (
  MODERATE,
  SIGNIFICANT,
  USUAL,
  half_width,
  prompts_needed,
)
from mgjax.lab.report.charts import interval_chart
from mgjax.lab.report.page import page, table
from mgjax.lab.report.tables import aligned, cells_of, csv_text
from mgjax.lab.statistics.values import plain

Rows = list[JSON]
MARKS = {SIGNIFICANT: ' **', MODERATE: ' *'}
CHANCE = 0.8  # how likely a difference shall be found where a number of prompts is recommended
_CSV = (
  'question',
  'ours',
  'theirs',
  'group',
  'name',
  'prompts',
  'wins',
  'ties',
  'losses',
  'net_win_rate',
  'low',
  'high',
  'win_rate',
  'sign_probability',
  'cannot_judge',
  'sigma',
  'verdict',
  'alpha',
  'kappa',
)
_ABOUT = (
  'Net win rate: % of prompts won less % lost, by the majority of the raters of each, from -100 to '
  '100. Intervals of 95% are from prompts drawn again with replacement; p is of an exact sign test.'
)
_MARKED = (
  '** is beyond 2 sigma, significant; * beyond 1 sigma, moderate; else on par. Sigma says how '
  'raters vary, the interval how prompts do as well.'
)
_RANKED = '400 points more win ten times as often as they lose; all models average 1,000.'
_OF_GROUPS = 'Of so many groups one in twenty is beyond its interval by chance alone.'


def analyse(
  study: str | os.PathLike[str],
  out: str | os.PathLike[str] | None = None,
  *,
  ours: str = '',
  layout: str = 'questions',
  repeats: Sequence[str | os.PathLike[str]] = (),
  leave_out: Sequence[str] = (),
) -> tuple[str, list[pathlib.Path]]:
  """Analyses a study's votes and writes analysis.csv, .html and .json to `out`, by default there.

  `layout` is that of `lay_out`; `analyse_study` has the other options and raises what this raises.
  Returns the first table as text, with what raters are flagged for, and the paths.
  """
  found = analyse_study(study, ours=ours, repeats=repeats, leave_out=leave_out)
  sections = _sections(found, layout)
  fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
  fields['comparisons'] = _records(found)
  text = json.dumps(plain(fields), indent=2) + '\n'
  sheet = csv_text(_CSV, fields['comparisons'])
  made = {'csv': sheet, 'html': _page(found, sections), 'json': text}
  paths = [pathlib.Path(out or study) / f'analysis.{kind}' for kind in made]
  for path, text in zip(paths, made.values(), strict=True):
    write_bytes(path, text.encode())
  (title, note, rows), *_ = sections
  lines = [title, *aligned(cells_of(rows)), note]
  for name, ranking in found.rankings.items():
    order = ', '.join(f'{each.model} {each.strength:,.0f}' for each in ranking)
    lines.append(f'{printable(name)}, by Bradley-Terry: {printable(order)}')
  lines += [
    f'rater {printable(each.name)}: {", ".join(each.flags)}; --leave_out={printable(each.name)} '
    'leaves the answers out'
    for each in found.raters
    if each.flags and each.name not in found.left_out
  ]
  return '\n'.join(lines), paths


def lay_out(comparisons: Sequence[Comparison], layout: str) -> Rows:
  """Returns the rows of a table of comparisons of one model with others.

  The layout is 'questions', a row a question, as in Tables 6, 7 and 16; 'baselines', a row a model
  that it was compared with, as in Table 30; or 'win_rate', the same of win rates, as in Table 18.
  """
  rows: dict[str, dict[str, str]] = {}
  for each in comparisons:
    question, theirs = printable(each.tally.question), printable(each.tally.theirs)
    cell = f'{each.rate}{MARKS.get(each.verdict, "")}'
    if layout == 'win_rate':
      cell = f'{each.rate.win_rate:.1f} ± {each.rate.half_width / 2:.1f}'
    first, second = (question, theirs) if layout == 'questions' else (theirs, question)
    rows.setdefault(first, {'': first})[second] = cell
  if layout == 'questions':
    for each in comparisons:
      if each.sigma is not None:
        rows[printable(each.tally.question)]['sigma'] = f'±{each.sigma:.2f}'
  return list(rows.values())


def power(
  prompts: int | None = None,
  difference: float | None = None,
  *,
  study: str | os.PathLike[str] | None = None,
) -> str:
  """Says how wide intervals would be and how many prompts a difference in points needs.

  Without `prompts` or `difference` it says so of several. A study's votes say how often there is a
  tie, each question for itself; without one `statistics.USUAL` does. Raises DataError if the study
  has no votes, ConfigError if a number is out of its range.
  """
  shares = {'majorities of 3 raters': USUAL}
  if study is not None:
    shares = {}
    for each in analyse_study(study).comparisons:
      counts = (each.rate.wins, each.rate.ties, each.rate.losses)
      name = f'{each.tally.question}, {each.tally.ours} against {each.tally.theirs}'
      shares[name] = tuple(count / each.rate.prompts for count in counts)
  counts = [prompts] if prompts else [] if difference else [100, 300, 381, 527, 1003]
  wanted = [difference] if difference else [] if prompts else [2.0, 5.0, 10.0, 20.0]
  lines = []
  for name, (win, tie, lose) in shares.items():
    lines.append(f'{printable(name)}, win {win:.0%}, tie {tie:.0%}, lose {lose:.0%}:')
    lines += [f'  {n:,} prompts: ±{half_width(n, win, lose):.1f} points' for n in counts]
    lines += [
      f'  {d:g} points: {prompts_needed(d, tie, CHANCE):,} prompts to find them in {CHANCE:.0%} of '
      f'studies, {prompts_needed(d, tie, 0.5):,} in half of them'
      for d in wanted
    ]
  return '\n'.join(lines)


def _sections(found: Analysis, layout: str) -> list[tuple[str, str, Rows]]:
  """Title, note and rows of every table."""
  ours = [each for each in found.comparisons if each.tally.ours == found.ours]
  marked = any(each.verdict for each in ours) and layout != 'win_rate'
  about = f' {_MARKED}' * marked
  for name, sigma in found.sigmas.items():
    about += (
      f' Sigma of {printable(name)} is from {sigma.repeats} repeats: {sigma.value:.2f} '
      f'[{sigma.low:.2f}, {sigma.high:.2f}].'
    )
  what = 'win rate (50 is as good)' if layout == 'win_rate' else 'net win rate'
  title = f'{printable(found.ours)} against others, {what}'
  sections = [(title, _ABOUT + about, lay_out(ours, layout))]
  sections.append(('Counts', '', [_counted(each) for each in found.comparisons]))
  for name, ranking in found.rankings.items():
    rows = []
    for each in ranking:
      points = f'{each.strength:,.0f} [{each.low:,.0f}, {each.high:,.0f}]'
      told = {'Bradley-Terry': points, 'comparisons': f'{each.comparisons:,}'}
      rows.append({'': printable(each.model)} | told)
    sections.append((f'All models, {printable(name)}', _RANKED, rows))
  for theirs in dict.fromkeys(each.tally.theirs for each in ours):
    rows = _by_group([each for each in ours if each.tally.theirs == theirs])
    if rows:
      sections.append((f'By prompts, against {printable(theirs)}', _OF_GROUPS, rows))
  rows = []
  for each in found.raters:
    name = printable(each.name) + ' (left out)' * (each.name in found.left_out)
    rows.append({'': name, **describe_rater(each), 'look at': '; '.join(each.flags)})
  note = f'{found.votes:,} answers count: no gold items, and of repeated ones the first.'
  return [*sections, ('Raters', note, rows)]


def _counted(each: Comparison) -> dict[str, str]:
  rate = each.rate
  counts = each.tally.counts.sum(1)
  size = abs(rate.value)
  needed = prompts_needed(size, rate.ties / rate.prompts, CHANCE) if 0 < size < 100 else None
  return {
    'question': printable(each.tally.question),
    'models': printable(f'{each.tally.ours} / {each.tally.theirs}'),
    'prompts': f'{rate.prompts:,}',
    'raters': '-'.join(dict.fromkeys(f'{n}' for n in (counts.min(), counts.max()))),
    'win': f'{rate.wins:,}',
    'tie': f'{rate.ties:,}',
    'lose': f'{rate.losses:,}',
    'cannot judge': f'{each.tally.cannot_judge:,}',
    'net': f'{rate.value:+.1f} [{rate.low:+.1f}, {rate.high:+.1f}]',
    'p': f'{rate.sign_probability:.2g}',
    'verdict': each.verdict + ' (interval has 0)' * bool(each.verdict and each.unsure),
    'alpha': _number(each.agreement.alpha, each.agreement.low, each.agreement.high),
    'kappa': _number(each.agreement.kappa),
    f'prompts to find it in {CHANCE:.0%}': f'{needed:,}' if needed else '',
  }


def _number(value: float, *interval: float) -> str:
  if not math.isfinite(value):
    return ''
  ends = f' [{", ".join(f"{end:.2f}" for end in interval)}]' * all(map(math.isfinite, interval))
  return f'{value:.2f}{ends if interval else ""}'


def _by_group(comparisons: Sequence[Comparison]) -> Rows:
  rows: dict[tuple[str, str], dict[str, str]] = {}
  for each in comparisons:
    for group, rate in each.groups.items():
      kind, name = map(printable, group)
      row = rows.setdefault(group, {'': f'{kind}: {name}', 'prompts': f'{rate.prompts:,}'})
      row[printable(each.tally.question)] = str(rate)
  return list(rows.values())


def _records(found: Analysis) -> Rows:
  """A row a comparison and a row a group of its prompts, by _CSV."""
  rows = []
  for each in found.comparisons:
    common = {name: getattr(each.tally, name) for name in ('question', 'ours', 'theirs')}
    alone = {'alpha': each.agreement.alpha, 'kappa': each.agreement.kappa, 'sigma': each.sigma}
    alone |= {'cannot_judge': each.tally.cannot_judge, 'verdict': each.verdict}
    for (group, name), rate in {('all', ''): each.rate, **each.groups}.items():
      row = common | {'group': group, 'name': name, 'net_win_rate': rate.value}
      row |= {name: getattr(rate, name) for name in _CSV if hasattr(rate, name)}
      rows.append(row | (alone if group == 'all' else {}))
  return rows


def _page(found: Analysis, sections: Sequence[tuple[str, str, Rows]]) -> str:
  ours = [each for each in found.comparisons if each.tally.ours == found.ours]
  charts = []
  for theirs in dict.fromkeys(each.tally.theirs for each in ours):
    against = [each for each in ours if each.tally.theirs == theirs]
    rates = {each.tally.question: each.rate for each in against}
    grouped = {f'{kind}: {name}': rate for (kind, name), rate in against[0].groups.items()}
    for title, chosen in (
      (f'{found.ours} against {theirs}, net win rate', rates),
      (f'{found.ours} against {theirs}, {against[0].tally.question}', grouped),
    ):
      rows = {name: (rate.value, rate.low, rate.high) for name, rate in chosen.items()}
      charts.append(interval_chart(printable(title), {printable(n): r for n, r in rows.items()}))
  for name, ranking in found.rankings.items():
    rows = {printable(each.model): (each.strength, each.low, each.high) for each in ranking}
    less = {model: tuple(value - 1000 for value in row) for model, row in rows.items()}
    charts.append(interval_chart(f'{printable(name)}: points above the average', less))
  body = ''.join(f'<div>{chart}</div>' for chart in charts if chart)
  tables = ''.join(
    table(rows, title) + (f'<p class="note">{html.escape(note)}</p>' if note else '')
    for title, note, rows in sections
  )
  return page(printable(found.name), f'<div class="charts">{body}</div>{tables}')
