"""What votes say, as tables like those of the paper and as a page (Movie Gen §3.5, Table 6)."""

import dataclasses
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
from mgjax.lab.report.page import Rows, render
from mgjax.lab.report.tables import aligned, cells_of, csv_text
from mgjax.lab.statistics.values import plain

MARKS = {SIGNIFICANT: ' **', MODERATE: ' *'}
CHANCE = 0.8  # power of a study with the recommended number of prompts
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
  """Analyses a study's votes and writes analysis.csv, .html and .json to `out`, by default `study`.

  `layout` is that of `lay_out`. For the other options and the errors see `analyse_study`. Returns
  the first table as text, with the flags of raters, and the paths.
  """
  analysis = analyse_study(study, ours=ours, repeats=repeats, leave_out=leave_out)
  sections = _sections(analysis, layout)
  fields = {field.name: getattr(analysis, field.name) for field in dataclasses.fields(analysis)}
  fields['comparisons'] = _records(analysis)
  text = json.dumps(plain(fields), indent=2) + '\n'
  sheet = csv_text(_CSV, fields['comparisons'])
  contents = {'csv': sheet, 'html': _page(analysis, sections), 'json': text}
  paths = [pathlib.Path(out or study) / f'analysis.{kind}' for kind in contents]
  for path, text in zip(paths, contents.values(), strict=True):
    write_bytes(path, text.encode())
  (title, note, rows), *_ = sections
  lines = [title, *aligned(cells_of(rows)), note]
  for name, ranking in analysis.rankings.items():
    order = ', '.join(f'{rating.model} {rating.strength:,.0f}' for rating in ranking)
    lines.append(f'{printable(name)}, by Bradley-Terry: {printable(order)}')
  lines += [
    f'rater {printable(rater.name)}: {", ".join(rater.flags)}; --leave_out={printable(rater.name)} '
    'leaves the answers out'
    for rater in analysis.raters
    if rater.flags and rater.name not in analysis.left_out
  ]
  return '\n'.join(lines), paths


def lay_out(comparisons: Sequence[Comparison], layout: str) -> Rows:
  """Returns the rows of a table of comparisons of one model with others.

  The layout 'questions' has a row a question, as in Table 6. The layout 'baselines' has a row a
  model that it was compared with, as in Table 30; 'win_rate' has win rates, as in Table 18.
  """
  rows: dict[str, dict[str, str]] = {}
  for comparison in comparisons:
    question = printable(comparison.tally.question)
    theirs = printable(comparison.tally.theirs)
    cell = f'{comparison.rate}{MARKS.get(comparison.verdict, "")}'
    if layout == 'win_rate':
      cell = f'{comparison.rate.win_rate:.1f} ± {comparison.rate.half_width / 2:.1f}'
    first, second = (question, theirs) if layout == 'questions' else (theirs, question)
    rows.setdefault(first, {'': first})[second] = cell
  if layout == 'questions':
    for comparison in comparisons:
      if comparison.sigma is not None:
        rows[printable(comparison.tally.question)]['sigma'] = f'±{comparison.sigma:.2f}'
  return list(rows.values())


def power(
  prompts: int | None = None,
  difference: float | None = None,
  *,
  study: str | os.PathLike[str] | None = None,
) -> str:
  """Returns a text on the width of intervals and on the prompts that a difference in points needs.

  Without `prompts` or `difference` it lists several values. The rates of wins and ties are those of
  each question of `study`, or `win_rates.USUAL` without one. Raises DataError if the study has no
  votes, ConfigError if a number is out of its range.
  """
  shares = {'majorities of 3 raters': USUAL}
  if study is not None:
    shares = {}
    for comparison in analyse_study(study).comparisons:
      counts = (comparison.rate.wins, comparison.rate.ties, comparison.rate.losses)
      name = (
        f'{comparison.tally.question}, {comparison.tally.ours} against {comparison.tally.theirs}'
      )
      shares[name] = tuple(count / comparison.rate.prompts for count in counts)
  counts = [prompts] if prompts else [] if difference else [100, 300, 381, 527, 1003]
  differences = [difference] if difference else [] if prompts else [2.0, 5.0, 10.0, 20.0]
  lines = []
  for name, (win, tie, lose) in shares.items():
    lines.append(f'{printable(name)}, win {win:.0%}, tie {tie:.0%}, lose {lose:.0%}:')
    lines += [f'  {n:,} prompts: ±{half_width(n, win, lose):.1f} points' for n in counts]
    lines += [
      f'  {d:g} points: {prompts_needed(d, tie, CHANCE):,} prompts to find them in {CHANCE:.0%} of '
      f'studies, {prompts_needed(d, tie, 0.5):,} in half of them'
      for d in differences
    ]
  return '\n'.join(lines)


