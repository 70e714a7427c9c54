"""Simulated runs where the answer is known: no failures, Young and Daly, more is never worse."""

import dataclasses
import math

import numpy as np
import pytest

from mgjax.lab.planning.rehearsal.assumptions import DAY, HOUR, Assumptions, Job, daly, young
from mgjax.lab.planning.rehearsal.simulation import (
  AGAIN,
  CAUSES,
  FEWER,
  PLANNED,
  PROGRESS,
  RESTART,
  SAVING,
  SLOW,
  STALLS,
  WAITING,
  Scenario,
  simulate,
)
from mgjax.lab.planning.rehearsal.study import Estimate, best_interval

# Nothing happens but what a test asks for; training waits for checkpoints.
QUIET = Assumptions(failures=0, planned=0, slow=0, stalls=0, blocking=1, pause=0)
# 1,024 chips with 12.2 GB each, which take 100 s to write; failures every 10 hours.
JOB = Job(chips=1024, machine=8, replicas=1, separate=1, step=10, piece=12.2e9)
EVERY_10_HOURS = 1000 / 1024 * 24 / 10
REPLICAS = dataclasses.replace(JOB, replicas=16, separate=16)


def shares(assumed, job=JOB, days=30, interval=HOUR, spares=100, elastic=False, runs=20, seed=0):
  found = simulate(Scenario(job, assumed, days, interval, spares, elastic), runs, seed)
  assert found.sum(axis=1) == pytest.approx(np.ones(runs), abs=1e-9)
  assert found.min() >= 0
  return {cause: found[:, place] for place, cause in enumerate(CAUSES)}


def test_without_failures_only_checkpoints_take_time():
  found = shares(QUIET, days=3700 / 86_400 * 50, runs=2)
  assert found[PROGRESS] == pytest.approx(3600 / 3700) == 1 - found[SAVING]
  # In 30 days there may be a checkpoint more or less, of 720.
  free = shares(dataclasses.replace(QUIET, blocking=0), runs=2)
  copy = JOB.pause(dataclasses.replace(QUIET, blocking=0))
  assert free[SAVING] == pytest.approx(copy / (3600 + copy), rel=1 / 720) and copy < 1


def expected_seconds(work, pause, restart, between):
  """Daly's mean seconds of an interval of work, its checkpoint and all restarts."""
  return between * math.exp(restart / between) * math.expm1((work + pause) / between)


@pytest.mark.parametrize('interval', [900, 2700, 9000])
@pytest.mark.parametrize('restart', [0, 30])
def test_time_is_that_of_daly_s_closed_form(interval, restart):
  """M e^(R/M) (e^((tau + C)/M) - 1) a interval, to four standard errors of the simulation.

  What the end of a run cuts off is half an interval of 150 days, 1/2880 at most.
  """
  assumed = dataclasses.replace(
    QUIET, failures=EVERY_10_HOURS, hardware=0, detect=0, restart=restart
  )
  found = shares(assumed, days=150, interval=interval)[PROGRESS]
  waits = 60 * restart + JOB.read(assumed)
  expected = interval / expected_seconds(interval, JOB.pause(assumed), waits, 10 * HOUR)
  error = 4 * found.std(ddof=1) / math.sqrt(len(found)) + interval / 2 / (150 * DAY)
  assert abs(found.mean() - expected) < error < 0.02


@pytest.mark.parametrize('seconds', [10, 100])
def test_the_best_interval_is_young_s_and_daly_s_where_they_hold(seconds):
  """Exponential failures and C well below M: within a tenth, with its own interval narrower."""
  job = dataclasses.replace(JOB, piece=0.122e9 * seconds)
  assumed = dataclasses.replace(QUIET, failures=EVERY_10_HOURS, hardware=0)

  def goodput(interval):
    return shares(assumed, job, interval=interval, runs=20)[PROGRESS]

  found = best_interval(job, assumed, goodput)
  assert found.young == pytest.approx(math.sqrt(2 * seconds * 10 * HOUR))
  assert found.young == young(seconds, 10 * HOUR) and found.daly == daly(seconds, 10 * HOUR)
  for formula in (found.young, found.daly):
    assert found.best == pytest.approx(formula, rel=0.1)
  assert found.low < found.best < found.high < 1.2 * found.low


def test_daly_s_formula_is_the_optimum_of_his_closed_form():
  """To the 1% that he states for C up to a half of M (numerically, on a fine grid)."""
  for pause in (0.001, 0.05, 0.5):
    grid = np.geomspace(0.001, 10, 3000)
    times = [expected_seconds(tau, pause, 0.1, 1.0) / tau for tau in grid]
    least = min(times)
    mine = daly(pause, 1.0)
    assert expected_seconds(mine, pause, 0.1, 1.0) / mine == pytest.approx(least, rel=2e-3)
  assert daly(3.0, 1.0) == 1.0


