"""Rehearsals of planned jobs: answers, what is published of large runs, and the command."""

import dataclasses
import json
import re

import pytest
from PIL import Image

import launch.rehearse
from configs.video import t2iv_768
from mgjax.core.errors import ConfigError
from mgjax.lab.planning.plan import make_plan
from mgjax.lab.planning.rehearsal.assumptions import Assumptions, Job
from mgjax.lab.planning.rehearsal.report import as_json, describe
from mgjax.lab.planning.rehearsal.simulation import PROGRESS, Scenario, simulate
from mgjax.lab.planning.rehearsal.study import CHANGED, count_scenarios, rehearse
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import make_workload
from tests import binaries


@pytest.fixture(scope='module')
def work():
  config = t2iv_768.get_config('30b')
  return make_workload(FlowRun.of(config), 'video_1x1_16s')


@pytest.fixture(scope='module')
def plan(work):
  return make_plan(work, 'h100:8x64')


def test_a_job_is_what_the_plan_says(work, plan):
  job = Job.of(plan)
  assert (job.chips, job.machine, job.replicas, job.separate) == (512, 8, 8, 8)
  # Parameters, two moments and the average in float32, in pieces over all but data.
  assert job.piece * 512 / 8 == pytest.approx(16 * work.count, rel=0.01)
  assert plan.chosen.time.fast.step < job.step < plan.chosen.time.slow.step
  assert job.between_failures(Assumptions()) == pytest.approx(86_400 * 1000 / 512 / 0.474)
  torus = Job.of(make_plan(work, 'v5p:8x8x8'))
  assert (torus.machine, torus.separate) == (64, 1)
  assert Job.of(make_plan(work, 'v5e:16x16')).machine == 256


def test_a_rehearsal_answers_everything_with_intervals(plan):
  told = []
  found = rehearse(Job.of(plan), Assumptions(), 14, runs=20, tell=told.append)
  assert told == list(range(1, count_scenarios(found.job, found.assumed, None) + 1))
  assert found.causes[PROGRESS] == found.goodput
  assert sum(each.mean for each in found.causes.values()) == pytest.approx(1)
  assert 0.9 < found.goodput.low < found.goodput.mean < found.goodput.high < 1
  assert found.recommended == found.spares > 0
  assert found.by_spares[0].mean < found.by_spares[found.recommended].mean
  assert set(found.changes) == set(CHANGED)
  half, twice = found.changes['failures']
  assert half.mean > 0 > twice.mean
  assert found.elastic_without_spares.low > 0
  text, numbers = describe(found, plan, 2.0), as_json(found, plan, 2.0)
  for word in ('goodput', 'Young', 'Daly', 'spare', 'elastic', 'chip-hours', 'sensitivity'):
    assert word in text
  assert all(f'{name} = ' in text for name in vars(Assumptions()))
  assert json.loads(json.dumps(numbers, allow_nan=False))['goodput']['mean'] == found.goodput.mean
  assert numbers['dollars'] == 2.0 * (512 + 8 * found.spares) * 14 * 24
  never = rehearse(Job.of(plan), Assumptions(failures=0), 2, runs=2, spares=1)
  assert 'none is needed' in describe(never, plan, 2.0)
  json.dumps(as_json(never, plan, 2.0), allow_nan=False)


def test_large_runs_lose_what_was_published_of_them():
  """Llama 3 kept more than 90% of 54 days on 16,384 H100 through 466 interruptions."""
  job = Job(16_384, 8, 1, 1, 20, 405.8e9 * 12 / 16_384)  # bfloat16 or float32 make no difference
  found = simulate(Scenario(job, Assumptions(), 54, 300, 100), 10, 0)[:, 0]
  assert 0.90 < found.mean() < 0.93
  assert 54 * job.chips / 1000 * Assumptions().failures == pytest.approx(419, rel=1e-3)
  assert 54 * Assumptions().planned == pytest.approx(47, rel=1e-3)
  # ByteRobust: 97% of three months on 9,600, with restarts of minutes: less than ours take.
  job = dataclasses.replace(job, chips=9600)
  better = dataclasses.replace(Assumptions(), detect=1, restart=2)
  one, other = (
    simulate(Scenario(job, each, 90, 300, 60), 6, 0)[:, 0].mean()
    for each in (Assumptions(), better)
  )
  assert one < 0.95 < other < 0.98


def test_an_assumption_out_of_range_is_refused():
  with pytest.raises(ConfigError, match=r'^slowdown = 0\.5; expected a finite number from 1'):
    Assumptions(slowdown=0.5)
  assert set(launch.rehearse._NAMES) == set(Assumptions.texts())


def test_the_command_prints_and_writes_a_picture_and_numbers(tmp_path):
  done = binaries.succeeded(
    binaries.run(
      'rehearse',
      '--config=configs/video/node.py',
      '--topology=h100:8',
      '--days=3',
      '--runs=3',
      '--assume=failures=50,blocking=1',
      '--spares=1',
      f'--out={tmp_path}',
      '--rows=32',
    )
  )
  assert re.search(r'^goodput +\d+\.\d% \(', done.stdout, re.MULTILINE)
  numbers = json.loads((tmp_path / 'rehearsal.json').read_text())
  assert numbers['assumed']['failures'] == 50 and numbers['spares'] == 1
  with Image.open(tmp_path / 'rehearsal.png') as picture:
    assert picture.size[0] > 800
