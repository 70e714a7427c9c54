"""Runs that lose half of their devices, and get them back, learn from the same data the same."""

import os
import pathlib
import subprocess
import sys

import pytest

from mgjax.api import train
from mgjax.runtime.goodput import read_lines
from tests import tiny
from tests.end_to_end.test_kills import finish, learn, learning

CHILD = 'from tests.end_to_end.test_other_devices import child as f; import sys; f(*sys.argv[1:])'
SAME = 1e-5  # of a loss: what the order of sums over devices makes of it, over twenty steps
VIDEO = {'train__steps': 20, 'train__save_every': 100, 'train__evaluate_every': 0}


def child(runs, workdir, stop_at):
  train(tiny.video(pathlib.Path(runs), **VIDEO), workdir, stop_at=int(stop_at))


def differences(one, other):
  """How far the losses of each step are apart, relatively; both have the same steps."""
  one, other = (tiny.losses(workdir) for workdir in (one, other))
  assert one.keys() == other.keys()
  return {step: abs(one[step]['loss'] / other[step]['loss'] - 1) for step in one}


def begun(workdir):
  lines = [line for line in read_lines(workdir / 'goodput.jsonl') if 'from' in line]
  return sorted({line['from'] for line in lines})


def test_eight_devices_then_four_then_eight_see_the_same_data(tmp_path):
  straight, run = tmp_path / 'straight', tmp_path / 'run'
  straight.mkdir()
  learn(straight, 12, 0.0)
  run.mkdir()
  learn(run, 12, 0.0, stop_at=4)
  with learning(run, more=[8], JAX_NUM_CPU_DEVICES='4') as (processes, _):
    finish(processes)
  learn(run, 12, 0.0)
  assert begun(run) == [0, 4, 8]
  apart = differences(run, straight)
  assert list(apart) == list(range(1, 13)) and max(apart.values()) < SAME


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_on_eight_devices_then_four_then_eight(tiny_runs, tmp_path):
  config = tiny.video(tiny_runs, **VIDEO)
  straight, run = tmp_path / 'straight', tmp_path / 'run'
  train(config, straight)
  train(config, run, stop_at=7)
  found = subprocess.run(
    [sys.executable, '-c', CHILD, str(tiny_runs), str(run), '14'],
    cwd=tiny.CHECKOUT,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '4'},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  train(config, run)
  assert begun(run) == [0, 7, 14]
  apart = differences(run, straight)
  print({step: f'{value:.1e}' for step, value in apart.items()})
  assert list(apart) == list(range(1, 21)) and max(apart.values()) < SAME
  assert max(apart[step] for step in range(1, 8)) == 0
