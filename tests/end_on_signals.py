"""Ends a run of the tests on SIGTERM or Ctrl-C, also while it trains, compiles or waits.

The code under test turns both signals into a request to stop after the current step, so a run of
the tests would continue with the next one. These handlers are installed before, and hear them too.
"""

import collections
import contextlib
import os
import pathlib
import signal
import socket
import threading
import time

GRACE = 5  # seconds for fixtures to clean up, and for a compilation to return to Python
OF_A_WORKER = 3  # less, so that no worker is replaced while its parent looks for what to end
NUMBERS = (signal.SIGTERM, signal.SIGINT)


def install():
  """Installs handlers of SIGTERM and Ctrl-C, in the main thread; an ignored signal stays so."""
  ours, pythons = socket.socketpair()
  pythons.setblocking(False)
  for number in NUMBERS:
    if signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, _interrupt)
  signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(ours, pythons), name='end_on_signals', daemon=True).start()
  os.register_at_fork(after_in_child=_reset)


@contextlib.contextmanager
def suspended():
  """Handles signals as a new process does, until the context ends."""
  handlers = {number: signal.getsignal(number) for number in NUMBERS}
  wakeup = signal.set_wakeup_fd(-1)
  _reset()
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


def _reset():
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number, frame):
  raise KeyboardInterrupt(signal.Signals(number).name)


def _listen(ours, pythons):
  """Passes a signal on to workers and to what tests started, and ends this process soon after.

  Python runs no handler while the main thread compiles, but it runs this thread.
  """
  while (number := ours.recv(1)[0]) not in NUMBERS:
    continue
  processes = set(_descendants(os.getpid()))
  _signal(processes, signal.SIGTERM)
  time.sleep(OF_A_WORKER if 'PYTEST_XDIST_WORKER' in os.environ else GRACE)
  _signal(processes | set(_descendants(os.getpid())), signal.SIGKILL)
  os._exit(128 + number)


def _signal(processes, number):
  for process in processes:
    with contextlib.suppress(ProcessLookupError):
      os.kill(process, number)


def _descendants(process):
  """Numbers of the processes that it and its children started, on Linux; nothing elsewhere."""
  children = collections.defaultdict(list)
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):  # that process has just ended
      parent = stat.read_text(errors='replace').rpartition(')')[2].split()[1]
      children[int(parent)].append(int(stat.parent.name))
  found = [process]
  for each in found:
    found += children[each]
  return found[1:]
