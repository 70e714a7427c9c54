"""Grids of runs: the ladder, what budgets become, rules, and what cannot be planned."""

import pytest

from configs.scaling import isoflop, report
from mgjax.core.errors import ConfigError
from mgjax.lab.scaling.design.cost import describe_grid
from mgjax.lab.scaling.design.grid import make_grid
from mgjax.lab.scaling.design.ladder import rung


def small(**changes):
  config = isoflop.get_config()
  config.grid.update(sizes=3, decades=0.6, **changes)
  return config


def test_the_reports_models_are_rungs_of_the_ladder():
  five, thirty = rung(24), rung(48)
  assert (five.dim, five.depth, five.mlp_dim) == (3072, 32, 8192)
  assert (thirty.dim, thirty.depth, thirty.mlp_dim) == (6144, 48, 16384)


def test_runs_of_a_budget_spend_it_whatever_their_size_and_block():
  points = make_grid(small(budgets=(5e11, 2e12)).to_dict())
  assert {point.recipe for point in points} == {'llama', 'dit'}
  assert [len(point.seeds) for point in points if point.recipe == 'dit'] == [1, 3, 1, 1, 3, 1]
  assert len({point.name for point in points}) == len(points) == 12
  for point in points:
    steps_worth = 1 / point.steps
    assert point.flops == pytest.approx(point.budget, rel=steps_worth)
    assert point.flops == pytest.approx(6 * point.size * point.tokens, rel=1e-9)
    assert point.tokens % (point.steps * point.rows) == 0
  sizes = [point.size for point in points if point.recipe == 'llama'][:3]
  assert 10**0.6 / 1.6**2 < max(sizes) / min(sizes) < 10**0.6 * 1.6**2


def test_rates_and_batches_follow_their_rules_and_several_rates_are_a_search():
  config = small(budgets=(1e12,), rates=(0.5, 2.0))
  config.grid.learning_rate = {'value': 1e-3, 'by_size': -0.5, 'by_tokens': 0.25}
  config.grid.batch = {'value': 16.0, 'by_tokens': 0.5}
  del config.recipes.dit
  points = make_grid(config.to_dict())
  assert len(points) == 6
  reference = config.grid.reference
  for point, factor in zip(points, (0.5, 2.0) * 3, strict=True):
    tokens = 1e12 / (6 * point.size)
    rate = 1e-3 * (point.size / reference['size']) ** -0.5 * (tokens / reference['tokens']) ** 0.25
    assert point.learning_rate == pytest.approx(factor * rate)
    assert point.rows == round(16 * (tokens / reference['tokens']) ** 0.5)
    assert point.config.optimizer.learning_rate == point.learning_rate
    assert point.config.buckets.image.batch_size == point.rows
    assert point.config.train.steps == point.steps


def test_the_reports_own_sweep_is_planned_and_costed():
  points = make_grid(report.get_config().to_dict())
  assert [round(point.parameters / 1e9) for point in points] == [5, 9, 17, 29] * 2
  told = describe_grid(points[:2], 'h200:8')
  assert 'hours of h200:8, one run after the other' in told and told.count('llama_1e22_') == 2


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'decades': 0.01, 'sizes': 9}, 'the free size nearest to'),
    ({'head_dim': 128}, 'the free size nearest to'),
    ({'batch': {'value': 1e7}}, 'expected 20 at least'),
    ({'budgets': ()}, 'one of each at least'),
    ({'sizes': 0}, 'grid.sizes = 0'),
    ({'centre': {'value': 1e5}}, 'grid.centre has'),
  ],
  ids=['one_size', 'wide_heads', 'no_steps', 'no_budgets', 'no_sizes', 'no_centre'],
)
def test_what_cannot_be_planned_is_a_sentence(changes, said):
  config = small(budgets=(1e12,))
  del config.recipes.dit
  with config.grid.unlocked():
    for name, value in changes.items():
      del config.grid[name]
      config.grid[name] = value
  with pytest.raises(ConfigError, match=said):
    make_grid(config.to_dict())
