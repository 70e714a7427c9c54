"""Rankings: against closed forms, scipy's optimiser, evalica, and strengths that are known."""

import itertools

import numpy as np
import pytest
import scipy.optimize

from mgjax.core.errors import DataError
from mgjax.lab.evaluation.human.ranking import POINTS, START, bradley_terry, rank
from mgjax.lab.evaluation.human.win_rates import Tally, tally
from tests.lab.evaluation.human.simulated import make_votes

MODELS = ('a', 'b', 'c', 'd')


def draw_games(seed=0, models=4, games=400):
  """Wins and ties between models of other strengths, and the games in their order."""
  generator = np.random.default_rng(seed)
  theta = np.linspace(-0.8, 0.8, models)
  outcomes = []
  for _ in range(games):
    i, j = generator.choice(models, 2, replace=False)
    weights = np.exp([theta[i], theta[j], (theta[i] + theta[j]) / 2])
    outcomes.append((i, j, (1, -1, 0)[generator.choice(3, p=weights / weights.sum())]))
  wins, ties = np.zeros((2, models, models))
  for i, j, outcome in outcomes:
    if outcome:
      wins[(i, j) if outcome > 0 else (j, i)] += 1
    else:
      ties[i, j] += 1
      ties[j, i] += 1
  return np.array(outcomes), wins, ties


def test_two_models_differ_by_the_log_of_their_odds():
  wins = np.array([[0, 30.0], [10, 0]])
  theta, eta = bradley_terry(wins, 0 * wins, prior=0)
  assert theta[0] - theta[1] == pytest.approx(np.log(3)) and eta == -np.inf
  # With ties as well, and e^eta = ties / sqrt(wins losses).
  theta, eta = bradley_terry(wins, np.array([[0, 20.0], [20, 0]]), prior=0)
  assert theta[0] - theta[1] == pytest.approx(np.log(3))
  assert eta == pytest.approx(np.log(20 / 300**0.5))


def test_it_is_the_most_likely_one():
  _, wins, ties = draw_games()

  def unlikely(parameters):
    *theta, eta = parameters
    loss = 0.0
    for i, j in itertools.combinations(range(4), 2):
      logs = np.array([theta[i], theta[j], eta + (theta[i] + theta[j]) / 2])
      seen = np.array([wins[i, j], wins[j, i], ties[i, j]])
      loss -= seen @ (logs - np.log(np.exp(logs).sum()))
    return loss

  best = scipy.optimize.minimize(unlikely, np.zeros(5), tol=1e-10).x
  theta, eta = bradley_terry(wins, ties, prior=0)
  # BFGS with numeric slopes of 1e-8 ends within about their root of the top.
  np.testing.assert_allclose(theta, best[:4] - best[:4].mean(), atol=1e-4)
  assert eta == pytest.approx(best[4], abs=1e-4)


def test_several_tables_are_fitted_at_once_as_each_alone():
  tables = [draw_games(seed)[1:] for seed in range(3)]
  wins, ties = (np.stack(stack) for stack in zip(*tables, strict=True))
  together = bradley_terry(wins, ties)
  for index, table in enumerate(tables):
    np.testing.assert_allclose(together[0][index], bradley_terry(*table)[0], atol=1e-8)


def test_a_model_that_never_lost_has_a_strength_that_is_not_infinite():
  wins = np.array([[0, 5.0, 5], [0, 0, 3], [0, 2, 0]])
  theta, _ = bradley_terry(wins, 0 * wins)
  assert np.isfinite(theta).all() and theta[0] > theta[1] > theta[2]


@pytest.mark.oracle
def test_strengths_are_those_of_evalica():
  evalica = pytest.importorskip('evalica')
  games, wins, ties = draw_games()
  names = {1: evalica.Winner.X, 0: evalica.Winner.Draw, -1: evalica.Winner.Y}
  winners = [names[outcome] for outcome in games[:, 2].tolist()]
  pairs = [[MODELS[i] for i in games[:, column]] for column in (0, 1)]
  theirs = evalica.bradley_terry(*pairs, winners, tolerance=1e-12, limit=10_000)
  scores = np.log(theirs.scores.loc[list(MODELS)].to_numpy())
  theta, _ = bradley_terry(wins + ties / 2, 0 * ties, prior=0)
  # It stops where an iteration changes less than 1e-12 times what converges linearly.
  np.testing.assert_allclose(theta, scores - scores.mean(), atol=1e-6)


def test_models_come_in_the_order_of_their_strength_with_intervals_around_it():
  votes = make_votes(np.random.default_rng(0), 60, MODELS, strengths=(0, 1.5, -1.5, 0.5))
  ratings = rank(tally(votes), resamples=200)
  assert [rating.model for rating in ratings] == ['b', 'd', 'a', 'c']
  for rating in ratings:
    assert rating.low < rating.strength < rating.high
    assert rating.comparisons == 3 * 60
  assert np.mean([rating.strength for rating in ratings]) == pytest.approx(START)
  assert rank(tally(votes), resamples=200) == ratings


def test_models_that_nobody_compared_are_refused():
  votes = make_votes(np.random.default_rng(0), 5, ('a', 'b'))
  votes += make_votes(np.random.default_rng(0), 5, ('c', 'd'))
  with pytest.raises(DataError, match=r"\['c', 'd'\] were not compared with \['a', 'b'\]"):
    rank(tally(votes))
  votes += make_votes(np.random.default_rng(0), 5, ('b', 'c'))
  assert len(rank(tally(votes), resamples=10)) == 4


@pytest.mark.slow
def test_an_interval_of_95_percent_has_the_truth_in_95_percent_of_studies():
  strengths, covered = dict(zip(MODELS, (0.6, 0.0, -0.6), strict=False)), []
  for seed in range(2000):
    generator, tallies = np.random.default_rng(seed), []
    for (first, x), (second, y) in itertools.combinations(strengths.items(), 2):
      weights = np.exp([x, (x + y) / 2, y])
      counts = generator.multinomial(1, weights / weights.sum(), 100)
      tallies.append(Tally('overall', first, second, np.arange(100), counts, 0))
    covered += [
      rating.low <= START + POINTS * strengths[rating.model] <= rating.high
      for rating in rank(tallies, resamples=400, seed=seed)
    ]
  assert 0.935 <= np.mean(covered) <= 0.965
