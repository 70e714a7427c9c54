"""One of two processes is stopped, stuck or asked to stop: the other one does not wait for ever."""

import signal
import sys
import time

import pytest

from mgjax.parallel.distributed import LOST
from tests import tiny
from tests.end_to_end.test_kills import HEARTBEAT, SHORT, Run, finish, learning, running, wait_until

STEP = 3  # seconds that a step may take
BINARY = """
import sys
from launch.command_line import run
from tests.end_to_end.test_kills import learn
workdir = sys.argv.pop()
run(lambda arguments: learn(workdir, 10_000, 0.05))
"""


def reach(step, workdir, processes):
  path = workdir / 'metrics.jsonl'
  wait_until(lambda: path.exists() and f'"step": {step},' in path.read_text(), processes)


@pytest.mark.slow  # test_watchdog.py has a single one
def test_a_stuck_process_and_those_that_wait_for_it_end_by_their_watchdogs(tmp_path):
  workdir = tmp_path / 'run'
  with learning(workdir, more=['', 5, STEP], processes=2) as (processes, log):
    reach(4, workdir, processes)
    began = time.monotonic()
    codes = {process.wait(timeout=60) for process in processes}
    lasted, said = time.monotonic() - began, log.read_text()
  # Whoever is first ends with 124. The other one has its own watchdog, unless it learns of the
  # first one's end before.
  assert 124 in codes and 0 not in codes, said
  assert 'watchdog: the phase step has taken' in said or 'the phase compile has' in said
  assert 'most recent call first' in said
  print(f'ended with {codes} {lasted:.1f} s after the last step')


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize('index', [0, 1])
def test_a_process_does_not_outlive_another_one_for_long(tmp_path, number, index):
  workdir = tmp_path / 'run'
  with learning(workdir, 10_000, 0.05, processes=2) as (processes, log):
    reach(5, workdir, processes)
    processes[index].send_signal(number)
    began = time.monotonic()
    code = processes[1 - index].wait(timeout=10 * HEARTBEAT)
    lasted = time.monotonic() - began
    said = log.read_text()
  assert code != 0
  assert 'another task died' in said or 'reset by peer' in said or 'another process ended' in said
  print(f'{number.name} of process {index}: the other one ended with {code} after {lasted:.1f} s')
  assert lasted < 2 * HEARTBEAT  # half of it on a machine that is not busy


@pytest.mark.slow
def test_a_binary_whose_peer_died_says_so_and_what_to_do(tmp_path):
  workdir = tmp_path / 'run'
  command = [sys.executable, '-c', BINARY, str(workdir)]
  with running(workdir, command, 2, JAX_NUM_CPU_DEVICES='1', **SHORT) as (processes, log):
    reach(5, workdir, processes)
    processes[1].kill()
    code = processes[0].wait(timeout=10 * HEARTBEAT)
    said = log.read_text()
  # Either an exchange fails at once, which is told in our words, or it waits for ever, until JAX
  # ends the process by the heartbeat, in its own.
  told = LOST in said and 'Traceback' in said if code == 1 else 'another task died' in said
  assert told and code in (1, -signal.SIGABRT), (code, said)


def test_a_signal_as_the_steps_begin_ends_both_at_the_same_one(tmp_path):
  workdir = tmp_path / 'run'
  with learning(workdir, 10_000, 0.05, processes=2) as (processes, log):
    wait_until(lambda: all((workdir / f'ready{i}').exists() for i in range(2)), processes)
    processes[1].send_signal(signal.SIGTERM)
    finish(processes)
    assert 'stopped by a signal' in log.read_text()
  # However many steps they made until both had heard: the last one is saved, and none after it.
  assert max(tiny.losses(workdir), default=0) == Run(workdir).newest()
