"""Statistics of votes on two models: majorities, net win rates, intervals, power (Movie Gen §3.5).

Answers to one prompt are not independent, so all statistics count and resample prompts.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from scipy import stats

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import DataError
from mgjax.core.settings import Fraction, Positive, Range, arguments
from mgjax.core.typing import Bool, Int
from mgjax.lab.evaluation.human.votes import TIE, Vote
from mgjax.lab.statistics.intervals import ENDS, Interval

SIGNIFICANT = 'significant'
MODERATE = 'moderate'
ON_PAR = 'on par'
# Shares of prompts whose majority of three raters is a win, a tie and a loss, to plan studies with.
# They follow from raters who see the truth (0.45, 0.15, 0.4) with probability 0.6 and else guess
# (0.3, 0.4, 0.3). For 100, 300, 527 and 1,003 prompts intervals are ±16.8, 9.7, 7.3 and 5.3 points.
USUAL = 0.385776, 0.266896, 0.347328


@dataclasses.dataclass(frozen=True)
class Tally:
  """The answers to one question about two models, prompt by prompt; wins are of the model `ours`.

  `prompts` are the indices of those that were judged, ascending; `counts` say of each how many
  raters said ours, tie and theirs; `cannot_judge` counts the answers "cannot judge".
  """

  question: str
  ours: str
  theirs: str
  prompts: Int[np.ndarray, 'p']
  counts: Int[np.ndarray, 'p 3']
  cannot_judge: int

  @property
  def verdicts(self) -> Int[np.ndarray, 'p']:
    """The majority vote of each prompt, see `majority`."""
    return majority(self.counts)


def first_answers(votes: Iterable[Vote]) -> Iterator[Vote]:
  """Yields the votes that count: no gold items, and each rater's first answer to a question."""
  seen = set()
  for vote in votes:
    if not vote.gold and (key := same_question(vote)) not in seen:
      seen.add(key)
      yield vote


def same_question(vote: Vote) -> tuple[Any, ...]:
  """Returns the key of a rater's answers to one question about one pair."""
  return vote.rater, vote.question, vote.prompt, frozenset((vote.left, vote.right))


def tally(votes: Iterable[Vote], order: Sequence[str] = ()) -> list[Tally]:
  """Counts votes by question and pair of models, in the order in which they first appear.

  Gold items and a rater's repeated answers do not count. The earlier of two models in `order` is
  `Tally.ours`; models outside of it follow by name. Raises DataError if a vote compares a model
  with itself.
  """
  answers_by_pair: dict[tuple[str, str, str], dict[int, list[int]]] = {}
  for vote in first_answers(votes):
    if vote.left == vote.right:
      raise DataError(f'vote {vote.id!r} compares {vote.left!r} with itself; leave it out')
    places = {
      name: (order.index(name) if name in order else len(order), name)
      for name in (vote.left, vote.right)
    }
    ours, theirs = sorted(places, key=lambda name: places[name])
    answers = answers_by_pair.setdefault((vote.question, ours, theirs), {})
    column = {ours: 0, TIE: 1, theirs: 2, None: 3}[vote.winner]
    answers.setdefault(vote.prompt, [0, 0, 0, 0])[column] += 1
  tallies = []
  for (question, ours, theirs), answers in answers_by_pair.items():
    table = np.array([answers[prompt] for prompt in sorted(answers)])
    judged = table[:, :3].any(1)
    prompts = np.array(sorted(answers))[judged]
    tallies.append(
      Tally(question, ours, theirs, prompts, table[judged, :3], int(table[:, 3].sum()))
    )
  return tallies


def majority(counts: Int[np.ndarray, 'p 3']) -> Int[np.ndarray, 'p']:
  """Returns the most frequent answer: 1 for a win, -1 for a loss, 0 for a tie.

  If two answers are equally frequent it is a tie. `counts` are of raters that said win, tie, lose.
  """
  is_unique = (counts == counts.max(1, keepdims=True)).sum(1) == 1
  return np.where(is_unique, 1 - counts.argmax(1), 0)


@dataclasses.dataclass(frozen=True)
class NetWinRate:
  """The share of prompts won minus the share lost, in points from -100 to 100.

  `wins`, `ties` and `losses` are counts of prompts, `low` and `high` the ends of the interval in
  points. `sign_probability` is the p-value of the exact two-sided sign test.
  """

  wins: int
  ties: int
  losses: int
  low: float
  high: float
  sign_probability: float

  @property
  def prompts(self) -> int:
    """The number of prompts."""
    return self.wins + self.ties + self.losses

  @property
  def value(self) -> float:
    """100 (wins - losses) / prompts."""
    return 100 * (self.wins - self.losses) / self.prompts

  @property
  def half_width(self) -> float:
    """Half the width of the interval, as the numbers after ± in Table 30."""
    return (self.high - self.low) / 2

  @property
  def win_rate(self) -> float:
    """The win rate in percent with ties as half a win, as in Table 18: 50 is on par."""
    return 50 + self.value / 2

  def __str__(self) -> str:
    """Formats it as +12.3 ± 4.5."""
    return f'{self.value:+.1f} ± {self.half_width:.1f}'


