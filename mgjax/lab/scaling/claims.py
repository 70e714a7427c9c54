"""The paper's claims in small, as its ablations (Movie Gen §3.6.2): verdicts, and their page.

A claim says that one arm is better than another by some score, or as good. Seeds that both have are
pairs. With d the difference in favour of the claim, its interval of 95% and a margin, the least
difference of practical size:

  better     holds: low > 0 and d >= margin         does not hold: high < margin and low <= 0
             is smaller than the margin: 0 < low and high < margin
  as good    holds: low > -margin                   does not hold: high < -margin

and not settled otherwise. Of two arms that are one, 'better' says that it holds in at most 2.5% of
comparisons, as the interval does.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.files import write_bytes
from mgjax.core.settings import unpack
from mgjax.lab.report.tables import markdown
from mgjax.lab.scaling.findings import find_law
from mgjax.lab.scaling.plots import draw_intervals
from mgjax.lab.scaling.records import choose_arm, read_records, read_rows
from mgjax.lab.scaling.seeds import Difference, compare_numbers, numbers_of, runs_of
from mgjax.lab.statistics.correlations import correlate_ranks
from mgjax.lab.statistics.intervals import CONFIDENCE, ENDS, Interval

HOLDS = 'holds'
FAILS = 'does not hold'
SMALLER = 'smaller than the margin'
OPEN = 'not settled'
NOT_HERE = 'cannot be tried here'
COMPARISONS, _OF_SEEDS = 200, 3  # of an arm with itself
_SEVERAL = {
  HOLDS: 'hold',
  FAILS: 'do not',
  SMALLER: 'found smaller than the margin',
  OPEN: 'are not settled',
  NOT_HERE: 'cannot be tried',
}
_COLOURS = {OPEN: 0, SMALLER: 0, FAILS: 1, HOLDS: 2}  # blue, orange, green
_ACROSS = 'difference in favour of the claim, in units of the margin'
_CAPTION = (
  '*{held} of {count} claims in the picture hold (green). Orange ones do not, blue ones are not '
  'settled. Dots are means, bars intervals of 95%. Dashed lines are one margin from 0.*'
)
_POWER = 0.8
_FEWEST = 2
_MOST = 1000
_HEADER = (
  'The claim',
  'The paper',
  'Seeds of needed',
  'Without',
  'With',
  'Difference [95%]',
  'Margin',
  'Verdict',
)
_INTRO = """# The paper's claims, each tried at small scale

