"""Experiments by the binary: arms trained and judged, correlated, and wrong configurations."""

import json

import pytest

from tests import binaries

CONFIG = """
import pathlib

from ml_collections import ConfigDict

from tests import tiny

def get_config():
  runs = pathlib.Path({runs!r})
  rates = {{'a': 1e-4, 'b': 3e-4, 'c': 1e-3, 'd': 3e-3}}
  arms = {{
    name: tiny.video(runs, optimizer__learning_rate=rate, train__steps=4, sample__steps=2)
    for name, rate in rates.items()
  }}
  return ConfigDict({{'arms': arms, 'seeds': (0,), 'samples': 27}})
"""

SAMPLED = """
from ml_collections import ConfigDict

def get_config():
  arms = {
    f'steps_{steps}': {'of': 'digits/few_steps', 'changes': {'sample': {'steps': steps}}}
    for steps in (1, 4)
  }
  more = {'reference': {'steps': 4}, 'evaluate': {'steps_1': {'samples': 54}}}
  return ConfigDict({'arms': arms, 'seeds': (0,), 'samples': 27, **more})
"""


@pytest.mark.slow
def test_an_experiment_is_run_goes_on_and_is_correlated(tiny_runs, tmp_path):
  config, workdir = tmp_path / 'experiment.py', tmp_path / 'runs'
  config.write_text(CONFIG.format(runs=str(tiny_runs)))
  arguments = ['run', f'--config={config}', f'--workdir={workdir}']
  done = binaries.finish('scaling', *arguments)
  assert done.stdout == f'{workdir}/sweep.jsonl\n', done.stderr
  written = (workdir / 'sweep.jsonl').read_text()
  rows = [json.loads(line) for line in written.splitlines()]
  assert [row['arm'] for row in rows] == ['a', 'b', 'c', 'd']
  assert all(0 <= row['scores']['all'] <= 1 and row['scores']['samples'] == 27 for row in rows)
  assert binaries.run('scaling', *arguments).returncode == 0
  assert (workdir / 'sweep.jsonl').read_text() == written
  done = binaries.finish('scaling', 'correlate', f'--workdir={workdir}', '--score=diversity')
  assert 'rank correlation' in done.stdout, done.stderr
  assert done.stdout.endswith(f'{workdir}/predictor.json\n')


@pytest.mark.slow
def test_samplers_of_one_model_are_arms_and_near_to_a_reference_as_they_are(tmp_path):
  config, workdir = tmp_path / 'sampled.py', tmp_path / 'runs'
  config.write_text(SAMPLED)
  done = binaries.finish('scaling', 'run', f'--config={config}', f'--workdir={workdir}')
  assert done.stdout == f'{workdir}/sweep.jsonl\n', done.stderr
  rows = [json.loads(line) for line in (workdir / 'sweep.jsonl').read_text().splitlines()]
  one, four = (row['scores'] for row in rows)
  assert four['psnr'] == pytest.approx(78.1, abs=0.1)  # itself: 255^2 over the floor of 1e-3
  assert one['psnr'] < 40 and one['all'] > 0.8 and 'all, real clips' in one
  assert (one['samples'], four['samples']) == (54, 33)  # one a caption at least, of 33
