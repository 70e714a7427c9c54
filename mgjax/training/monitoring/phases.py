"""Phases of a run (step, data, save, ...) and the seconds spent in each."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# `init` is all that comes before and between the others; `data` is waiting for the next batch.
PHASES = ('init', 'compile', 'step', 'data', 'save', 'restore', 'evaluate')


class Now(NamedTuple):
  """The phase that a run is in: its name, since when, and whether it may have to compile first."""

  name: str
  since: float
  compiles: bool


class Phases:
  """Assigns every moment of a process to one phase, by the clock of the host.

  The devices run behind the host and are never waited for on behalf of the clock; steps wait for
  them, so their time counts there. Other threads read `now`, `stopping` (since when a signal asks
  to stop, or None) and `unsaved` (whether steps were done that are on no disk).
  """

  def __init__(
    self,
    spent: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    names: Sequence[str] = PHASES,
  ):
    """Begins in the first of `names`, of which `spent` seconds are over."""
    self.clock = clock
    self.stopping: float | None = None
    self.unsaved = False
    self._seconds = dict.fromkeys(names, 0.0) | {names[0]: spent}
    self.now = Now(names[0], clock(), False)

  @contextlib.contextmanager
  def during(self, name: str, compiles: bool = False) -> Iterator[None]:
    """Enters a phase, and goes back to the one before, which then begins anew."""
    before = self.now
    self._enter(name, compiles)
    try:
      yield
    finally:
      self._enter(before.name, before.compiles)

  def stop(self) -> None:
    """Notes that a signal asks to stop."""
    if self.stopping is None:
      self.stopping = self.clock()

  def seconds(self) -> dict[str, float]:
    """Returns how long each phase was, until now."""
    now = self.now
    return self._seconds | {now.name: self._seconds[now.name] + self.clock() - now.since}

  def working(self) -> float:
    """Returns the seconds of steps and of waiting for their data."""
    seconds = self.seconds()
    return seconds['step'] + seconds['data']

  def _enter(self, name: str, compiles: bool) -> None:
    moment = self.clock()
    before = self.now
    self._seconds[before.name] += moment - before.since
    self.now = Now(name, moment, compiles)


def since_start() -> float:
  """Returns how many seconds ago this process was started; 0 where the system does not say."""
  try:
    with open('/proc/self/stat') as file:
      ticks = int(file.read().rpartition(')')[2].split()[19])
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK'), 0.0)
  except (OSError, ValueError, IndexError, AttributeError):
    return 0.0
