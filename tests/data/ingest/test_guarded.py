"""A call in a process under limits: whatever kills the process costs three tries and no more."""

import ctypes
import functools
import os
import pathlib
import signal
import threading
import time

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.ingest.worker_pool import Allowance, Guarded, Lost

SMALL = Allowance(gigabytes=3.0, processor_seconds=1, wall_seconds=60.0, tries=1)


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
  ],
)
def test_the_reason_says_which_limit_it_was(kind, why):
  with Guarded(functools.partial(work, None), SMALL) as guarded:
    assert guarded(kind) == Lost(why)


@pytest.mark.slow
def test_a_call_that_waits_for_ever_is_given_up():
  allowance = Allowance(wall_seconds=3.0, tries=1)
  with Guarded(functools.partial(work, None), allowance) as guarded:
    assert guarded('sleep') == Lost('takes over 3 s')


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
  guarded, errors = Guarded(functools.partial(work, None)), []

  def call():
    try:
      guarded('sleep')
    except InterruptedError as error:
      errors.append(error)

  process = guarded('good')
  thread = threading.Thread(target=call)
  thread.start()
  time.sleep(0.5)
  guarded.close(for_good=True)
  thread.join(20)
  assert errors and not pathlib.Path(f'/proc/{process}').exists()