{total} claims of Movie Gen (arXiv 2410.13720), each an experiment on moving digits or solids:
{verdicts}. *Without* and *with* are means of the arm that the paper leaves and of the one that it
takes. This command makes the page of [records](../records/) and trains nothing:
`python -m launch.scaling claims --config=configs/scaling/claims.py --records=docs/records \
--out=docs/results/claims.md`. `configs/scaling/claims.py` says how each record is made, and how to
add a claim of your own ([scaling laws](../how_to/fit_scaling_laws.md#claims)).

**The rule**, fixed before: a difference is that of seeds, in pairs where arms share them, with
Student's interval of 95%; a margin says what is of practical size. That one arm is *better* holds
where the interval is above 0 and the difference at least the margin; it is *smaller than the
margin* where all of the interval is between the two, and does not hold where some of it is below 0
and all below the margin. That it is *as good* holds where all of it is above minus the
margin, and does not hold where all of it is below. All else is not settled. Beside the seeds
stands how many of them find a difference of the margin in four of five experiments.

Seeds are trainings, but for rows with *noise*, {noise} of {tried} that were tried and {held} of
{holding} that hold: there they are seeds of the noise that one trained model is sampled from, or of
its inputs. Such a row is of that model, and says nothing of how another training would end.

One arm beside itself, three seeds and three others, differs by this rule in {error};
without a margin it is the interval's 5%.
"""


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim, and which records try it.

  Attributes:
    says: the claim, in small.
    where: section and table of the paper.
    report: its numbers, or what it says.
    records: the file of records, without its ending; '' where it cannot be tried here.
    second: the arm that is said to be better, or as good.
    first: the other one.
    score: by which they are compared; of the first arm `first_score`, if given.
    better: 1 where more is better, -1 where less is.
    equal: whether the claim is that the second is as good, or better; of a measure, as expected.
    margin: the least difference of practical size.
    measure: what is measured: the 'difference' of two arms; the 'rank_correlation' of `first_score`
      with the score over all runs; the 'size_exponent' of the best size by compute.
    expected: the number that the measure is compared with.
    noise: whether seeds are of the noise that one trained model is sampled from, not of trainings.
    note: what else is to be known; where it cannot be tried here, why.
  """

  says: str
  where: str
  report: str
  records: str = ''
  second: str = ''
  first: str = ''
  score: str = ''
  first_score: str = ''
  better: int = 1
  equal: bool = False
  margin: float = 0.0
  measure: str = 'difference'
  expected: float = 0.0
  noise: bool = False
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What records say of a claim; without a difference where there are no two seeds.

  `needed` says how many seeds would find a difference of the margin; None above a thousand.
  """

  word: str
  means: tuple[float, float] | None = None
  difference: Interval | None = None
  seeds: int = 0
  needed: int | None = None


def write_claims(
  config: Fields, records: str | os.PathLike[str], out: str | os.PathLike[str]
) -> list[pathlib.Path]:
  """Writes the page of all claims, Markdown with a picture a group beside it, from records alone.

  Args:
    config: `groups`, each a `title` and `claims`, the fields of a `Claim`; `same`, records and one
      of their arms to estimate how often the rule is wrong, and a margin of each score.
    records: the folder of the files that claims name.
    out: the page; pictures go into images/ beside it.

  Raises:
    ConfigError: records lack an arm or a score, or it is the configuration of something else.
    DataError: records cannot be read.
  """
  if 'groups' not in config:
    raise ConfigError('the configuration has no claims; expected configs/scaling/claims.py')
  folder, out = pathlib.Path(records), pathlib.Path(out)
  parts = []
  paths = []
  counts = dict.fromkeys(_SEVERAL, 0)
  noise = dict.fromkeys(_SEVERAL, 0)
  for group in config['groups']:
    title = group['title']
    table = [_HEADER]
    drawn = {}
    notes = []
    for fields in group['claims']:
      claim = unpack(Claim, fields, f'claims of {title}')
      verdict = judge(claim, folder)
      counts[verdict.word] += 1
      noise[verdict.word] += claim.noise
      table.append(_row(claim, verdict))
      if claim.note:
        notes.append(f'- **{claim.says}**: {claim.note}')
      if verdict.difference is not None and claim.margin:
        if claim.says in drawn:
          raise ConfigError(f'{title}: {claim.says!r} stands there twice; one picture has both')
        ends = verdict.difference.value, verdict.difference.low, verdict.difference.high
        drawn[claim.says] = *sorted_ends(claim, ends), _COLOURS[verdict.word]
    parts.append(f'## {title}\n\n{markdown(table)}\n')
    if drawn:
      picture = out.parent / 'images' / f'claims_{title.split()[0].lower()}'
      paths += draw_intervals(drawn, _ACROSS, picture)
      held = sum(colour == _COLOURS[HOLDS] for *_, colour in drawn.values())
      alt = f'{title}: difference of each claim in margins'
      caption = _CAPTION.format(held=held, count=len(drawn))
      parts[-1] += f'\n![{alt}](images/{picture.name}.png)\n\n{caption}\n'
    parts[-1] += '\n' + '\n'.join(notes) + '\n' * bool(notes)
  verdicts = ', '.join(f'{counts[word]} {verb}' for word, verb in _SEVERAL.items())
  total = sum(counts.values())
  intro = _INTRO.format(
    total=total,
    verdicts=verdicts,
    noise=sum(noise.values()),
    tried=total - counts[NOT_HERE],
    held=noise[HOLDS],
    holding=counts[HOLDS],
    error=_error_of(config, folder),
  )
  write_bytes(out, '\n'.join([intro, *parts]).encode())
  return [out, *paths]


def judge(claim: Claim, records: pathlib.Path) -> Verdict:
  """Judges a claim by the records in a folder.

  Raises ConfigError if they lack the arm or the score.
  """
  if not claim.records:
    return Verdict(NOT_HERE)
  check_one_of(f'measure = {claim.measure!r}', claim.measure, _MEASURES)
  path = records / f'{claim.records}.jsonl'
  if not path.exists():  # yet
    return Verdict(OPEN)
  difference = _MEASURES[claim.measure](claim, path)
  if difference.count < _FEWEST:
    return Verdict(OPEN, seeds=difference.count)
  interval, margin = difference.interval, claim.margin
  value, low, high = sorted_ends(claim, (interval.value, interval.low, interval.high))
  if claim.equal and claim.measure == 'difference':
    holds = low > -1
    fails = high < -1
  elif claim.equal:
    holds = low > -1 and high < 1
    fails = high < -1 or low > 1
  else:
    holds = low > 0 and value >= 1
    fails = high < 1
  smaller = fails and low > 0 and not claim.equal
  word = HOLDS if holds else SMALLER if smaller else FAILS if fails else OPEN
  needed = seeds_needed(difference.spread, margin) if claim.measure == 'difference' else None
  return Verdict(word, difference.means, interval, difference.count, needed)


def _difference(claim: Claim, path: pathlib.Path) -> Difference:
  rows = read_rows(path)
  arms = []
  for arm, score in ((claim.first, claim.first_score or claim.score), (claim.second, claim.score)):
    runs = {seed: numbers_of(row) for seed, row in runs_of(rows, arm).items()}
    if missing := [numbers for numbers in runs.values() if score not in numbers]:
      known = ', '.join(missing[0]) or 'no numbers at all'
      raise ConfigError(f'{claim.records}: arm {arm!r} has no {score!r}; expected one of {known}')
    arms.append({seed: numbers[score] for seed, numbers in runs.items()})
  first, second = arms
  if both := set(first) & set(second):  # the others have no pair
    first, second = ({seed: arm[seed] for seed in both} for arm in arms)
  if min(len(first), len(second)) < _FEWEST:
    return Difference((0, 0), Interval(0, 0, 0), 0, min(len(first), len(second)))
  return compare_numbers(first, second, CONFIDENCE)


def _rank_correlation(claim: Claim, path: pathlib.Path) -> Difference:
  """Correlates the ranks of `first_score` and `score` over all runs."""
  scores = [numbers_of(row) for row in read_rows(path) if not row.get('error')]
  pairs = [(run[claim.first_score], run[claim.score]) for run in scores if claim.score in run]
  correlation = correlate_ranks(*zip(*pairs, strict=True))
  interval = Interval(correlation.value, correlation.low, correlation.high)
  return Difference((math.nan, correlation.value), interval, 0, correlation.count)


def _size_exponent(claim: Claim, path: pathlib.Path) -> Difference:
  """Of the best size by compute."""
  law = find_law(choose_arm(read_records(path), claim.second, 'arm'))
  interval = law.interval(lambda law: law.exponent)
  return Difference((claim.expected, interval.value), interval, 0, len(law.records.runs.loss))


_MEASURES = {
  'difference': _difference,
  'rank_correlation': _rank_correlation,
  'size_exponent': _size_exponent,
}


def sorted_ends(claim: Claim, ends: tuple[float, float, float]) -> tuple[float, float, float]:
  """Returns value, low and high in favour of a claim, in margins."""
  value, *bounds = (claim.better * (x - claim.expected) / (claim.margin or 1) for x in ends)
  return value, min(bounds), max(bounds)


def _row(claim: Claim, verdict: Verdict) -> tuple[str, ...]:
  numbers = ['', '', '', '']
  if verdict.difference is not None:
    means = ['' if math.isnan(mean) else f'{mean:.3g}' for mean in verdict.means or ()]
    difference = verdict.difference
    numbers = [
      *means,
      f'{difference.value:+.3g} [{difference.low:+.3g}, {difference.high:+.3g}]',
      f'{claim.margin:g}',
    ]
  seeds = f'{verdict.seeds}' if claim.records else ''
  if verdict.difference is not None and claim.measure == 'difference':
    seeds += f' of {verdict.needed or f"> {_MOST:,}"}' + ', noise' * claim.noise
  return (claim.says, f'{claim.where}: {claim.report}', seeds, *numbers, f'**{verdict.word}**')


def seeds_needed(spread: float, margin: float) -> int | None:
  """Returns how many pairs of seeds find a difference of `margin` in 0.8 of experiments.

  `spread` is the standard deviation of the differences of pairs; the power of Student's test at 5%
  is of the noncentral t distribution. None above a thousand.
  """
  for count in range(2, _MOST + 1):
    limit = stats.t.ppf(ENDS[1], count - 1)
    shift = margin / max(spread, 1e-12) * math.sqrt(count)
    if not stats.nct.sf(limit, count - 1, shift) < _POWER:  # not a number where it is certain
      return count
  return None


def error_rate(scores: Sequence[float] | np.ndarray, margin: float) -> float:
  """Returns the share of comparisons in which an arm differs from itself, in either direction.

  Each compares three of the arm's runs with three others, drawn at random.
  """
  if len(scores) < 2 * _OF_SEEDS:
    raise ConfigError(f'{len(scores)} runs; two times {_OF_SEEDS} are wanted, and no run twice')
  generator = np.random.default_rng(0)
  wrong = 0
  for _ in range(COMPARISONS):
    drawn = generator.permutation(np.asarray(scores, float))[: 2 * _OF_SEEDS]
    first, second = (dict(enumerate(half.tolist())) for half in drawn.reshape(2, _OF_SEEDS))
    interval = compare_numbers(first, second, CONFIDENCE).interval
    wrong += (interval.low > 0 or interval.high < 0) and abs(interval.value) >= margin
  return wrong / COMPARISONS


def _error_of(config: Mapping[str, Any], folder: pathlib.Path) -> str:
  """Describes how often the rule finds a difference between an arm and itself."""
  same = config['same']
  rows = runs_of(read_rows(folder / f'{same["records"]}.jsonl'), same['arm'])
  rates = []
  for score, margin in same['margins'].items():
    scores = [numbers_of(row)[score] for row in rows.values()]
    rates.append(f'{error_rate(scores, margin):.1%} by `{score}` (margin {margin:g})')
  return f'{COMPARISONS} comparisons of {len(rows)} runs: {" and ".join(rates)}'
