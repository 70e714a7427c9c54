"""Two real processes train, save, stop, die and resume together, and none waits for ever."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mgjax.core.tree import named_leaves
from mgjax.parallel.distributed import LOST
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.monitoring.workdir_lock import LOCK, hold
from tests import tiny
from tests.end_to_end.test_kills import (
  HEARTBEAT,
  SHORT,
  Run,
  finish,
  learn,
  learn_command,
  learning,
  running,
  wait_until,
)

CONFIG = """
from tests import tiny

def get_config():
  config = tiny.autoencoder(rules='fsdp_tp_cp', train__save_every=4)
  config.mesh = {mesh}
  return config
"""
BINARY = """
import sys
from launch.command_line import run
from tests.end_to_end.test_kills import learn
workdir = sys.argv.pop()
run(lambda arguments: learn(workdir, 10_000, 0.05))
"""


def training(workdir, mesh, log, *more):
  """The tiny autoencoder, trained in two processes."""
  config = workdir.with_name('config.py')
  config.write_text(CONFIG.format(mesh=mesh))
  return two_processes(log, f'--config={config}', f'--workdir={workdir}', *more)


@contextlib.contextmanager
def two_processes(log, *flags):
  """The recipe that starts launch.train twice; no process outlives the block."""
  command = ['bash', 'launch/recipes/local.sh', '2', *flags]
  environment = {**os.environ, **SHORT, 'JAX_NUM_CPU_DEVICES': '2', 'PYTHON': sys.executable}
  with log.open('w') as file:
    recipe = subprocess.Popen(command, cwd=tiny.CHECKOUT, stderr=file, stdout=file, env=environment)
    try:
      yield recipe
    finally:
      for process in children(recipe.pid):
        os.kill(process, signal.SIGKILL)
      recipe.kill()
      recipe.wait()


def children(parent, variable=''):
  """The processes that another one started with a variable in their environment."""
  found = []
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      status = (folder / 'stat').read_text().rpartition(')')[2].split()
      variables = (folder / 'environ').read_text().split('\0')
    except OSError:
      continue  # it ended while we looked
    if int(status[1]) == parent and (not variable or variable in variables):
      found.append(int(folder.name))
  return found


def checkpoints(workdir):
  return sorted(int(p.name) for p in workdir.glob('checkpoints/*') if p.name.isdecimal())


def reach(step, workdir, processes):
  path = workdir / 'metrics.jsonl'
  wait_until(lambda: path.exists() and f'"step": {step},' in path.read_text(), processes)


@pytest.mark.slow
@pytest.mark.timeout(900)  # both starts compile in both processes
def test_two_processes_that_died_end_as_one_undisturbed(tiny_runs, tmp_path):
  workdir, log, alone = tmp_path / 'run', tmp_path / 'log', tiny_runs / 'autoencoder'
  # Each process reads half of the rows and holds half of the parameters.
  with training(workdir, {'fsdp': 4}, log) as recipe:
    reach(5, workdir, [recipe])
    wait_until(lambda: checkpoints(workdir) == [4], [recipe])
    (process,) = children(recipe.pid, 'JAX_PROCESS_ID=1')
    os.kill(process, signal.SIGKILL)
    assert recipe.wait(timeout=120) == 128 + signal.SIGKILL, log.read_text()
  assert checkpoints(workdir) == [4]
  # Now both processes read all rows, and the pieces of the parameters lie elsewhere.
  with training(workdir, {'context': 4}, log) as recipe:
    assert recipe.wait(timeout=240) == 0, log.read_text()
  assert checkpoints(workdir) == [4, 8]

  found, expected = tiny.losses(workdir), tiny.losses(alone)
  assert found.keys() == expected.keys()
  for step, numbers in found.items():
    # Validation comes when it came there, and is the same in between.
    for name, value in numbers.items():
      assert value == pytest.approx(expected[step][name], rel=1e-5), (step, name)
  (average, meta), (other, other_meta) = load_params(workdir), load_params(alone)
  other = named_leaves(other)
  for name, leaf in named_leaves(average).items():
    if name.endswith('_key/bias'):
      continue  # softmax does not see it: its gradient is rounding, which AdamW makes steps of
    np.testing.assert_allclose(leaf, other[name], rtol=1e-4, atol=1e-5, err_msg=name)
  one, two = (each['notes']['latents']['std'] for each in (meta, other_meta))
  np.testing.assert_allclose(one, two, rtol=1e-4)
  assert list(workdir.rglob('reconstruction.png'))


@pytest.mark.slow
def test_a_step_that_ended_two_processes_is_kept_whole_and_taken_again_by_two(tmp_path):
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  too_large = ('--config.optimizer.learning_rate=1e30', '--config.optimizer.warmup=0')
  with training(workdir, {'fsdp': 4}, log, *too_large) as recipe:
    assert recipe.wait(timeout=240) == 4, log.read_text()
  (folder,) = (workdir / 'faults').iterdir()
  assert log.read_text().count(f'--replay={folder}') == 2  # both say so
  assert len(list(folder.glob('batch-*'))) == 2
  with two_processes(log, f'--replay={folder}') as recipe:
    assert recipe.wait(timeout=240) == 0, log.read_text()
  said = log.read_text()
  assert said.count('loss:') == said.count('the first of them: ') == 1  # one of them prints
  assert said.count("{'index': ") == tiny.AUTOENCODER['buckets.video.batch_size']


def test_a_signal_to_one_of_two_ends_both_at_one_step_from_which_a_single_one_goes_on(tmp_path):
  run = Run(tmp_path / 'run')
  begun = lambda: all((run.workdir / f'ready{index}').exists() for index in range(2))  # noqa: E731
  for number, step in ((signal.SIGINT, 5), (signal.SIGTERM, 0)):  # also before the first step
    newest = run.newest()
    with learning(run.workdir, 10_000, 0.05, processes=2) as (processes, log):
      reach(step, run.workdir, processes) if step else wait_until(begun, processes)
      processes[step > 0].send_signal(number)
      finish(processes)
      assert 'stopped by a signal' in log.read_text()
    # However many steps they made until both had heard: the last one is saved, and none after it.
    assert max(tiny.losses(run.workdir), default=0) == run.newest() >= max(newest, step)
  learn(run.workdir, 10_000, 0.0, stop_at=run.newest() + 2)  # with all eight devices
  assert sorted(tiny.losses(run.workdir)) == list(range(1, run.newest() + 1))


@pytest.mark.slow  # test_watchdog.py has a single one
def test_a_stuck_process_and_those_that_wait_for_it_end_by_their_watchdogs(tmp_path):
  workdir, most = tmp_path / 'run', 3  # seconds that a step may take
  with learning(workdir, more=['', 5, most], processes=2) as (processes, log):
    reach(4, workdir, processes)
    codes, said = {process.wait(timeout=60) for process in processes}, log.read_text()
  # Whoever is first ends with 124. The other one has its own watchdog, unless it learns of the
  # first one's end before.
  assert 124 in codes and 0 not in codes, said
  assert 'watchdog: the phase step has taken' in said or 'the phase compile has' in said
  assert 'most recent call first' in said


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize('index', [0, 1])
def test_a_process_does_not_outlive_another_one_for_long_and_says_why(tmp_path, number, index):
  workdir = tmp_path / 'run'
  command = [sys.executable, '-c', BINARY, str(workdir)]
  with running(workdir, command, 2, JAX_NUM_CPU_DEVICES='4', **SHORT) as (processes, log):
    reach(5, workdir, processes)
    processes[index].send_signal(number)
    began = time.monotonic()
    code = processes[1 - index].wait(timeout=10 * HEARTBEAT)
    lasted = time.monotonic() - began
    said = log.read_text()
  print(f'{number.name} of process {index}: the other one ended with {code} after {lasted:.1f} s')
  # Either an exchange fails at once, which is told in our words, or it waits for ever, until JAX
  # ends the process by the heartbeat, in its own.
  assert code in (1, -signal.SIGABRT), said
  assert (LOST in said and 'Traceback' in said) if code == 1 else 'another task died' in said, said
  assert lasted < 2 * HEARTBEAT  # half of it on a machine that is not busy


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_job_of_two_processes_is_refused_and_the_first_goes_on(tmp_path):
  workdir = tmp_path / 'run'
  with learning(workdir, steps=100, pause=0.1, processes=2) as (first, log):
    wait_until(lambda: (workdir / 'metrics.jsonl').exists(), first)
    second, few = learn_command(workdir, 100, 0.1), SHORT | {'JAX_NUM_CPU_DEVICES': '4'}
    with running(tmp_path / 'second', second, 2, tmp_path / 'other', **few) as (others, other):
      assert all(process.wait(timeout=120) for process in others), other.read_text()
      assert f'is in use by process {first[0].pid} on ' in other.read_text()
    assert [process.poll() for process in first] == [None, None], log.read_text()
    finish(first)
  assert sorted(tiny.losses(workdir)) == list(range(1, 101))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_look_for_longer_than_their_network_waits_whether_a_lock_is_dead(tmp_path):
  workdir = tmp_path / 'run'
  with hold(workdir):
    text = (workdir / LOCK).read_text()
  workdir.mkdir()
  (workdir / LOCK).write_text(re.sub('host=.*', 'host=elsewhere', text))
  began = time.monotonic()
  with learning(workdir, steps=6, processes=2) as (processes, log):
    finish(processes)
  assert time.monotonic() - began > 60  # gloo waits for 30 s
  assert 'looking for up to 60 s' in log.read_text() and 'took over' in log.read_text()
