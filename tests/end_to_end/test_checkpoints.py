"""The checkpoints of a run, by the binary: what it says, what it ends with, what it leaves."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from mgjax.core.tree import named_leaves
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Keep
from mgjax.training.checkpoints.workdir import open_checkpoints
from mgjax.training.monitoring.workdir_lock import hold
from tests import binaries, tiny
from tests.training.checkpoints.test_manager import damage, make_state


def test_what_is_damaged_is_told_and_pruning_keeps_what_is_good(tmp_path):
  workdir, losses = tmp_path / 'run', {1: 0.5, 2: 0.25, 10: 0.3, 11: None}
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps({'component': 'video', 'train': {'keep': 9}}))
  with Checkpoints(workdir / 'checkpoints', Keep(9)) as checkpoints:
    for step, loss in losses.items():
      checkpoints.save(make_state(step), {}, loss)
  damage(workdir / 'checkpoints', 11, make_state(11).average['block']['kernel'])

  verified = binaries.run('weights', 'verify', f'--workdir={workdir}')
  assert verified.returncode == 5
  *good, bad = verified.stdout.splitlines()
  assert [line.split() for line in good] == [['1', 'good'], ['2', 'good'], ['10', 'good']]
  assert re.fullmatch(r' +11  leaf average/block/kernel has fingerprint 0x\w+, expected .*', bad)
  assert re.search(r'^weights\.py: 1 damaged in .*: step 11; a run', verified.stderr)
  assert 'Traceback' not in verified.stderr

  listed = binaries.run('weights', 'list', f'--workdir={workdir}')
  assert listed.returncode == 0  # at a glance, a flipped bit is not seen
  head, *lines = listed.stdout.splitlines()
  assert head.split() == ['step', 'written', 'MiB', 'validation', 'loss']
  assert [(line.split()[0], line.split()[-1]) for line in lines] == [
    ('1', '0.5'),
    ('2', '0.25'),
    ('10', '0.3'),
    ('11', '-'),
  ]
  assert {len(line) for line in lines} == {len(head)}

  with hold(workdir):  # as a run that goes on does
    arguments = (f'--workdir={workdir}', '--keep=latest=1')
    refused = binaries.run('weights', 'prune', *arguments)
    assert refused.returncode == 2
    assert re.search(r'^weights\.py: .* is in use by process \d+ on ', refused.stderr)
    assert binaries.run('weights', 'prune', *arguments, '--dry_run').returncode == 0
    assert binaries.run('weights', 'list', f'--workdir={workdir}').returncode == 0
  assert open_checkpoints(workdir).steps() == [1, 2, 10, 11]

  pruned = binaries.finish('weights', 'prune', f'--workdir={workdir}', '--keep=latest=1,best=1')
  assert '       10  stays, verified\n        1  removed\n' in pruned.stdout
  assert open_checkpoints(workdir).steps() == [2, 10, 11]


@pytest.fixture
def config(tmp_path):
  """The flag with the configuration that the tiny autoencoder was trained with."""
  path = tmp_path / 'config.py'
  path.write_text('from tests import tiny\n\nget_config = tiny.autoencoder\n')
  return f'--config={path}'


@pytest.mark.slow
def test_a_run_goes_on_from_the_newest_good_one_or_ends_with_5(tiny_runs, config, tmp_path):
  workdir, alone = tmp_path / 'run', tiny_runs / 'autoencoder'
  shutil.copytree(alone, workdir)
  place = workdir / 'checkpoints'
  for step in (8, 6):
    files = (place / str(step) / 'params').rglob('d/*')
    file = max(files, key=lambda path: path.stat().st_size)
    numbers = np.frombuffer(file.read_bytes(), np.uint8).copy()
    numbers[::1000] ^= 1
    file.write_bytes(numbers.tobytes())
  went_on = binaries.finish('train', config, f'--workdir={workdir}')
  assert 'checkpoint of step 8' in went_on.stderr and 'checkpoint of step 6' in went_on.stderr
  assert sorted(p.name for p in place.iterdir()) == ['3', '6', '6.corrupt', '8', '8.corrupt']
  tiny.same_state(tiny.final_state(workdir), tiny.final_state(alone))

  for step in (3, 6, 8):
    shutil.rmtree(place / str(step) / 'params')
  ended = binaries.run('train', config, f'--workdir={workdir}')
  assert ended.returncode == 5
  assert re.search(
    r'train\.py: no checkpoint in .* is good: 3 damaged .*, 2 set aside', ended.stderr
  )
  assert 'Traceback' not in ended.stderr


@pytest.mark.slow
def test_averages_and_exports(tiny_runs, config, tmp_path):
  first = tiny_runs / 'autoencoder'
  runs = f'--input={first},{first}@6,{first}@3'
  for more in ([], ['--shares=4,2,1'], ['--shares=greedy']):
    workdir = tmp_path / f'averaged{"".join(more)}'
    averaged = binaries.finish('weights', 'average', runs, f'--workdir={workdir}', *more)
    lines = averaged.stdout.splitlines()
    assert len({len(line) for line in lines}) == 1
    found = json.loads((workdir / 'average.json').read_text())
    assert list(found['steps'].values()) == [8, 6, 3]
    assert lines[-1].split() == ['average', f'{found["loss"]:.6f}', '1.000']
  assert found['loss'] <= min(found['losses'].values())

  out = tmp_path / 'out.safetensors'
  planned = binaries.finish(
    'weights', 'prune', f'--workdir={first}', '--keep=latest=1', '--dry_run'
  )
  assert '        6  would go\n' in planned.stdout
  assert open_checkpoints(first).steps() == [3, 6, 8]
  binaries.finish('weights', 'export', f'--workdir={first}', '--step=6', f'--out={out}')
  tensors = load_file(out)
  for name, leaf in named_leaves(load_params(first, step=6)[0]).items():
    np.testing.assert_array_equal(tensors[name], leaf)


@pytest.mark.slow
@pytest.mark.parametrize('room', [24, 40, 64])  # kB that a file may have
def test_a_full_disk_ends_with_one_sentence(config, room, tmp_path):
  log = tmp_path / 'log'
  words = [sys.executable, '-m', 'launch.train', config, f'--workdir={tmp_path / "run"}']
  command = f'ulimit -f {room}; exec {shlex.join(words)}'
  with log.open('wb') as file:
    process = subprocess.Popen(
      ['bash', '-c', command], cwd=tiny.CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    file.write(process.communicate(timeout=280)[0])
  said = log.read_text()
  assert process.returncode == 5, said
  assert 'Traceback' not in said and len(said.splitlines()) < 20, said
  assert re.search(r'^train\.py: cannot write a checkpoint to .* is the disk full', said, re.M)
