"""The recipe that measures all of one GPU: what it runs, how long that may take, and its table."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from mgjax.core.errors import DataError
from mgjax.lab.benchmarks.report import describe_folder
from tests.binaries import succeeded
from tests.tiny import CHECKOUT

RECIPE = CHECKOUT / 'launch' / 'recipes' / 'gpu_matrix.sh'
MINUTES = 40
# Says how it was called; `--what=step` fails as a machine without memory does.
STAND_IN = """#!/usr/bin/env bash
if [[ $1 == -c || $* == *--table=* ]]; then exec {python} "$@"; fi
for argument; do
  if [[ $argument == --what=step ]]; then echo 'Traceback'; echo 'out of memory'; exit 1; fi
  if [[ $argument == --out=* ]]; then out=${{argument#--out=}}; fi
done
printf '%s\\n' "$*" >"$out.called"
cat "$REPORT" >"$out"
"""
NUMBERS = {'median': 2.0, 'min': 1.5, 'cpu': 1.0, 'tflops_per_second': 300.0, 'mfu': 0.303}
REPORT = {
  'what': 'attention',
  'device': 'NVIDIA H100 80GB HBM3',
  'devices': 1,
  'layers': 0,
  'layers_configured': 48,
  'peak_gib': 12.5,
  'latents': [1, 32, 96, 96, 16],
  'tokens_per_sample': 73_728,
  'dtype': 'bfloat16',
  'remat': 'full',
  'attention': 'auto',
  'exchange': 'auto',
  'programs': {'mgjax': {'forward': NUMBERS, 'forward_backward': NUMBERS}},
}


def run(out, environment, *flags):
  return subprocess.run(
    ['bash', RECIPE, out, *flags],
    capture_output=True,
    text=True,
    timeout=900,
    cwd=CHECKOUT,
    env={**os.environ, 'PYTHONPATH': str(CHECKOUT), 'JAX_PLATFORMS': 'cpu', **environment},
  )


def limits():
  return [int(each) for each in re.findall(r'^bench \w+ (\d+) ', RECIPE.read_text(), re.MULTILINE)]


def test_all_runs_together_may_take_no_more_than_the_promised_minutes():
  assert len(limits()) == 9
  assert sum(limits()) <= 60 * MINUTES


def test_one_run_that_fails_leaves_the_others_and_stands_in_the_table(tmp_path):
  (tmp_path / 'report.json').write_text(json.dumps(REPORT))
  (tmp_path / 'python').write_text(STAND_IN.format(python=shlex.quote(sys.executable)))
  (tmp_path / 'python').chmod(0o755)
  environment = {'PYTHON': str(tmp_path / 'python'), 'REPORT': str(tmp_path / 'report.json')}
  outcome = succeeded(run(tmp_path / 'out', environment, '--config.model.dtype=float32'))
  table = (tmp_path / 'out' / 'matrix.md').read_text()
  assert table in outcome.stdout
  assert table.count('failed: out of memory') == 2 and '03_step_long failed' in table
  assert '1 x NVIDIA H100 80GB HBM3' in table
  called = (tmp_path / 'out' / '01_attention_long.json.called').read_text()
  assert '--config=configs/bench/h200.py:73728' in called and '--baseline=jax.nn' in called
  assert called.split()[-2] == '--config.model.dtype=float32'
  rows = [line for line in table.splitlines() if line.startswith('| 0')]
  assert len(rows) == 2 * (len(limits()) - 2)
  # Assumed of an H100's kernels: 60% to 65% forward, 54% to 60% backward.
  assert '60% to 65%' in rows[0] and '48% to 53%' in rows[1] and '30.3%' in rows[0]
  # Forward in 1 / .303 of the time at the peak, both in 3 / .303, and 5 / 2 of the work backward.
  assert 'attention at 30.3% of the peak forward, 37.9% backward' in table


def test_a_folder_without_benchmarks_is_a_sentence(tmp_path):
  with pytest.raises(DataError, match=r'has no NAME\.json; give a folder'):
    describe_folder(tmp_path)


TINY = (
  '--config.model.dim=32',
  '--config.model.depth=2',
  '--config.model.heads=2',
  '--config.model.mlp_dim=64',
  '--config.model.positions=(4,4,4)',
  '--config.model.conditionings.text.length=8',
  '--config.buckets.video.frames=16',
  '--config.buckets.video.height=32',
  '--config.buckets.video.width=32',
  '--rounds=1',
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_rehearsal_on_a_cpu_fills_every_row(tmp_path):
  environment = {
    'PYTHON': sys.executable,
    **dict.fromkeys(('LONG', 'SHORT'), 'configs/bench/cpu.py'),
    'AUTOENCODER': 'configs/digits/autoencoder.py',
    'VIDEO': '1,8,32,32',
    'JAX_NUM_CPU_DEVICES': '1',  # one device, as on the GPU that this rehearses
  }
  outcome = run(tmp_path, environment, *TINY)
  table = pathlib.Path(tmp_path / 'matrix.md').read_text()
  named = set(re.findall(r'^\| (\d\d_\w+) ', table, re.MULTILINE))
  assert outcome.returncode == 0 and 'failed' not in table, table
  assert len(named) == len(limits()) == len(list(tmp_path.glob('*.json')))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wan_takes_the_place_of_the_30b_model(tmp_path):
  environment = {
    'PYTHON': sys.executable,
    'WAN': 'debug',
    'LARGE': 'debug',
    'STEPS': '2',
    'VIDEO': '1,5,32,32',
    'JAX_NUM_CPU_DEVICES': '1',
  }
  outcome = run(tmp_path, environment, '--latents=1,3,8,8,16', '--rounds=1')
  table = (tmp_path / 'matrix.md').read_text()
  assert outcome.returncode == 0 and 'failed' not in table, table
  assert len(set(re.findall(r'^\| (wan_\d_\w+) ', table, re.MULTILINE))) == 4
