"""Maps a function over many inputs with threads, or with processes that survive a crash.

`Guarded` calls it for one input after the other, in a process under limits of memory, processor
time and wall time.
"""

import concurrent.futures
import contextlib
import dataclasses
import faulthandler
import functools
import math
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Annotated, Any, Self

from mgjax.core.errors import MgjaxError, StorageError
from mgjax.core.settings import Positive, Range, check

try:
  import resource
except ImportError:  # Windows
  resource = None

_GRACE = 60.0  # seconds after which a process ends itself that should have been ended


class Workers:
  """Worker threads that call `function`; `result` raises what the call raised."""

  def __init__(self, function: Callable[[Any], Any], count: int):
    self.count, self._function = count, function
    self._pool: concurrent.futures.Executor = self._start(count)

  def _start(self, count: int) -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(count)

  def submit(self, thing: Any) -> concurrent.futures.Future:
    """Begins a call."""
    return self._pool.submit(self._function, thing)

  def result(self, thing: Any, future: concurrent.futures.Future) -> Any:
    """Waits for what a call returns."""
    del thing
    return future.result()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._pool.shutdown(cancel_futures=True)


class Isolated(Workers):
  """Worker processes that call `function`; it and its inputs are pickled.

  When one dies, every input that was under way runs again in a process of its own: that shows which
  one kills it. No process outlives the one that started it, however that ends.
  """

  def __init__(
    self,
    function: Callable[[Any], Any],
    count: int,
    deadly: Callable[[Any], Any],
    seconds: float,
  ):
    """Starts the processes.

    Args:
      function: of one thing.
      count: of processes.
      deadly: maps an input that kills its process to its result.
      seconds: after which a call that has not returned kills its process.
    """
    self._deadly = deadly
    # Not forked: the locks of JAX's and FFmpeg's threads would be copied as they are.
    self._context = multiprocessing.get_context('spawn')
    self._followed, self._alive = self._context.Pipe(duplex=False)
    super().__init__(functools.partial(_watched, function, seconds), count)

  def _start(self, count: int) -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(
      count, self._context, initializer=_follow, initargs=(self._followed,)
    )

  def submit(self, thing: Any) -> concurrent.futures.Future:
    """Begins a call."""
    with _deaf_children():
      try:
        return super().submit(thing)
      except BrokenProcessPool:
        self._pool.shutdown(wait=False)
        self._pool = self._start(self.count)
        return super().submit(thing)

  def result(self, thing: Any, future: concurrent.futures.Future) -> Any:
    """Waits for what a call returns."""
    try:
      return future.result()
    except BrokenProcessPool:
      with self._start(1) as pool:
        try:
          with _deaf_children():
            future = pool.submit(self._function, thing)
          return future.result()
        except BrokenProcessPool:
          return self._deadly(thing)

  def __exit__(self, *error: object) -> None:
    if error[0] is not None:  # nobody waits for what is under way
      self._alive.close()
    super().__exit__(*error)


@dataclasses.dataclass(frozen=True)
class Allowance:
  """What one call in a process of its own may cost; not in public sources.

  Attributes:
    gigabytes: of addresses that its process may have, libraries that it loads among them.
    processor_seconds: of one call.
    wall_seconds: of one call.
    tries: how often a call that ends its process, or needs more, is begun.
  """

  gigabytes: Annotated[float, Range(above=0)] = 6.0
  processor_seconds: Positive = 900
  wall_seconds: Annotated[float, Range(above=0)] = 1800.0
  tries: Positive = 3

  def __post_init__(self):
    check(self)


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
    function: Callable[[Any], Any],
    allowance: Allowance = ALLOWANCE,
    prepare: Callable[[], Any] = int,
  ):
    """Starts nothing yet.

    Args:
      function: of one thing; both are pickled.
      allowance: of each call.
      prepare: called first in each process, without limits; what it raises `__call__` raises.
    """
    self._work, self._allowance = (function, prepare, allowance), allowance
    self._context = multiprocessing.get_context('spawn')  # not forked: see `Isolated`
    self._child: tuple[Any, Connection] | None = None
    self._over = False

  def __call__(self, thing: Any) -> Any:
    """Returns what the function returns, or a `Lost`.

    Raises:
      MgjaxError: the function raised it, or the process cannot be started.
    """
    tries, ended = 0, ''
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

  def start(self) -> tuple[Any, Connection]:
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

  def _start(self) -> tuple[Any, Connection]:
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

  def _answer(self, process: Any, pipe: Connection) -> tuple[str, Any]:
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


def _how(code: int | None) -> str:
  """Says how a process ended."""
  if code is not None and code < 0:
    return f'ends its process ({signal.Signals(-code).name})'
  return f'ends its process (exit code {code})'


def _serve(
  pipe: Connection,
  function: Callable[[Any], Any],
  prepare: Callable[[], Any],
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
  pipe.send((True, None))
  answer: tuple[str, Any]
  while (thing := _received(pipe)) is not _NOTHING:
    _limit('RLIMIT_CPU', math.ceil(time.process_time()) + allowance.processor_seconds)
    try:
      # The one that started it ends it before, unless that one is gone.
      answer = 'returned', _watched(function, allowance.wall_seconds + _GRACE, thing)
    except MemoryError:
      answer = 'memory', None
    except MgjaxError as error:
      answer = 'raised', error
    pipe.send((*answer, _peak() > bytes_allowed / 2))


_NOTHING = object()


def _end_with_parent() -> None:
  """Ends this process when the one that started it ends."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)


def _received(pipe: Connection) -> Any:
  try:
    return pipe.recv()
  except (EOFError, OSError):
    return _NOTHING


def _limit(name: str, value: int) -> None:
  """Sets a limit of this process, where the system has it."""
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


def _follow(followed: Connection) -> None:
  """Ends this process when the other end of a pipe is closed: when the one that started it ends."""

  def wait() -> None:
    followed.poll(None)
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def _watched(function: Callable[[Any], Any], seconds: float, thing: Any) -> Any:
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
