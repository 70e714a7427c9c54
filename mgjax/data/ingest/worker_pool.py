"""Calls a function in processes under limits of memory, processor time and wall time.

`Guarded` has one process and serves one thread, `Isolated` has several for as many threads. What
ends its process, or needs more than it may, is tried again in a fresh one, and then is `Lost`.
"""

import contextlib
import dataclasses
import faulthandler
import math
import multiprocessing
import os
import pathlib
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, Self

from mgjax.core.errors import MgjaxError, StorageError
from mgjax.core.settings import Checked, Positive, Range

try:
  import resource
except ImportError:  # Windows
  resource = None

_GRACE = 60.0  # seconds after which a process ends itself that should have been ended


@dataclasses.dataclass(frozen=True)
class Allowance(Checked):
  """What one call in a process of its own may cost; not in public sources.

  `gigabytes` are of addresses that its process may have, libraries that it loads among them;
  `tries` is how often a call that ends its process, or needs more, is begun.
  """

  gigabytes: Annotated[float, Range(above=0)] = 6.0
  processor_seconds: Positive = 900
  wall_seconds: Annotated[float, Range(above=0)] = 1800.0
  tries: Positive = 3


ALLOWANCE = Allowance()
_STARTS = 10  # of a process, until its end is taken for a sign that none can start


@dataclasses.dataclass(frozen=True)
class Lost:
  """What is left of a call that none of its tries survived: why the last one ended."""

  reason: str


class Guarded:
  """Calls a function in a process under limits, again in a fresh one where that process ends.

  The process serves call after call, so what it loaded stays loaded; what it holds is bounded, and
  it ends with the one that started it. Where the system has no such limits there is the wall time.
  """

  def __init__(
    self,
    function: Callable[[Any], object],
    allowance: Allowance = ALLOWANCE,
    prepare: Callable[[], object] = int,
  ):
    """Starts nothing yet; what is called is pickled.

    `prepare` is called first in each process, without limits; what it raises `__call__` raises.
    """
    self._work = (function, prepare, allowance)
    self._allowance = allowance
    # Not forked: the locks of JAX's and FFmpeg's threads would be copied as they are.
    self._context = multiprocessing.get_context('spawn')
    self._child: tuple[BaseProcess, Connection] | None = None
    self._over = False

  def __call__(self, thing: object) -> Any:
    """Returns what the function returns, or a `Lost`.
    Raises MgjaxError if the function raised it, or the process cannot be started.
    """
    tries = 0
    ended = ''
    while tries < self._allowance.tries:
      process, pipe = self.start()
      try:
        pipe.send(thing)
      except OSError:  # it ended while it had nothing to do, which is nobody's fault
        self.close()
        continue
      tries += 1
      kind, value = self._answer(process, pipe)
      if kind == 'returned':
        return value
      if kind == 'raised':
        raise value
      ended = value
      self.close()
    self._check()
    return Lost(f'{ended}, in each of {tries} tries' if tries > 1 else ended)

  def start(self) -> tuple[BaseProcess, Connection]:
    """Starts the process, if there is none, so that the first call need not wait for it."""
    self._check()
    self._child = self._child or self._start()
    return self._child

  def close(self, for_good: bool = False) -> None:
    """Ends the process; `for_good`, a call that is under way in another thread raises."""
    self._over = self._over or for_good
    if (child := self._child) is not None:
      self._child = None
      child[0].kill()
      child[0].join()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _check(self) -> None:
    if self._over:
      self.close()
      raise InterruptedError('the work is over')

  def _start(self) -> tuple[BaseProcess, Connection]:
    """Starts a process; that one ends before it is ready says little, of several it does."""
    exitcode = None
    for _ in range(_STARTS):
      self._check()
      ours, its = self._context.Pipe()
      process = self._context.Process(target=_serve, args=(its, *self._work), daemon=True)
      with _deaf_children():
        process.start()
      its.close()
      self._child = process, ours
      self._check()  # closed while it was started
      try:
        ready, value = ours.recv()
      except (EOFError, OSError):
        process.join()
        exitcode = process.exitcode
        self.close()
        continue
      if not ready:
        self.close()
        raise value
      return process, ours
    raise StorageError(
      f'a process to work in cannot be started, {_STARTS} times it {_how(exitcode)}; is memory '
      'left?'
    )

  def _answer(self, process: BaseProcess, pipe: Connection) -> tuple[str, Any]:
    """Waits for what a process sends: ('returned' or 'raised' or 'ended', value)."""
    try:
      if not pipe.poll(self._allowance.wall_seconds):
        return 'ended', f'takes over {self._allowance.wall_seconds:g} s'
      kind, value, full = pipe.recv()
    except (EOFError, OSError):
      process.join()
      if process.exitcode == -getattr(signal, 'SIGXCPU', 0):
        return 'ended', f'takes over {self._allowance.processor_seconds} s of processor time'
      return 'ended', _how(process.exitcode)
    if kind == 'memory':
      return 'ended', f'needs over {self._allowance.gigabytes:g} GB of memory'
    if full:
      self.close()
    return kind, value


