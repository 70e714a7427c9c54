"""What spoils a law is told, and a clean experiment is told nothing."""

import dataclasses
import re

import numpy as np
import pytest

from mgjax.scaling.audit import audit
from mgjax.scaling.parametric import Runs, fit_law
from mgjax.scaling.records import Records, as_records
from tests.scaling.test_parametric import SURFACES, runs

LAW = SURFACES['hoffmann']


def told(records):
  kept = records.at_best_rates()
  return ' '.join(audit(records, fit_law(kept.runs, flops=kept.flops)))


def grid(seeds=2, law=LAW, **where):
  return as_records(Runs(*(np.tile(each, seeds) for each in runs(law, **where))))


def curves(records, fall=1.0, rise=0.0):
  """Losses on the way: the law's, but for the last quarter, in which they fall or rise."""
  found = []
  for size, tokens in zip(records.runs.size, records.runs.tokens, strict=True):
    seen = tokens * np.linspace(0.05, 1, 40)
    losses = LAW.loss(size, seen)
    late = np.interp(seen, [0.75 * tokens, tokens], [0, 1])
    steep = (fall - 1) * (LAW.loss(size, 0.75 * tokens) - LAW.loss(size, tokens))
    found.append(np.stack([seen, losses + steep * (1 - late) + rise * losses * late], 1))
  return dataclasses.replace(records, curves=tuple(found))


def test_a_clean_experiment_is_told_nothing():
  assert told(grid()) == ''
  assert told(curves(grid())) == ''


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


def test_curves_tell_of_runs_that_still_fall_or_rise():
  # A schedule that falls to zero makes a last quarter steeper than the law: three times is no news.
  assert told(curves(grid(), fall=3.0)) == ''
  falling = told(curves(grid(), fall=6.0))
  assert 'the ends of 90 of 90 runs' in falling and 'they have not converged' in falling
  # The curves have points 1/39 of their tokens apart, between which lines are a little high.
  assert float(re.search(r'fall up to (\S+) times', falling)[1]) == pytest.approx(6, rel=0.03)
  rising = told(curves(grid(), rise=0.05))
  assert 'the ends of 90 of 90 runs' in rising and 'above their least losses' in rising


def test_a_best_learning_rate_at_the_edge_of_its_sweep_is_told():
  size, tokens, loss = (each.repeat(3) for each in grid().runs)
  rates = np.tile([1e-4, 3e-4, 1e-3], len(size) // 3)
  within = loss * np.tile([1.02, 1.0, 1.03], len(size) // 3)
  beyond = loss * np.tile([1.02, 1.01, 1.0], len(size) // 3)
  records = Records(Runs(size, tokens, within), rates)
  assert told(records) == ''
  records = Records(Runs(size, tokens, beyond), rates)
  assert told(records).count('the best of 3 learning rates is the largest, 0.001') == 45
