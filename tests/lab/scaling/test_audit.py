"""What spoils a law is told, and a clean experiment is told nothing."""

import numpy as np
import pytest

from mgjax.lab.scaling.audit import audit
from mgjax.lab.scaling.parametric import Runs, fit_law
from mgjax.lab.scaling.records import Records, as_records
from tests.lab.scaling.test_parametric import SURFACES, runs

LAW = SURFACES['hoffmann']


def told(records):
  kept = records.at_best_rates()
  return ' '.join(audit(records, fit_law(kept.runs, flops=kept.flops)))


def grid(seeds=2, law=LAW, **where):
  return as_records(Runs(*(np.tile(each, seeds) for each in runs(law, **where))))


def test_a_clean_experiment_is_told_nothing():
  assert told(grid()) == ''


@pytest.mark.parametrize(
  ('given', 'sentence'),
  (
    ({'seeds': 1}, 'of one seed'),
    ({'width': 2.4, 'off': 0.0}, 'span 2.4 decades'),
    ({'width': 0.4, 'off': 0.4}, 'sizes are below the best one and'),
    ({'budgets': (1e18, 10**18.5, 5)}, 'budgets span 0.5 decades'),
  ),
  ids=('one seed', 'too wide', 'off the minimum', 'too near'),
)
def test_grids_that_spoil_a_law_are_told(given, sentence):
  assert sentence in told(grid(**given))


def test_a_run_far_above_the_law_may_not_have_converged():
  records = grid()
  records.runs.loss[11] *= 1.08
  assert told(records).count('above the law: it may not have converged') == 1
  assert 'is 8.0% above the law' in told(records)


def test_a_best_learning_rate_at_the_edge_of_its_sweep_is_told():
  size, tokens, loss = (each.repeat(3) for each in grid().runs)
  rates = np.tile([1e-4, 3e-4, 1e-3], len(size) // 3)
  within = loss * np.tile([1.02, 1.0, 1.03], len(size) // 3)
  beyond = loss * np.tile([1.02, 1.01, 1.0], len(size) // 3)
  records = Records(Runs(size, tokens, within), rates)
  assert told(records) == ''
  records = Records(Runs(size, tokens, beyond), rates)
  assert told(records).count('the best of 3 learning rates is the largest, 0.001') == 45
