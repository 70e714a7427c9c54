"""Of several processes in one work directory one writes; the lock of a dead one is taken over."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from mgjax.core.errors import ConfigError
from mgjax.runtime.workdir_lock import LOCK, hold
from tests import tiny

HOLD = """
import sys
from mgjax.runtime.workdir_lock import hold
with hold(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path):
  return tmp_path / 'run' / LOCK


def describe(lock, **changes):
  """The lock of a process of another machine, unless `changes` says otherwise."""
  with hold(lock.parent, beat=0.1):
    about = json.loads(lock.read_text())
  about |= {'host': 'elsewhere', 'machine': 'another', 'process': 7, **changes}
  lock.parent.mkdir(exist_ok=True)
  lock.write_text(json.dumps(about))
  return about


@contextlib.contextmanager
def beating(lock):
  """Beats as a process on another machine does."""
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


def left(lock):
  return [path.name for path in lock.parent.iterdir()]


def test_a_second_process_is_refused_until_the_first_is_gone(lock, caplog):
  command = [sys.executable, '-c', HOLD, str(lock.parent)]
  options = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'cwd': tiny.CHECKOUT}
  with subprocess.Popen(command, **options) as other:
    assert other.stdout.readline() == b'held\n'
    before = lock.read_bytes()
    said = f'process {other.pid} on {socket.gethostname()!r} since {time.strftime("%Y-")}'
    with refused(f'{re.escape(said)}.*take another --workdir') as found, hold(lock.parent):
      pass
    assert found.value.exit_code == 2
    assert lock.read_bytes() == before
    other.kill()
  began = time.monotonic()
  with hold(lock.parent):
    assert json.loads(lock.read_text())['process'] == os.getpid()
  assert time.monotonic() - began < 5  # no beat was waited for
  assert f'from process {other.pid} on' in caplog.text
  assert not left(lock)


def test_a_number_that_another_process_has_now_is_not_taken_for_the_first(lock):
  with hold(lock.parent):
    machine = json.loads(lock.read_text())['machine']
  describe(lock, machine=machine, process=os.getppid(), start=1)
  with hold(lock.parent):
    assert json.loads(lock.read_text())['process'] == os.getpid()


def test_whether_another_machine_is_alive_is_told_by_beats_and_not_by_the_clock(lock, monkeypatch):
  describe(lock)
  for wrong in (-1e6, 1e6):  # the clock of this machine against that of the disk
    monkeypatch.setattr(time, 'time', lambda wrong=wrong, clock=time.time: clock() + wrong)
    with beating(lock), refused("process 7 on 'elsewhere'"), hold(lock.parent):
      pass
  monkeypatch.undo()
  began = time.monotonic()
  with hold(lock.parent):
    assert 0.25 < time.monotonic() - began < 5  # three beats
  assert not left(lock)


@pytest.mark.parametrize(('age', 'waits'), [(3600, False), (-3600, True)])
def test_an_old_stamp_needs_no_waiting_and_one_of_the_future_does(lock, age, waits):
  describe(lock, beat=0.4)
  os.utime(lock, (time.time() - age,) * 2)
  began = time.monotonic()
  with hold(lock.parent):
    assert (time.monotonic() - began > 1) == waits


@pytest.mark.parametrize('text', [
  b'', b'{"host": "a"', b'\xff\xfe', b'[' * 100_000, b'[]', b'null', b'{}', b'{"host": 1}',
  b'{"host": "a", "machine": "b", "process": 1, "start": 1, "began": NaN, "beat": 1e99}',
])  # fmt: skip
def test_a_damaged_lock_is_judged_by_its_beats(lock, text):
  lock.parent.mkdir()
  lock.write_bytes(text)
  with beating(lock), refused('a process that it does not name'), hold(lock.parent):
    pass
  os.utime(lock, (1, 1))
  with hold(lock.parent):
    assert json.loads(lock.read_text())['process'] == os.getpid()
  assert not left(lock)


@pytest.mark.parametrize('claims', [0, 1, 2])
def test_of_many_that_take_over_at_once_one_wins(lock, claims):
  """Also where some that took over before were killed before they had finished."""
  for number in range(20):
    describe(lock, nonce=str(number))
    os.utime(lock, (1, 1))
    for _ in range(claims):
      hurt = [path for path in lock.parent.iterdir() if path.name != LOCK]
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'replace', lambda *paths: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError), hold(lock.parent):
          pass
      (claim,) = [path for path in lock.parent.iterdir() if path not in (lock, *hurt)]
      claim.write_text(json.dumps(json.loads(claim.read_text()) | {'machine': 'another'}))
      os.utime(claim, (1, 1))
    won, all_there, done = [], threading.Barrier(6), threading.Barrier(6)

    def take(won=won, all_there=all_there, done=done):
      all_there.wait()
      with contextlib.suppress(ConfigError), hold(lock.parent) as held:
        won.append(held.is_ours())
        done.wait()
        return
      done.wait()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert won == [True]
    assert not left(lock)


def test_the_same_thread_goes_on_and_another_one_is_refused(lock):
  heard = []

  def other():
    with refused(f'process {os.getpid()} '), hold(lock.parent):
      pass
    heard.append(True)

  with hold(lock.parent) as outer:
    with hold(lock.parent / '..' / 'run') as inner:
      assert inner is outer
    assert lock.exists()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
  assert heard and not lock.exists()


def test_who_lost_a_directory_hears_of_it_and_leaves_it_to_the_other(lock):
  with hold(lock.parent) as held:
    held.check()
    other = lock.with_name('other')
    other.write_text('another one')
    os.replace(other, lock)
    with pytest.raises(ConfigError, match='not held by this process any more'):
      held.check()
  assert lock.read_text() == 'another one'


def test_beats_move_the_stamp(lock):
  with hold(lock.parent, beat=0.05):
    os.utime(lock, (1, 1))
    deadline = time.monotonic() + 10
    while lock.stat().st_mtime == 1 and time.monotonic() < deadline:
      time.sleep(0.02)
    assert abs(lock.stat().st_mtime - time.time()) < 60


def test_an_error_releases_and_a_folder_nobody_wrote_to_is_gone(lock):
  with pytest.raises(KeyError), hold(lock.parent):
    raise KeyError
  assert not lock.parent.exists()
  with hold(lock.parent):
    (lock.parent / 'config.json').touch()
  assert left(lock) == ['config.json']
