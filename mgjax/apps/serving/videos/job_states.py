"""The states of this process's jobs: faster to read than the database, and ahead of it."""

import dataclasses
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mgjax.apps.serving.videos.schema import Job
from mgjax.core.configuration.keys import JSON

_MAX_FINISHED = 1000  # results that are kept until the database has them


class CancelledError(Exception):
  """All jobs of a batch were cancelled."""


@dataclasses.dataclass
class Live:
  """A running job: its progress, which other threads read, and whether they cancelled it."""

  job: Job
  created: float
  cancelled: bool = False
  step: int = 0
  steps: int = 0
  colours: np.ndarray | None = None  # uint8 (t h w 3), of the latents

  @property
  def percent(self) -> int:
    """The progress in steps, at most 99: 100 means that the files are available."""
    return min(99, 100 * self.step // self.steps) if self.steps else 0

  def check(self) -> None:
    """Raises CancelledError if the job was cancelled."""
    if self.cancelled:
      raise CancelledError


class Queued(NamedTuple):
  """A job that waits, and when it was created."""

  job: Job
  created: float


class Finished(NamedTuple):
  """The result of a job, and when it ended."""

  result: JSON
  ended: float


class JobStates:
  """Jobs by id: queued here, running here, or finished here and perhaps not yet in the database.

  A job is always in one of the three while it changes its state, so a reader never misses it.
  """

  def __init__(self):
    self._queued: dict[str, Queued] = {}
    self._running: dict[str, Live] = {}
    self._finished: dict[str, Finished] = {}
    self._stopped: dict[str, float] = {}  # running in the database, and since when not here
    self._lock = threading.Lock()  # of _finished

  def queue(self, id: str, job: Job) -> None:
    """Notes a job that this process will run."""
    self._queued[id] = Queued(dict(job), time.time())

  def begin(self, id: str, live: Live) -> None:
    """Notes that a job runs."""
    self._running[id] = live
    self._queued.pop(id, None)

  def finish(self, id: str, result: JSON) -> None:
    """Notes the result of a job, and forgets the oldest of many."""
    with self._lock:
      self._finished[id] = Finished(result, time.time())
      self._running.pop(id, None)
      while len(self._finished) > _MAX_FINISHED:
        del self._finished[next(iter(self._finished))]

  def unqueue(self, id: str) -> None:
    """Forgets a job that waits, because it was deleted or could not be stored."""
    self._queued.pop(id, None)

  def forget_result(self, id: str) -> None:
    """Forgets the result of a deleted job, before a new job gets the same id."""
    with self._lock:
      self._finished.pop(id, None)

  def queued(self, id: str) -> Queued | None:
    """Returns a job that waits here."""
    return self._queued.get(id)

  def running(self, id: str) -> Live | None:
    """Returns a job that runs here."""
    return self._running.get(id)

  def finished(self, id: str) -> Finished | None:
    """Returns a job that ended here."""
    return self._finished.get(id)

  def all_running(self) -> dict[str, Live]:
    """Returns a copy of all jobs that run here."""
    return dict(self._running)

  @property
  def idle(self) -> bool:
    """Whether no job waits or runs here."""
    return not (self._queued or self._running)

  def stuck(self, pending: Iterable[str], seconds: float) -> list[str]:
    """Returns the jobs that have not run here for so long, of those that the database has running.

    Their thread has ended, but the database could not be written: its disk was full.
    """
    now = time.monotonic()
    pending = [id for id in pending if id not in self._running]
    self._stopped = {id: self._stopped.get(id, now) for id in pending}
    return [id for id, stopped in self._stopped.items() if now - stopped > seconds]
