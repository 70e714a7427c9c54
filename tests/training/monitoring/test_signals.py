"""A signal is heard at once, also while the main thread compiles; the second Ctrl-C ends all."""

import concurrent.futures
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mgjax.training.monitoring.signals import stop_signal
from tests import tiny

# Like a compilation, this does not come back to Python for a minute, so that no handler runs.
COMPILING = """
import hashlib, logging, sys
from mgjax.training.monitoring import signals
from mgjax.training.monitoring.phases import Phases
from mgjax.training.monitoring.watchdog import PhaseLimits, watched

logging.basicConfig(format='%(message)s')
signals.GRACE = 0.2
phases = Phases()
limits = PhaseLimits(stop=float(sys.argv[1]))
with watched(phases, limits), signals.stop_signal(phases.stop), phases.during('compile'):
  print('compiling', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
"""


@pytest.mark.parametrize(
  ('numbers', 'limit', 'code', 'said'),
  [
    ([signal.SIGTERM], 0.2, 0, 'nothing is unsaved, so it ends now, in the phase compile'),
    ([signal.SIGINT, signal.SIGINT], 0, 130, 'Ctrl-C again quits at once'),
  ],
)
def test_a_signal_that_comes_while_compiling_is_heard(numbers, limit, code, said):
  command = [sys.executable, '-c', COMPILING, str(limit)]
  options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  with subprocess.Popen(command, cwd=tiny.CHECKOUT, **options) as process:
    try:
      assert process.stdout.readline() == 'compiling\n'
      time.sleep(0.1)
      for number in numbers:
        process.send_signal(number)
        time.sleep(0.3)
      heard = process.communicate(timeout=40)[1]
    finally:
      process.kill()
  assert process.returncode == code, heard
  assert 'stopping after this step' in heard and said in heard


def test_nothing_is_left_of_it(signals_as_in_a_new_process):
  def handlers():
    return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

  before, threads = handlers(), threading.active_count()
  with pytest.raises(KeyError), stop_signal() as stopped:
    assert not stopped() and handlers() != before and threading.active_count() == threads + 1
    raise KeyError
  assert handlers() == before and threading.active_count() == threads
  wakeup = signal.set_wakeup_fd(-1)
  signal.set_wakeup_fd(wakeup)
  assert wakeup == -1


def test_a_second_ctrl_c_that_python_sees_raises_and_leaves_no_more_to_the_thread(
  signals_as_in_a_new_process,
):
  left, heard = [], []
  with (
    pytest.raises(KeyboardInterrupt),
    stop_signal(lambda: heard.append(1), left.append) as stopped,
  ):
    signal.raise_signal(signal.SIGINT)
    assert stopped()
    signal.raise_signal(signal.SIGINT)
  assert left == [] and heard


def test_in_another_thread_there_is_nothing_to_hear():
  def run():
    with stop_signal() as stopped:
      return stopped()

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    assert pool.submit(run).result() is False


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_handlers_that_were_there_before_still_hear_a_signal(signals_as_in_a_new_process, number):
  heard, (ours, pythons) = [], socket.socketpair()
  pythons.setblocking(False)
  before = signal.signal(number, lambda number, frame: heard.append(number))
  signal.set_wakeup_fd(pythons.fileno())
  try:
    with stop_signal() as outer, stop_signal() as inner:
      signal.raise_signal(number)
      assert inner() and outer() and heard == [number]
      ours.settimeout(10)
      assert ours.recv(1) == bytes([number])
  finally:
    signal.signal(number, before)
    signal.set_wakeup_fd(-1)
    ours.close()
    pythons.close()