def _sections(analysis: Analysis, layout: str) -> list[tuple[str, str, Rows]]:
  """Returns title, note and rows of every table."""
  ours = [
    comparison for comparison in analysis.comparisons if comparison.tally.ours == analysis.ours
  ]
  marked = any(comparison.verdict for comparison in ours) and layout != 'win_rate'
  about = f' {_MARKED}' * marked
  for name, sigma in analysis.sigmas.items():
    about += (
      f' Sigma of {printable(name)} is from {sigma.repeats} repeats: {sigma.value:.2f} '
      f'[{sigma.low:.2f}, {sigma.high:.2f}].'
    )
  what = 'win rate (50 is as good)' if layout == 'win_rate' else 'net win rate'
  title = f'{printable(analysis.ours)} against others, {what}'
  sections = [(title, _ABOUT + about, lay_out(ours, layout))]
  sections.append(('Counts', '', [_counted(comparison) for comparison in analysis.comparisons]))
  for name, ranking in analysis.rankings.items():
    rows = []
    for rating in ranking:
      points = f'{rating.strength:,.0f} [{rating.low:,.0f}, {rating.high:,.0f}]'
      cells = {'Bradley-Terry': points, 'comparisons': f'{rating.comparisons:,}'}
      rows.append({'': printable(rating.model)} | cells)
    sections.append((f'All models, {printable(name)}', _RANKED, rows))
  for theirs in dict.fromkeys(comparison.tally.theirs for comparison in ours):
    rows = _by_group([comparison for comparison in ours if comparison.tally.theirs == theirs])
    if rows:
      sections.append((f'By prompts, against {printable(theirs)}', _OF_GROUPS, rows))
  rows = []
  for rater in analysis.raters:
    name = printable(rater.name) + ' (left out)' * (rater.name in analysis.left_out)
    rows.append({'': name, **describe_rater(rater), 'look at': '; '.join(rater.flags)})
  note = f'{analysis.votes:,} answers count: no gold items, and of repeated ones the first.'
  return [*sections, ('Raters', note, rows)]


def _counted(comparison: Comparison) -> dict[str, str]:
  rate = comparison.rate
  counts = comparison.tally.counts.sum(1)
  size = abs(rate.value)
  needed = prompts_needed(size, rate.ties / rate.prompts, CHANCE) if 0 < size < 100 else None
  return {
    'question': printable(comparison.tally.question),
    'models': printable(f'{comparison.tally.ours} / {comparison.tally.theirs}'),
    'prompts': f'{rate.prompts:,}',
    'raters': '-'.join(dict.fromkeys(f'{n}' for n in (counts.min(), counts.max()))),
    'win': f'{rate.wins:,}',
    'tie': f'{rate.ties:,}',
    'lose': f'{rate.losses:,}',
    'cannot judge': f'{comparison.tally.cannot_judge:,}',
    'net': f'{rate.value:+.1f} [{rate.low:+.1f}, {rate.high:+.1f}]',
    'p': f'{rate.sign_probability:.2g}',
    'verdict': comparison.verdict
    + ' (interval has 0)' * bool(comparison.verdict and comparison.unsure),
    'alpha': _number(
      comparison.agreement.alpha, comparison.agreement.low, comparison.agreement.high
    ),
    'kappa': _number(comparison.agreement.kappa),
    f'prompts to find it in {CHANCE:.0%}': f'{needed:,}' if needed else '',
  }


def _number(value: float, *interval: float) -> str:
  if not math.isfinite(value):
    return ''
  ends = f' [{", ".join(f"{end:.2f}" for end in interval)}]' * all(map(math.isfinite, interval))
  return f'{value:.2f}{ends if interval else ""}'


def _by_group(comparisons: Sequence[Comparison]) -> Rows:
  rows: dict[tuple[str, str], dict[str, str]] = {}
  for comparison in comparisons:
    for group, rate in comparison.groups.items():
      kind, name = map(printable, group)
      row = rows.setdefault(group, {'': f'{kind}: {name}', 'prompts': f'{rate.prompts:,}'})
      row[printable(comparison.tally.question)] = str(rate)
  return list(rows.values())


def _records(analysis: Analysis) -> list[JSON]:
  """Returns a row a comparison and a row a group of its prompts, by _CSV."""
  rows = []
  for comparison in analysis.comparisons:
    common = {name: getattr(comparison.tally, name) for name in ('question', 'ours', 'theirs')}
    overall = {
      'alpha': comparison.agreement.alpha,
      'kappa': comparison.agreement.kappa,
      'sigma': comparison.sigma,
    }
    overall |= {'cannot_judge': comparison.tally.cannot_judge, 'verdict': comparison.verdict}
    for (group, name), rate in {('all', ''): comparison.rate, **comparison.groups}.items():
      row = common | {'group': group, 'name': name, 'net_win_rate': rate.value}
      row |= {name: getattr(rate, name) for name in _CSV if hasattr(rate, name)}
      rows.append(row | (overall if group == 'all' else {}))
  return rows


def _page(analysis: Analysis, sections: Sequence[tuple[str, str, Rows]]) -> str:
  ours = [
    comparison for comparison in analysis.comparisons if comparison.tally.ours == analysis.ours
  ]
  charts = []
  for theirs in dict.fromkeys(comparison.tally.theirs for comparison in ours):
    against = [comparison for comparison in ours if comparison.tally.theirs == theirs]
    rates = {comparison.tally.question: comparison.rate for comparison in against}
    grouped = {f'{kind}: {name}': rate for (kind, name), rate in against[0].groups.items()}
    for title, chosen in (
      (f'{analysis.ours} against {theirs}, net win rate', rates),
      (f'{analysis.ours} against {theirs}, {against[0].tally.question}', grouped),
    ):
      rows = {name: (rate.value, rate.low, rate.high) for name, rate in chosen.items()}
      charts.append(interval_chart(printable(title), {printable(n): r for n, r in rows.items()}))
  for name, ranking in analysis.rankings.items():
    rows = {
      printable(rating.model): (rating.strength, rating.low, rating.high) for rating in ranking
    }
    relative = {model: tuple(value - 1000 for value in row) for model, row in rows.items()}
    charts.append(interval_chart(f'{printable(name)}: points above the average', relative))
  drawn = [chart for chart in charts if chart]
  return render('votes.html', printable(analysis.name), drawn=drawn, sections=sections)
