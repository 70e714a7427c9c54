"""A call in a process under limits: what kills the process costs a few tries and no more.

Processes that work for another one end with it, and none is waited for without end.
"""

import concurrent.futures
import ctypes
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.ingest.worker_pool import Allowance, Guarded, Isolated, Lost

CHECKOUT = pathlib.Path(__file__).parents[3]
STARTS = """
import concurrent.futures, os, time
from mgjax.data.ingest.worker_pool import Isolated

def work(thing):
  print(os.getpid(), flush=True)
  time.sleep(60)

if __name__ == '__main__':
  with concurrent.futures.ThreadPoolExecutor(2) as pool, Isolated(work, 2) as call:
    list(pool.map(call, range(2)))
"""
SMALL = Allowance(gigabytes=3.0, processor_seconds=1, wall_seconds=3.0, tries=1)


def work(folder, thing):
  """Notes that it was tried, and does what it is told."""
  if folder is not None:
    with (folder / thing).open('a') as file:
      file.write(f'{os.getpid()}\n')
  if thing == 'segfault':
    ctypes.string_at(0)
  elif thing == 'exit':
    os._exit(3)
  elif thing == 'memory':
    np.ones(2**30)
  elif thing == 'loop':
    while True:
      pass
  elif thing == 'sleep':
    time.sleep(1000)
  elif thing == 'error':
    raise DataError('no such thing')
  return os.getpid()


def refuse():
  raise ConfigError('a library is missing; install it')


def test_what_kills_its_process_is_tried_three_times_each_in_a_fresh_one(tmp_path):
  with Guarded(functools.partial(work, tmp_path), Allowance()) as guarded:
    first = guarded('good')
    assert guarded('good') == first, 'one process serves call after call'
    assert guarded('segfault') == Lost('ends its process (SIGSEGV), in each of 3 tries')
    assert guarded('good') != first
  assert len(set((tmp_path / 'segfault').read_text().split())) == 3


@pytest.mark.parametrize(
  'kind, why',
  [
    ('memory', 'needs over 3 GB of memory'),
    pytest.param('exit', 'ends its process (exit code 3)', marks=pytest.mark.slow),
    pytest.param('loop', 'takes over 1 s of processor time', marks=pytest.mark.slow),
    pytest.param('sleep', 'takes over 3 s', marks=pytest.mark.slow),
  ],
)
def test_the_reason_says_which_limit_it_was_and_other_calls_go_on(kind, why):
  function = functools.partial(work, None)
  with concurrent.futures.ThreadPoolExecutor(2) as pool, Isolated(function, 2, SMALL) as call:
    found = list(pool.map(call, ['good', kind, 'good']))
  assert found[1] == Lost(why) and isinstance(found[0], int) and isinstance(found[2], int)


def test_errors_of_the_function_and_of_its_preparation_are_raised_here():
  with Guarded(functools.partial(work, None), SMALL) as guarded, pytest.raises(DataError):
    guarded('error')
  with Guarded(len, SMALL, refuse) as guarded, pytest.raises(ConfigError, match='install it'):
    guarded('thing')


def test_a_process_that_is_killed_while_it_has_nothing_to_do_costs_no_try():
  with Guarded(functools.partial(work, None), SMALL) as guarded:
    os.kill(guarded('good'), signal.SIGKILL)
    time.sleep(0.2)
    assert isinstance(guarded('good'), int)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path('/proc').exists(), reason='reads /proc')
def test_closing_for_good_ends_a_call_of_another_thread():
  guarded = Guarded(functools.partial(work, None))
  process = guarded('good')
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    call = pool.submit(guarded, 'sleep')
    time.sleep(0.5)
    guarded.close(for_good=True)
    with pytest.raises(InterruptedError):
      call.result(20)
  assert not pathlib.Path(f'/proc/{process}').exists()


def is_alive(process):
  """Whether a process is at work, and not only a name that nobody has asked for."""
  try:
    return pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


@pytest.mark.skipif(not pathlib.Path('/proc').exists(), reason='reads /proc')
@pytest.mark.parametrize(
  'ending',
  [
    signal.SIGKILL,
    pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, marks=pytest.mark.slow),
  ],
)
def test_no_worker_outlives_the_process_that_started_it(tmp_path, ending):
  (tmp_path / 'starts.py').write_text(STARTS)
  with subprocess.Popen(
    [sys.executable, tmp_path / 'starts.py'],
    cwd=CHECKOUT,
    start_new_session=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(CHECKOUT)},
  ) as parent:
    assert parent.stdout is not None and parent.stderr is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert len(set(workers)) == 2 and all(map(is_alive, workers))
    if ending == signal.SIGINT:  # of a terminal goes to all
      os.killpg(parent.pid, ending)
    else:
      parent.send_signal(ending)
    assert parent.wait(20) == -ending
    began = time.monotonic()
    while any(map(is_alive, workers)) and time.monotonic() - began < 10:
      time.sleep(0.02)
    assert not any(map(is_alive, workers))
    said = parent.stderr.read()
  assert said.count('Traceback') == (ending == signal.SIGINT)  # the script's own
