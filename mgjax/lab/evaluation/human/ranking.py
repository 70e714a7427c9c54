"""Ranks more than two models: Bradley-Terry with ties, in points of Elo (Movie Gen §3.5, §3.7)."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.lab.evaluation.human.win_rates import Tally
from mgjax.lab.statistics.intervals import central_interval

POINTS = 400 / math.log(10)  # of Elo in a unit of log strength: ten to one is 400 points
START = 1000.0  # average points of models
_LONGEST_STEP = 2.0  # of Newton's method, which keeps it where the curvature is accurate


@dataclasses.dataclass(frozen=True)
class Rating:
  """The Bradley-Terry strength of a model, from `comparisons` of prompts.

  Strength and interval are in Elo points: 400 points are odds of ten to one; models average 1,000.
  """

  model: str
  strength: float
  low: float
  high: float
  comparisons: int


def bradley_terry(
  wins: Float[np.ndarray, '*b n n'], ties: Float[np.ndarray, '*b n n'], prior: float = 0.01
) -> tuple[Float[np.ndarray, '*b n'], Float[np.ndarray, '*b']]:
  """Returns log strengths with mean 0, and the log tie parameter.

  Ties follow Davidson (1970): i beats j, j beats i, and a tie have probabilities proportional to

    e^theta_i : e^theta_j : e^(eta + (theta_i + theta_j) / 2)

  Without ties it is the model of Bradley and Terry (1952), and eta is -inf. The sum of

    w_ij log p_ij over i, j + t_ij log q_ij over i < j - prior (sum_i theta_i^2 + eta^2) / 2

  is concave; Newton's method finds its maximum. The prior, a normal distribution with a standard
  deviation of ten units or 1,700 points, only matters for a model that never lost or never won,
  whose strength would be infinite without it.

  `wins` [i, j] counts wins of i over j, and `ties` [i, j] = [j, i] counts ties. To count a tie as
  half a win of both, call `bradley_terry(wins + ties / 2, 0 * ties)`. `prior` is a precision.
  """
  n = wins.shape[-1]
  first, second = np.triu_indices(n, 1)
  counts = np.stack([x[..., first, second] for x in (wins, np.swapaxes(wins, -1, -2), ties)], -1)
  total = counts.sum(-1)
  some = counts[..., 2].sum(-1) > 0
  # The logits of the three outcomes of a pair are linear in theta and eta.
  pairs = (np.eye(n)[first] - np.eye(n)[second]) / 2
  features = np.zeros((len(first), 3, n + 1))
  features[:, 0, :n] = pairs
  features[:, 1, :n] = -pairs
  features[:, 2, n] = 1
  # The data do not determine the mean of theta; fixing it makes the Hessian invertible.
  mean = np.append(np.ones(n), 0)
  fixed = prior * np.eye(n + 1) + np.outer(mean, mean) / n
  parameters = np.zeros((*wins.shape[:-2], n + 1))
  for _ in range(100):
    logits = np.einsum('pkf,...f->...pk', features, parameters)
    logits[..., 2] = np.where(some[..., None], logits[..., 2], -np.inf)
    p = special.softmax(logits, -1)
    expected = np.einsum('pkf,...pk->...pf', features, p)
    gradient = np.einsum('pkf,...pk->...f', features, counts - total[..., None] * p)
    hessian = np.einsum('...pk,pkf,pkg->...fg', total[..., None] * p, features, features)
    hessian += fixed - np.einsum('...p,...pf,...pg->...fg', total, expected, expected)
    hessian[..., -1, -1] += ~some
    step = np.linalg.solve(hessian, (gradient - prior * parameters)[..., None])[..., 0]
    longest = np.abs(step).max(-1, keepdims=True)
    parameters = parameters + step * np.minimum(1, _LONGEST_STEP / np.maximum(longest, 1e-300))
    if longest.max() < 1e-9:
      break
  theta = parameters[..., :-1] - parameters[..., :-1].mean(-1, keepdims=True)
  return theta, np.where(some, parameters[..., -1], -np.inf)


def rank(tallies: Sequence[Tally], resamples: int = 1000, seed: int = 0) -> list[Rating]:
  """Ranks the models of one question by the majorities of prompts, the strongest first.

  Intervals are from a bootstrap over prompts, each with all its pairs of models. Raises DataError
  if the comparisons do not connect all models, directly or through other models.
  """
  names = sorted({name for tally in tallies for name in (tally.ours, tally.theirs)})
  _check_connected(names, tallies)
  played = []
  for tally in tallies:
    pair = names.index(tally.ours), names.index(tally.theirs)
    judged = zip(tally.prompts, tally.verdicts, strict=True)
    played += [(prompt, *pair, outcome) for prompt, outcome in judged]
  games = np.array(played)
  generator = np.random.default_rng(seed)
  n = len(names)
  prompts, which = np.unique(games[:, 0], return_inverse=True)
  p = len(prompts)
  drawn = generator.multinomial(p, np.full(p, 1 / p), resamples)
  # Row 0 counts every prompt once.
  weights = np.concatenate([np.ones((1, p), int), drawn])[:, which]
  table = np.zeros((len(weights), 2, n, n))
  for column, (_, i, j, outcome) in enumerate(games):
    if outcome:
      table[:, 0, *((i, j) if outcome > 0 else (j, i))] += weights[:, column]
    else:
      table[:, 1, i, j] += weights[:, column]
      table[:, 1, j, i] += weights[:, column]
  theta, _ = bradley_terry(table[:, 0], table[:, 1])
  strengths = START + POINTS * theta
  low, high = central_interval(strengths[1:], axis=0)
  ratings = []
  for index, name in enumerate(names):
    numbers = map(float, (strengths[0, index], low[index], high[index]))
    ratings.append(Rating(name, *numbers, int((games[:, 1:3] == index).sum())))
  return sorted(ratings, key=lambda rating: -rating.strength)


def _check_connected(names: Sequence[str], tallies: Sequence[Tally]) -> None:
  reached = {names[0]} if names else set()
  for _ in names:
    for tally in tallies:
      if len(tally.prompts) and reached & {tally.ours, tally.theirs}:
        reached |= {tally.ours, tally.theirs}
  if len(reached) < max(len(names), 2):
    apart = sorted(set(names) - reached)
    raise DataError(
      f'{apart or "no models"} were not compared with {sorted(reached)}, directly or by way of a '
      'third model; judge pairs that connect them, or rank them apart'
    )