class Isolated:
  """Calls a function for several threads at once, each time in a process under limits."""

  def __init__(self, function: Callable[[Any], Any], count: int, allowance: Allowance = ALLOWANCE):
    """Allows `count` simultaneous calls, one a process; further ones wait. Starts nothing yet."""
    self._all = [Guarded(function, allowance) for _ in range(count)]
    self._free: queue.SimpleQueue[Guarded] = queue.SimpleQueue()
    for worker in self._all:
      self._free.put(worker)

  def __call__(self, thing: object) -> Any:
    guarded = self._free.get()
    try:
      return guarded(thing)
    finally:
      self._free.put(guarded)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    for worker in self._all:
      worker.close(for_good=True)


def _how(code: int | None) -> str:
  if code is not None and code < 0:
    return f'ends its process ({signal.Signals(-code).name})'
  return f'ends its process (exit code {code})'


def _serve(
  pipe: Connection,
  function: Callable[[Any], object],
  prepare: Callable[[], object],
  allowance: Allowance,
) -> None:
  """Answers calls until nobody asks any more."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  _limit('RLIMIT_CORE', 0)
  try:
    prepare()
  except MgjaxError as error:
    pipe.send((False, error))
    return
  bytes_allowed = round(allowance.gigabytes * 1e9)
  _limit('RLIMIT_AS', bytes_allowed)
  with contextlib.suppress(BrokenPipeError):  # the one that asks may end at any moment
    pipe.send((True, None))
  answer: tuple[str, object]
  while (thing := _received(pipe)) is not _NOTHING:
    _limit('RLIMIT_CPU', math.ceil(time.process_time()) + allowance.processor_seconds)
    try:
      # The one that started it ends it before, unless that one is gone.
      answer = 'returned', _watched(function, allowance.wall_seconds + _GRACE, thing)
    except MemoryError:
      answer = 'memory', None
    except MgjaxError as error:
      answer = 'raised', error
    with contextlib.suppress(BrokenPipeError):
      pipe.send((*answer, _peak() > bytes_allowed / 2))


_NOTHING = object()


def _end_with_parent() -> None:
  """Ends this process when the one that started it ends."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)


def _received(pipe: Connection) -> object:
  try:
    return pipe.recv()
  except (EOFError, OSError):
    return _NOTHING


def _limit(name: str, value: int) -> None:
  if resource is not None and hasattr(resource, name):
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):
      resource.setrlimit(kind, (value, hard))


def _peak() -> float:
  """The most bytes of memory that this process ever had."""
  with contextlib.suppress(OSError, ValueError, IndexError):
    # Linux hands the maximum of `getrusage` down from the process that started this one.
    status = pathlib.Path('/proc/self/status').read_text()
    return 1024.0 * int(status.split('VmHWM:')[1].split()[0])
  if resource is None:
    return 0.0
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _watched(function: Callable[[Any], object], seconds: float, thing: object) -> object:
  """Calls a function; ends the process if that does not return, whatever it is stuck in."""
  with open(os.devnull, 'w') as nowhere:
    faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
    try:
      return function(thing)
    finally:
      faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
  """Processes that are started inside never hear Ctrl-C, which a terminal sends to all of them."""
  if not hasattr(signal, 'pthread_sigmask'):
    yield
    return
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
