"""Processes that work for another one end with it, and none is waited for without end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mgjax.data.ingest.worker_pool import Isolated

CHECKOUT = pathlib.Path(__file__).parents[3]
STARTS = """
import os, time
from mgjax.data.ingest.worker_pool import Isolated

def work(thing):
  print(os.getpid(), flush=True)
  time.sleep(60)

if __name__ == '__main__':
  with Isolated(work, 2, str, 60) as workers:
    calls = [workers.submit('') for _ in range(2)]
    for call in calls:
      workers.result('', call)
"""


def stuck(thing):
  while thing == 'stuck':
    pass
  return thing


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
    [sys.executable, tmp_path / 'starts.py'], cwd=CHECKOUT, start_new_session=True,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    env={**os.environ, 'PYTHONPATH': str(CHECKOUT)},
  ) as parent:  # fmt: skip
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


@pytest.mark.slow
def test_a_call_that_never_returns_is_given_up():
  with Isolated(stuck, 2, 'gave up on {}'.format, 1.0) as workers:
    things = ['a', 'stuck', 'b']
    calls = [workers.submit(thing) for thing in things]
    found = [workers.result(*pair) for pair in zip(things, calls, strict=True)]
  assert found == ['a', 'gave up on stuck', 'b']
