"""Agreement of raters with each other, with themselves and with gold items (Movie Gen §3.5)."""

import dataclasses
import statistics
from collections.abc import Iterable

import numpy as np

from mgjax.core.typing import Float, Int
from mgjax.lab.evaluation.human.votes import Vote
from mgjax.lab.evaluation.human.win_rates import same_question
from mgjax.lab.statistics.intervals import Share, central_interval, share

GOLD = 0.9  # raters whose interval of correct gold items is below this are flagged
RATER = ('answers', 'cannot judge', 'ties', 'seconds', 'gold right', 'same again', 'left')


def fleiss_kappa(counts: Int[np.ndarray, 'n c']) -> float:
  """Returns Fleiss' kappa of items with equally many answers; NaN if all answers are the same.

  (P - P_e) / (1 - P_e), with P the share of equal pairs among the answers about one item, and P_e =
  sum_c p_c^2 the same share for shuffled answers (Fleiss 1971). If raters are missing, it uses only
  the items with the most frequent number of answers; `krippendorff_alpha` uses all items. `counts`
  has a row an item and a column an answer.
  """
  raters = counts.sum(1)
  raters = raters[raters > 1]
  if not len(raters):
    return float('nan')
  k = int(np.bincount(raters).argmax())
  counts = counts[counts.sum(1) == k]
  chance = float(np.sum((counts.sum(0) / counts.sum()) ** 2))
  same = float(np.mean((np.sum(counts**2, 1) - k) / (k * (k - 1))))
  return (same - chance) / (1 - chance) if chance < 1 else float('nan')


def krippendorff_alpha(counts: Int[np.ndarray, 'n c']) -> float:
  """Returns Krippendorff's alpha of nominal data; NaN if all answers are the same.

  1 - (N - 1) sum_u (m_u^2 - sum_c n_uc^2) / (m_u - 1) / (N^2 - sum_c n_c^2), over the items u with
  m_u >= 2 answers, n_uc of them c, N in all (Krippendorff 2011, Computing Krippendorff's
  Alpha-Reliability). Items may have any numbers of answers.
  """
  return float(_alpha(_parts(counts).sum(0)))


def _parts(counts: Int[np.ndarray, 'n c']) -> Float[np.ndarray, 'u d']:
  """Returns the terms of alpha, which sums over items: disagreement, then counts."""
  counts = counts[counts.sum(1) > 1]
  m = counts.sum(1)
  disagreement = (m**2 - (counts**2).sum(1)) / np.maximum(m - 1, 1)
  return np.concatenate([disagreement[:, None], counts], 1)


def _alpha(sums: Float[np.ndarray, '*b d']) -> Float[np.ndarray, '*b']:
  disagreement = sums[..., 0]
  counts = sums[..., 1:]
  total = counts.sum(-1)
  expected = total**2 - (counts**2).sum(-1)
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(expected > 0, 1 - (total - 1) * disagreement / expected, np.nan)


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Krippendorff's alpha (1 if raters always agree, 0 by chance) with its interval, Fleiss' kappa.

  `prompts` is the number of prompts with two raters or more.
  """

  alpha: float
  low: float
  high: float
  kappa: float
  prompts: int


def agreement(counts: Int[np.ndarray, 'p c'], resamples: int = 2000, seed: int = 0) -> Agreement:
  """Returns the agreement of raters from `Tally.counts`, with a bootstrap over prompts."""
  parts = _parts(counts)
  n = len(parts)
  ends = (float('nan'), float('nan'))
  if n > 1:
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    drawn = _alpha(weights @ parts)
    if np.isfinite(drawn).any():
      ends = central_interval(drawn)
  return Agreement(krippendorff_alpha(counts), *ends, fleiss_kappa(counts), n)


@dataclasses.dataclass(frozen=True)
class Rater:
  """Statistics of one rater; gold items and repeated questions do not count as `answers`.

  `seconds` is the median of an answer, 0 where no times are known. There are three shares, None
  without any: of gold items that are right, of repeated questions that got the same answer, and of
  the left side among answers for a side. The last is 0.5 if sides are shuffled and the rater looks
  at the videos.
  """

  name: str
  answers: int
  cannot_judge: int
  ties: int
  seconds: float
  gold: Share | None
  consistent: Share | None
  left: Share | None

  @property
  def flags(self) -> tuple[str, ...]:
    """Reasons to review the answers before they count, by the intervals of the shares."""
    reasons = []
    if self.gold and self.gold.high < GOLD:
      reasons.append(f'right about {self.gold.value:.0%} of {self.gold.count} gold items')
    if self.left and (self.left.low > 0.5 or self.left.high < 0.5):
      reasons.append(f'left in {self.left.value:.0%} of {self.left.count} answers')
    return tuple(reasons)


def raters(votes: Iterable[Vote]) -> list[Rater]:
  """Describes the raters of a study, by name, from all votes, including gold and repeated ones."""
  by_name: dict[str, list[Vote]] = {}
  for vote in votes:
    by_name.setdefault(vote.rater, []).append(vote)

  def describe(name: str) -> Rater:
    first: dict[tuple, Vote] = {}
    same = []
    gold = []
    for vote in by_name[name]:
      if vote.gold:
        gold.append(vote.winner == vote.gold)
      elif (before := first.setdefault(same_question(vote), vote)) is not vote:
        same.append(before.winner == vote.winner)
    choices = [vote.choice for vote in first.values()]
    left = [choice == 'left' for choice in choices if choice in ('left', 'right')]
    times = [vote.milliseconds / 1000 for vote in first.values()]
    shares = (share(outcomes) if outcomes else None for outcomes in (gold, same, left))
    return Rater(
      name,
      len(first),
      choices.count('cannot_judge'),
      choices.count('tie'),
      statistics.median(times) if times else 0.0,
      *shares,
    )

  return [describe(name) for name in sorted(by_name)]


def describe_rater(rater: Rater) -> dict[str, str]:
  """Returns the statistics of a rater as cells of a table, by RATER."""
  counts = (f'{n:,}' for n in (rater.answers, rater.cannot_judge, rater.ties))
  shares = (rater.gold, rater.consistent, rater.left)
  cells = (f'{share} of {share.count}' if share else '' for share in shares)
  seconds = f'{rater.seconds:.1f}' if rater.seconds else ''
  return dict(zip(RATER, (*counts, seconds, *cells), strict=True))