def net_win_rate(
  verdicts: Int[np.ndarray, 'p'] | Sequence[int], resamples: int = 10_000, seed: int = 0
) -> NetWinRate:
  """Returns the net win rate with its interval by a bootstrap over prompts.

  Verdicts, one a prompt, are 1, 0 or -1, so the counts of n prompts drawn with replacement follow a
  multinomial distribution. The result has the distribution of `intervals.compare` of zeros with the
  verdicts, and takes a thousandth of its time. The quantiles are those of Hesterberg (2015, The
  American Statistician 69, 371), Phi(±sqrt(n / (n - 1)) t) with t that of Student's distribution
  with n - 1 degrees of freedom. They correct percentile intervals, which are too narrow for few
  prompts.

  If all verdicts are the same, resamples have no spread and the interval is exact. A share that is
  1 in n prompts is at least ((1 - c) / 2)^(1/n) (Clopper and Pearson 1934). The rest may all be of
  the other side. Raises DataError if there are no verdicts.
  """
  verdicts = np.asarray(verdicts)
  n = len(verdicts)
  if not n:
    raise DataError('there is no prompt that a rater judged; expected one or more')
  counts = [int((verdicts == value).sum()) for value in (1, 0, -1)]
  tail = ENDS[0]
  if max(counts) == n:
    middle = 100.0 * float(verdicts[0])
    reach = 100 * (1 - tail ** (1 / n)) * (1 + abs(verdicts[0]))
    low = max(middle - reach, -100.0)
    high = min(middle + reach, 100.0)
  else:
    drawn = np.random.default_rng(seed).multinomial(n, np.array(counts) / n, resamples)
    outside = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1))
    low, high = np.quantile(100 / n * (drawn[:, 0] - drawn[:, 2]), [outside, 1 - outside])
  decided = counts[0] + counts[2]  # ties say nothing about which one is better
  sign = float(stats.binomtest(counts[0], decided).pvalue) if decided else 1.0
  return NetWinRate(*counts, float(low), float(high), sign)


def groups(
  prompts: Sequence[Fields], indices: Int[np.ndarray, 'p']
) -> Iterator[tuple[str, str, Bool[np.ndarray, 'p']]]:
  """Yields (kind, name, mask of prompts) of every concept and motion level, ordered by name.

  `prompts` are those of a study, each with 'concepts', a list, and 'motion'; `indices` select the
  prompts to group. A prompt with several concepts is in the group of each. Raises DataError if an
  index is beyond the prompts.
  """
  if len(indices) and max(indices) >= len(prompts):
    raise DataError(
      f'there are votes about prompt {max(indices)}, and the study has {len(prompts)} prompts, '
      'counted from 0; put back the study.json that they were made with'
    )
  labels = [
    {('concept', concept) for concept in prompts[index].get('concepts') or ()}
    | {('motion', motion) for motion in [prompts[index].get('motion')] if motion}
    for index in indices
  ]
  for label in sorted(set().union(*labels)):
    yield *label, np.array([label in labels_of_prompt for labels_of_prompt in labels])


@dataclasses.dataclass(frozen=True)
class Sigma(Interval):
  """Standard deviation of the net win rate over repeats of one comparison, in points.

  `repeats` is one plus the number of repeats beyond the first of each comparison.
  """

  repeats: int


def sigma(net_win_rates: Sequence[Sequence[float]]) -> Sigma:
  """Estimates sigma from net win rates in points, a row a comparison (Movie Gen §3.5).

  A comparison is made several times, by other raters; the variances of rows are pooled. The paper
  made one four times, of 381 prompts. Of so few the estimate itself is rough. With d repeats beyond
  the first, d s^2 / sigma^2 is chi-squared of d degrees, for normal distributions. The interval of
  four comparisons is then from 0.57 to 3.7 times the estimate. Prompts are the same, so sigma does
  not cover the choice of prompts; the interval of `net_win_rate` does.

  Raises DataError if no comparison was repeated.
  """
  degrees = sum(len(row) - 1 for row in net_win_rates)
  if degrees < 1:
    raise DataError('sigma needs a comparison made twice or more, better four times')
  squares = sum(float(np.var(row)) * len(row) for row in net_win_rates)
  tails = stats.chi2.ppf(ENDS[::-1], degrees)
  low, high = np.sqrt(squares / tails)
  return Sigma(math.sqrt(squares / degrees), float(low), float(high), degrees + 1)


def verdict(value: float, sigma: float) -> str:
  """Returns SIGNIFICANT for a net win rate beyond 2 sigma, MODERATE beyond 1 sigma, else ON_PAR."""
  if abs(value) > 2 * sigma:
    return SIGNIFICANT
  return MODERATE if abs(value) > sigma else ON_PAR


def half_width(prompts: Positive, win: Fraction, lose: Fraction) -> float:
  """Returns half the width of the interval of the net win rate for `prompts` prompts, in points.

  100 z sqrt((win + lose - (win - lose)^2) / n), with win and lose the shares of prompts whose
  majority is that, and z the quantile 0.975 of the normal distribution.
  """
  values = {'prompts': prompts, 'win': win, 'lose': lose}
  arguments(half_width, values, 'half_width')
  z = float(stats.norm.ppf(ENDS[1]))
  return 100 * z * math.sqrt((win + lose - (win - lose) ** 2) / prompts)


def prompts_needed(
  difference: Annotated[float, Range(above=0, below=100)],
  tie: Fraction,
  chance: Annotated[float, Range(least=0.5, below=1)] = 0.8,
) -> int:
  """Returns the number of prompts to detect a net win rate, with an interval that excludes 0.

  n = v ((z_c + z_p) / d)^2 with d the difference as a share, v = max(1 - tie, d) - d^2 the variance
  of a verdict, z_c the quantile 0.975 of the normal distribution and z_p the quantile p.

  Args:
    tie: share of prompts without a majority for one.
    chance: p, how likely it shall be found; 0.5 is where it lies at the end of the interval.
  """
  values = {'difference': difference, 'tie': tie, 'chance': chance}
  arguments(prompts_needed, values, 'prompts_needed')
  d = difference / 100
  reach = float(stats.norm.ppf(ENDS[1]) + stats.norm.ppf(chance))
  return max(2, math.ceil((max(1 - tie, d) - d * d) * (reach / d) ** 2))
