"""How many prompts a comparison by people needs, and how sure it would be (Movie Gen §3.5)."""

import dataclasses
import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Annotated

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Fraction, Positive, Range, arguments, check

_Shares = tuple[Fraction, Fraction, Fraction]


@dataclasses.dataclass(frozen=True)
class Raters:
  """How raters answer, to plan with before there are votes.

  Of each prompt one answer is the right one. A rater sees it with a probability, and guesses else.
  The defaults give intervals of ±16.8, 9.7, 7.3 and 5.3 points of 100, 300, 527 and 1,003 prompts.

  Attributes:
    raters: of a prompt, whose majority counts.
    shares: of prompts that ours wins, that are ties and that ours loses.
    sees: how likely a rater is to see which.
    guesses: how likely those who do not are to say each.
  """

  raters: Positive = 3
  shares: _Shares = (0.45, 0.15, 0.4)
  sees: Fraction = 0.6
  guesses: _Shares = (0.3, 0.4, 0.3)

  def __post_init__(self):
    check(self)
    for name in ('shares', 'guesses'):
      if abs(sum(getattr(self, name)) - 1) > 1e-9:
        raise ConfigError(f'{name} = {getattr(self, name)}; expected shares that sum to 1')

  def answers(self, truth: int) -> tuple[float, float, float]:
    """Returns how likely a rater is to say win, tie and lose where 0, 1 or 2 of them is right."""
    win, tie, lose = (
      (1 - self.sees) * guess + self.sees * (truth == index)
      for index, guess in enumerate(self.guesses)
    )
    return win, tie, lose

  def majorities(self) -> tuple[float, float, float]:
    """Returns the shares of prompts whose majority is a win, a tie and a loss, by enumeration.

    Of each truth the counts of k raters are multinomial: k! / (a! b! c!) p^a q^b r^c. See
    `statistics.majority`.
    """
    found = [0.0, 0.0, 0.0]
    for truth, share in enumerate(self.shares):
      answers = self.answers(truth)
      for counts in _splits(self.raters):
        ways = math.factorial(self.raters) / math.prod(map(math.factorial, counts))
        chance = ways * math.prod(p**c for p, c in zip(answers, counts, strict=True))
        best = [index for index, count in enumerate(counts) if count == max(counts)]
        found[best[0] if len(best) == 1 else 1] += share * chance
    win, tie, lose = found
    return win, tie, lose


def _splits(count: int) -> Iterator[tuple[int, int, int]]:
  for a in range(count + 1):
    for b in range(count + 1 - a):
      yield a, b, count - a - b


def half_width(
  prompts: Positive,
  win: Fraction,
  lose: Fraction,
  confidence: Annotated[float, Range(above=0, below=1)] = 0.95,
) -> float:
  """Returns half the interval of the net win rate of so many prompts, in points.

  100 z sqrt((win + lose - (win - lose)^2) / n), with z the quantile (1 + c) / 2 of the normal
  distribution.

  Args:
    prompts: n.
    win: share of prompts whose majority is a win.
    lose: share of those whose majority is a loss.
    confidence: of the interval.

  Raises:
    ConfigError: a number is out of its range.
  """
  given = {'prompts': prompts, 'win': win, 'lose': lose, 'confidence': confidence}
  arguments(half_width, given, 'half_width')
  z = NormalDist().inv_cdf((1 + confidence) / 2)
  return 100 * z * math.sqrt((win + lose - (win - lose) ** 2) / prompts)


def prompts_needed(
  difference: Annotated[float, Range(above=0, below=100)],
  tie: Fraction,
  chance: Annotated[float, Range(least=0.5, below=1)] = 0.8,
  confidence: Annotated[float, Range(above=0, below=1)] = 0.95,
) -> int:
  """Returns how many prompts it takes to find a net win rate: that the interval is beyond 0.

  n = v ((z_c + z_p) / d)^2 with d the difference as a share, v = max(1 - tie, d) - d^2 the variance
  of a verdict, z_c the quantile (1 + c) / 2 of the normal distribution and z_p the quantile p.

  Args:
    difference: the net win rate, in points.
    tie: share of prompts without a majority for one.
    chance: p, how likely it shall be found; .5 is where it lies at the end of the interval.
    confidence: c.

  Raises:
    ConfigError: a number is out of its range.
  """
  given = {'difference': difference, 'tie': tie, 'chance': chance, 'confidence': confidence}
  arguments(prompts_needed, given, 'prompts_needed')
  d, normal = difference / 100, NormalDist()
  reach = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(chance)
  return max(2, math.ceil((max(1 - tie, d) - d * d) * (reach / d) ** 2))
