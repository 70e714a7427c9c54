"""SIGTERM and Ctrl-C: hears them and asks the run to stop, which then saves (training/run.py)."""

import contextlib
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

GRACE = 5  # seconds in which a second Ctrl-C may end the process in order

_log = logging.getLogger(__name__)
_polls = itertools.count(1)  # over all runs of this process: see `stop_signal`


@contextlib.contextmanager
def stop_signal(
  heard: Callable[[], None] = lambda: None, leave: Callable[[int], object] = os._exit
) -> Iterator[Callable[[], bool]]:
  """Turns the first SIGTERM or Ctrl-C into a request to stop; a second Ctrl-C quits at once.

  What it yields is asked once before each step and says whether to stop instead. A signal to any of
  several processes stops all of them before the same step: JAX's preemption service, which takes
  SIGTERM for itself, settles on a poll that none has reached yet. Polls are therefore counted over
  the life of the process: steps begin anew with each loop, and late when a run is resumed.

  Python runs no handler before the main thread comes back to it, which from a compilation takes
  minutes. So a thread hears of signals as well: it calls `heard` at the first one (as does asking
  whether to stop), and `leave` if the process does not react to the second Ctrl-C.

  A program that trains may have handlers of its own: a Python handler of SIGTERM or Ctrl-C and the
  file descriptor of `signal.set_wakeup_fd` still hear every signal.
  """
  several = jax.distributed.is_initialized()
  received: list[int] = []

  def handle(number: int, frame: FrameType | None) -> None:
    if received:
      signal.default_int_handler(number, frame)
    received.append(number)
    if several:
      os.kill(os.getpid(), signal.SIGTERM)
    if callable(before[number]) and before[number] is not signal.default_int_handler:
      before[number](number, frame)

  def stopped() -> bool:
    stop = (
      multihost_utils.reached_preemption_sync_point(next(_polls)) if several else bool(received)
    )
    if stop:
      heard()
    return stop

  numbers = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
  before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
  try:
    for number in numbers:
      signal.signal(number, handle)
  except ValueError:  # not in the main thread: its owner handles signals
    yield stopped
    return
  try:
    with _listening(numbers, heard, leave):
      yield stopped
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def _listening(
  numbers: tuple[int, ...], heard: Callable[[], None], leave: Callable[[int], object]
) -> Iterator[None]:
  """Hears signals in a thread, through the pipe that Python writes their numbers to."""
  ours, pythons = socket.socketpair()
  pythons.setblocking(False)
  over = threading.Event()

  def listen() -> None:
    count = 0
    while number := ours.recv(1):
      if previous != -1:
        with contextlib.suppress(OSError):  # full, or closed by now
          os.write(previous, number)
      if number[0] not in numbers:
        continue
      count += 1
      if count == 1:
        heard()
        _log.warning('stopping after this step; Ctrl-C again quits at once')
      elif not over.wait(GRACE):
        leave(128 + number[0])

  thread = threading.Thread(target=listen, name='signals', daemon=True)
  previous = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
  thread.start()
  try:
    yield
  finally:
    over.set()
    signal.set_wakeup_fd(previous)
    pythons.close()
    thread.join()
    ours.close()
