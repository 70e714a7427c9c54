"""Means of parameters: exact, weighted, and greedy without ever being worse than the best alone."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.workflows.parameter_means import Mean, Trial, greedy_mean, mean_params


def tree(value, dtype=jnp.float32):
  return {'block': {'kernel': jnp.full((2, 3), value, dtype)}, 'bias': jnp.full(4, value, dtype)}


def test_a_mean_is_weighted():
  mean = mean_params(map(tree, (1.0, 2.0, 6.0)), [2, 1, 1])
  assert mean['block']['kernel'].shape == (2, 3)
  assert mean['bias'].tolist() == [2.5] * 4
  assert mean_params(map(tree, (1.0, 2.0, 6.0)), [1, 1, 1])['bias'].tolist() == [3.0] * 4


@pytest.mark.parametrize('weights', [[], [1.0, 0.0], [1.0, -1.0], [1.0, float('nan')]])
def test_weights_that_are_no_shares_are_an_error(weights):
  with pytest.raises(ConfigError, match='each must be above 0'):
    mean_params(map(tree, (1.0, 2.0)), weights)


def test_many_models_cost_no_bits():
  numbers = np.random.default_rng(0).normal(size=(64, 500)).astype(np.float32)
  expected = np.mean(numbers.astype(np.float64), axis=0).astype(np.float32)
  mean = mean_params([{'p': row} for row in numbers], [1.0] * 64)
  np.testing.assert_array_equal(mean['p'], expected)
  single = np.mean(numbers, axis=0, dtype=np.float32)
  assert np.any(single != expected)  # as a sum in float32 would


def test_half_precision_becomes_single():
  mean = mean_params([tree(1.0, jnp.bfloat16), tree(1.0 + 2**-7, jnp.bfloat16)], [1, 1])
  assert mean['bias'].dtype == np.float32
  assert mean['bias'].tolist() == [1.0 + 2**-8] * 4  # bfloat16 has no such number


def test_a_mean_that_grows_leaves_the_smaller_one_alone():
  one = Mean().plus(tree(1.0))
  assert one.plus(tree(3.0)).value()['bias'].tolist() == [2.0] * 4
  assert one.value()['bias'].tolist() == [1.0] * 4


def distance(goal):
  """A loss: how far all numbers are from where they should be."""
  return lambda params: float(abs(params['bias'][0] - goal))


def greedy(values, goal):
  losses, asked = [abs(value - goal) for value in values], []

  def load(index):
    asked.append(index)
    return tree(values[index])

  mean, trials = greedy_mean(losses, load, distance(goal))
  assert sorted(asked) == list(range(len(values)))
  return float(mean['bias'][0]), trials


def test_greedy_takes_what_lowers_the_loss_alone():
  # 1 alone is nearest to 0; with -2 the mean is nearer, -0.5; 10 would pull it away.
  mean, trials = greedy([10.0, -2.0, 1.0], 0.0)
  assert mean == -0.5
  assert trials == [Trial(2, 1.0, True), Trial(1, 0.5, True), Trial(0, 3.0, False)]


@hypothesis.given(st.lists(st.integers(-100, 100), min_size=1, max_size=6), st.integers(-50, 50))
def test_greedy_is_never_worse_than_the_best_alone(values, goal):
  mean, trials = greedy(list(map(float, values)), float(goal))
  best = min(abs(value - goal) for value in values)
  found = [trial.loss for trial in trials if trial.taken]
  assert found == sorted(found, reverse=True) and found[0] == best
  assert abs(mean - goal) == pytest.approx(found[-1], abs=1e-4)


def test_greedy_leaves_out_what_is_no_number():
  nan = float('nan')
  mean, trials = greedy_mean([nan, 2.0, 1.0], lambda index: tree(float(index)), lambda p: nan)
  assert float(mean['bias'][0]) == 2.0
  assert [(trial.index, trial.taken) for trial in trials] == [(2, True), (1, False)]
  with pytest.raises(ConfigError, match='no model to average has a finite validation loss'):
    greedy_mean([nan, float('inf')], tree, distance(0))
