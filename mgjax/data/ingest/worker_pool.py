"""Maps a function over many inputs with threads, or with processes that survive a crash."""

import concurrent.futures
import contextlib
import faulthandler
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, Self


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
