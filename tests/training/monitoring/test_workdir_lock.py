"""Of several processes in one work directory one writes; the lock of a dead one is taken over."""

import concurrent.futures
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from mgjax.core.errors import ConfigError
from mgjax.training.monitoring import workdir_lock
from mgjax.training.monitoring.workdir_lock import LOCK, hold
from tests import tiny

HOLD = """
import sys
from mgjax.training.monitoring.workdir_lock import hold
with hold(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path, monkeypatch):
  """Where the lock of a folder lies, with beats that suit a test."""
  monkeypatch.setattr(workdir_lock, 'BEAT', 0.1)
  monkeypatch.setattr(workdir_lock, 'LEASE', 1.5)
  return tmp_path / 'run' / LOCK


def of_another_machine(lock):
  """Writes the lock that process 7 of another machine would."""
  with hold(lock.parent):
    lines = lock.read_text().splitlines()
  changes = {'pid': '7', 'host': 'elsewhere', 'token': '0' * 32}
  fields = [line.partition('=') for line in lines]
  lock.parent.mkdir()
  lock.write_text(''.join(f'{key}{sep}{changes.get(key, old)}\n' for key, sep, old in fields))


@contextlib.contextmanager
def beating(lock):
  """Beats as a living process does."""
  over = threading.Event()

  def beat():
    while not over.wait(0.05):
      os.utime(lock)

  thread = threading.Thread(target=beat)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()


def refused(match):
  return pytest.raises(ConfigError, match=match)


def test_a_second_process_is_refused_until_the_first_is_gone(lock, caplog):
  command = [sys.executable, '-c', HOLD, str(lock.parent)]
  options = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'cwd': tiny.CHECKOUT}
  workdir_lock.LEASE = 60.0  # as the other one has it
  with subprocess.Popen(command, **options) as other:
    assert other.stdout.readline() == b'held\n'
    before = lock.read_bytes()
    said = re.escape(f'the study {str(lock.parent)!r} is in use by process {other.pid} on ')
    with refused(f'{said}.*{socket.gethostname()}.*another') as found, hold(lock.parent, 'study'):
      pass
    assert found.value.exit_code == 2
    assert lock.read_bytes() == before
    other.kill()
  began = time.monotonic()
  with hold(lock.parent) as held:
    assert held.is_ours()
  assert time.monotonic() - began < 5  # no lease was waited for
  assert f'from process {other.pid} on' in caplog.text
  assert not os.listdir(lock.parent)


def test_whether_another_machine_is_alive_is_told_by_beats_and_not_by_the_clock(lock, monkeypatch):
  of_another_machine(lock)
  for wrong in (-1e6, 1e6):  # the clock of this machine against that of the disk
    monkeypatch.setattr(time, 'time', lambda wrong=wrong, clock=time.time: clock() + wrong)
    with beating(lock), refused("process 7 on 'elsewhere'"), hold(lock.parent):
      pass
  began = time.monotonic()
  with hold(lock.parent):
    assert 1.4 < time.monotonic() - began < 5
  assert not os.listdir(lock.parent)


@pytest.mark.parametrize('text', [b'\xff\xfe', b'[' * 100_000, b'filelock/2\nmode=lease\n'])
def test_a_damaged_lock_is_judged_by_its_beats(lock, text):
  lock.parent.mkdir()
  lock.write_bytes(text)
  with beating(lock), refused('a process that it does not name'), hold(lock.parent):
    pass
  os.utime(lock, (1, 1))
  with hold(lock.parent) as held:
    assert held.is_ours()
  assert not os.listdir(lock.parent)


def test_an_empty_lock_says_what_to_do(lock):
  lock.parent.mkdir()
  lock.touch()
  with refused(f'that it does not name .*; if there is none, delete {LOCK}'), hold(lock.parent):
    pass


def test_of_many_that_take_over_at_once_one_wins(lock):
  of_another_machine(lock)
  won, done = [], threading.Barrier(6)

  def take():
    with contextlib.suppress(ConfigError), hold(lock.parent) as held:
      won.append(held.is_ours())
      done.wait()
      return
    done.wait()

  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    list(pool.map(lambda _: take(), range(6)))
  assert won == [True]
  assert not os.listdir(lock.parent)


def test_the_same_thread_goes_on_and_another_one_is_refused(lock):
  def other():
    with refused(f'process {os.getpid()} '), hold(lock.parent):
      pass

  with hold(lock.parent) as outer:
    with hold(lock.parent / '..' / 'run') as inner:
      assert inner is outer
    assert lock.exists()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      pool.submit(other).result()
  assert not lock.exists()


def test_who_lost_a_directory_hears_of_it_and_leaves_it_to_the_other(lock):
  with hold(lock.parent) as held:
    held.check()
    other = lock.with_name('other')
    other.write_text('another one')
    os.replace(other, lock)
    with pytest.raises(ConfigError, match='not held by this process any more'):
      held.check()
  assert lock.read_text() == 'another one'


def test_an_error_releases_and_a_folder_nobody_wrote_to_is_gone(lock):
  with pytest.raises(KeyError), hold(lock.parent):
    raise KeyError
  assert not lock.parent.exists()
  with hold(lock.parent):
    (lock.parent / 'config.json').touch()
  assert os.listdir(lock.parent) == ['config.json']