def test_more_spares_and_fewer_failures_are_never_worse():
  """All runs meet the same failures, so that this holds run by run but for what spares shift."""
  assumed = dataclasses.replace(Assumptions(), failures=2 * EVERY_10_HOURS)
  by_spares = [shares(assumed, spares=n, runs=6)[PROGRESS] for n in (0, 1, 2, 4, 8, 16)]
  means = [each.mean() for each in by_spares]
  assert means == sorted(means) and means[-1] > 3 * means[0]
  rates = [shares(assumed.times(failures=by), runs=6)[PROGRESS].mean() for by in (2, 1, 0.5, 0)]
  assert rates == sorted(rates)
  enough = shares(assumed, spares=1000)
  assert enough[WAITING].max() == 0


def test_a_machine_without_a_spare_is_waited_for_until_it_is_repaired():
  """Failures that stop nothing while the job waits: one repair of R hours for every M + R."""
  assumed = dataclasses.replace(QUIET, failures=EVERY_10_HOURS, hardware=1, detect=0, restart=0)
  assumed = dataclasses.replace(assumed, repair=10)
  found = shares(assumed, days=150, spares=0, interval=100)[WAITING]
  error = 4 * found.std(ddof=1) / math.sqrt(len(found))
  # Reading takes 100 s, in which the job may fail again: 0.3% of M.
  assert abs(found.mean() - 0.5) < error + 0.003 < 0.05


def test_replicas_that_can_leave_lose_no_work_and_wait_for_no_spare():
  assumed = dataclasses.replace(QUIET, failures=EVERY_10_HOURS, repair=10, regroup=1)
  plain, elastic = (shares(assumed, REPLICAS, elastic=each, spares=0) for each in (False, True))
  assert elastic[WAITING].max() == 0 and plain[WAITING].mean() > 0.2
  assert elastic[AGAIN].mean() < 0.01 * plain[AGAIN].mean()
  # 78% of failures take one of 16 replicas for 10 hours: Poisson, 0.78 of them at a time.
  assert elastic[FEWER].mean() == pytest.approx(0.78 / 16, rel=0.15)
  one = dataclasses.replace(REPLICAS, separate=1)
  for cause, each in shares(assumed, one, elastic=True, spares=0).items():
    assert np.array_equal(each, plain[cause]), cause


def test_slow_machines_stalls_and_planned_stops_take_what_they_are_said_to():
  slow = dataclasses.replace(QUIET, slow=EVERY_10_HOURS / 100, slowdown=2, find=1e5)
  assert shares(slow, days=150)[SLOW].mean() > 0.3  # half of all speed once there is one
  found = shares(slow.times(find=1e-5), days=150)  # found in an hour, of a thousand
  assert found[SLOW].mean() == pytest.approx((0.5 * HOUR + 700 + 100) / (1000 * HOUR), rel=0.2)
  stalls = shares(dataclasses.replace(QUIET, stalls=4, stall=30), days=150)[STALLS]
  assert stalls.mean() == pytest.approx(2 / (24 + 2), rel=0.05)
  stops = shares(dataclasses.replace(QUIET, planned=2, restart=30), days=150)[PLANNED]
  a_stop = JOB.write(QUIET) + 30 * 60 + JOB.read(QUIET)
  assert stops.mean() == pytest.approx(2 * a_stop / DAY, rel=0.05)


def test_failures_in_clusters_cost_less_than_as_many_at_random():
  random = dataclasses.replace(QUIET, failures=EVERY_10_HOURS, hardware=0)
  clusters = dataclasses.replace(random, shape=0.5)
  one, other = (shares(each, days=100) for each in (random, clusters))
  assert other[AGAIN].mean() < 0.9 * one[AGAIN].mean()


def test_a_seed_gives_the_same_runs_and_another_one_others():
  one, same, other = (shares(Assumptions(), seed=seed, days=5, runs=3) for seed in (1, 1, 2))
  assert np.array_equal(one[RESTART], same[RESTART])
  assert not np.array_equal(one[RESTART], other[RESTART])


def test_an_estimate_is_student_s_interval():
  found = Estimate.of(np.array([1.0, 2.0, 3.0, 4.0]))
  # t of 3 degrees of freedom at 97.5% is 3.182, the standard error sqrt(5/3) / 2.
  assert (found.mean, found.high - found.mean) == (2.5, pytest.approx(3.182 * 0.6455, rel=1e-3))
