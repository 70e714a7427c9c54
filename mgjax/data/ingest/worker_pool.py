"""Maps a function over many inputs with threads, or with processes that survive a crash."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
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
  one kills it.
  """

  def __init__(self, function: Callable[[Any], Any], count: int, deadly: Callable[[Any], Any]):
    """Starts the processes.

    Args:
      function: of one thing.
      count: of processes.
      deadly: maps an input that kills its process to its result.
    """
    self._deadly = deadly
    super().__init__(function, count)

  def _start(self, count: int) -> concurrent.futures.Executor:
    # Not forked: the locks of JAX's and FFmpeg's threads would be copied as they are.
    context = multiprocessing.get_context('spawn')
    return concurrent.futures.ProcessPoolExecutor(count, context)

  def submit(self, thing: Any) -> concurrent.futures.Future:
    """Begins a call."""
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
          return pool.submit(self._function, thing).result()
        except BrokenProcessPool:
          return self._deadly(thing)
