"""Two starts of one command: one runs, whichever is killed when, and nothing of the run is lost."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from mgjax.checkpoints.maintenance import list_checkpoints
from mgjax.checkpoints.workdir import open_checkpoints
from mgjax.core.errors import ConfigError
from mgjax.runtime.workdir_lock import LOCK, hold
from tests import tiny
from tests.end_to_end.test_kills import KILLED, finish, learn, learning, running, wait_until

STARTS = 50
STEPS = 40


def train(workdir, tmp_path, steps=STEPS):
  """The command of a run, which a scheduler may start twice."""
  path = tmp_path / 'config.py'
  path.write_text('from tests import tiny\n\nget_config = tiny.autoencoder\n')
  return [
    sys.executable, '-m', 'launch.train', f'--config={path}', f'--workdir={workdir}',
    f'--config.train.steps={steps}', '--config.train.save_every=2', '--config.train.keep=2',
    '--config.train.evaluate_every=0',
  ]  # fmt: skip


def start(command, log):
  with log.open('w') as file:
    return subprocess.Popen(command, cwd=tiny.CHECKOUT, stdout=file, stderr=file)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_starts_at_once_and_kills_at_any_moment(tmp_path):
  alone, workdir, chance = tmp_path / 'alone', tmp_path / 'run', random.Random(0)
  assert start(train(alone, tmp_path), tmp_path / 'log').wait() == 0
  began = time.monotonic()
  assert start(train(tmp_path / 'again', tmp_path), tmp_path / 'log').wait() == 0
  life = time.monotonic() - began
  counts = {'refused': 0, 'killed': 0, 'ended': 0, 'took over': 0, 'begun anew': 0}
  for number in range(STARTS):
    newest = max(open_checkpoints(workdir).steps(), default=0)
    logs = [tmp_path / f'log{index}' for index in range(2)]
    both = []
    for log in logs:
      both.append(start(train(workdir, tmp_path), log))
      time.sleep(chance.choice((0, 0, 0.05, 0.5)))
    moment = time.monotonic() + chance.uniform(0.2, 1.1) * life
    victim = chance.randrange(2)
    while time.monotonic() < moment and None in [process.poll() for process in both]:
      time.sleep(0.01)
    alive = [process for process in (both[victim], both[1 - victim]) if process.poll() is None]
    for process in alive[: chance.choice((1, 1, 2))]:
      process.kill()
    codes = [process.wait(timeout=600) for process in both]
    said = [log.read_text() for log in logs]
    assert set(codes) <= {0, 2, KILLED}, (codes, said)
    for code, text, other in zip(codes, said, reversed(both), strict=True):
      assert 'Traceback' not in text, text
      if code == 2:
        assert re.search(rf'is in use by process {other.pid} on ', text), text
      counts['refused'] += code == 2
      counts['killed'] += code == KILLED
      counts['ended'] += code == 0
      counts['took over'] += 'took over' in text
    # One trained at a time: its lines say so, and every checkpoint on disk is whole.
    rows = tiny.metrics(workdir) if (workdir / 'metrics.jsonl').exists() else []
    steps = [row['step'] for row in rows if 'loss' in row]
    assert steps == sorted(set(steps)), steps
    if (workdir / 'checkpoints').exists() and open_checkpoints(workdir).steps():
      assert not [seen for seen in list_checkpoints(open_checkpoints(workdir)) if seen.problem]
      assert max(open_checkpoints(workdir).steps()) >= newest
    else:
      assert newest == 0
    if 0 in codes:
      tiny.same_state(tiny.final_state(workdir), tiny.final_state(alone))
      assert tiny.losses(workdir) == tiny.losses(alone)
      workdir.rename(tmp_path / f'ended{number}')
      counts['begun anew'] += 1
    print(number, codes, counts, flush=True)
  assert counts['refused'] > STARTS / 4 and counts['killed'] and counts['took over']
  while start(train(workdir, tmp_path), tmp_path / 'log').wait():
    pass
  tiny.same_state(tiny.final_state(workdir), tiny.final_state(alone))
  assert not (workdir / LOCK).exists()


def test_a_run_that_was_taken_over_while_frozen_writes_no_checkpoint(tmp_path, monkeypatch):
  workdir, rows = tmp_path / 'run', []
  workdir.mkdir()

  def note(*arguments):
    rows.append(arguments)
    if len(rows) == 5:  # another process, to which this one seemed dead
      os.replace(_other(tmp_path), workdir / LOCK)

  monkeypatch.setattr('mgjax.training.log_window.LogWindow.add', note)
  with pytest.raises(ConfigError, match='not held by this process any more'):
    learn(workdir, 12, 0.0)
  assert open_checkpoints(workdir).steps() == [2, 4]
  assert (workdir / LOCK).read_text() == 'of another process'


def _other(tmp_path):
  path = tmp_path / 'other'
  path.write_text('of another process')
  return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_job_of_two_processes_is_refused_and_the_first_goes_on(tmp_path):
  workdir = tmp_path / 'run'
  with learning(workdir, steps=100, pause=0.1, processes=2) as (first, log):
    wait_until(lambda: (workdir / 'metrics.jsonl').exists(), first)
    with running(tmp_path / 'second', _second(workdir), 2, **_small()) as (second, other):
      codes = [process.wait(timeout=120) for process in second]
      assert all(codes), other.read_text()
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


def _second(workdir):
  program = 'from tests.end_to_end.test_kills import learn as f; import sys; f(*sys.argv[1:])'
  return [sys.executable, '-c', program, str(workdir), '100', '0.1']


def _small():
  return {
    'JAX_NUM_CPU_DEVICES': '4',
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
  }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_ctrl_c_while_compiling_ends_with_130(tmp_path):
  environment = {**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  codes = []
  for number in range(6):
    log = tmp_path / f'log{number}'
    with log.open('w') as file:
      process = subprocess.Popen(
        train(tmp_path / 'run', tmp_path), cwd=tiny.CHECKOUT, env=environment, stdout=file,
        stderr=file,
      )  # fmt: skip
    time.sleep(4 + number)
    for _ in range(2):
      process.send_signal(signal.SIGINT)
      time.sleep(0.3)
    codes.append(process.wait(timeout=60))
    if 'stopping after this step' not in log.read_text():  # it had not begun, or it had ended
      codes.pop()
  assert len(codes) > 2 and set(codes) == {130}, codes
