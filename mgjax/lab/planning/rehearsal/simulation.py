"""A training run by events: failures, restarts, checkpoints, slow machines, stalls, spares.

Between two events the run works at one speed and saves at its interval, so that whole cycles of
work and checkpoint are skipped by arithmetic: a run of weeks takes a millisecond. All that may
happen is drawn before, so that runs of one seed meet the same fate under other intervals, spares or
rates, and differences between scenarios have little noise.
"""

import dataclasses
import heapq
import math

import numpy as np

from mgjax.lab.planning.rehearsal.assumptions import DAY, HOUR, MINUTE, Assumptions, Job

PROGRESS = 'steps that were kept'
AGAIN = 'steps that are done again'
DETECTION = 'failures not yet noticed'
RESTART = 'restarts after failures'
WAITING = 'waiting for a machine'
SAVING = 'checkpoints'
SLOW = 'slow machines'
STALLS = 'data stalls'
PLANNED = 'planned stops'
FEWER = 'replicas that are gone'
CAUSES = (PROGRESS, AGAIN, DETECTION, RESTART, WAITING, SAVING, SLOW, STALLS, PLANNED, FEWER)

_FAILURE, _SLOW, _STALL, _STOP, _REPAIRED, _FOUND, _JOIN = range(7)


@dataclasses.dataclass(frozen=True)
class Scenario:
  """How a job is run: seconds of work between checkpoints, spare machines, elastic or not."""

  job: Job
  assumed: Assumptions
  days: float
  interval: float
  spares: int
  elastic: bool = False


def simulate(scenario: Scenario, runs: int, seed: int) -> np.ndarray:
  """Simulates runs and returns their shares of time by `CAUSES`, of shape (runs, causes).

  Rows sum to 1. The first column is goodput: work of all chips at the planner's speed that no
  failure took back, over all time; what is not yet saved at the end counts.
  """
  return np.stack([_Run(scenario, [seed, run]).shares() for run in range(runs)])


class _Run:
  """One run. `work` is seconds of progress at full speed; a cycle is an interval and a pause."""

  def __init__(self, scenario: Scenario, seed: list[int]):
    job, assumed = scenario.job, scenario.assumed
    self.assumed, self.job = assumed, job
    self.end = scenario.days * DAY
    self.pause = job.pause(assumed)
    self.durable = self.pause + (0.0 if assumed.blocking >= 0.5 else job.write(assumed))
    # A checkpoint begins when the one before is on disk.
    self.interval = max(scenario.interval, job.step, self.durable - self.pause)
    self.elastic = scenario.elastic and job.separate > 1
    self.restart = assumed.restart * MINUTE + job.read(assumed)
    self.now = self.work = self.saved = self.phase = 0.0
    self.pending: list[tuple[float, float]] = []  # checkpoints on their way: when, and what work
    self.spares = scenario.spares
    self.missing = 0
    self.gone = 0
    self.slow = False
    self.down: list[tuple[float, str]] = []  # until when the run stands still, and why
    self.lost = dict.fromkeys(CAUSES, 0.0)
    self.heap: list[tuple[float, int, tuple[float, ...]]] = []
    self._draw(seed)

  def _draw(self, seed: list[int]) -> None:
    """Draws when everything happens, each with three numbers that decide what comes of it."""
    assumed = self.assumed
    a_day = self.job.chips / (1000 * DAY)
    kinds = {
      _FAILURE: (assumed.failures * a_day, assumed.shape),
      _SLOW: (assumed.slow * a_day, 1.0),
      _STALL: (assumed.stalls / DAY, 1.0),
      _STOP: (assumed.planned / DAY, 1.0),
    }
    for kind, (rate, shape) in kinds.items():
      stream, fates = (np.random.default_rng([*seed, kind, what]) for what in (0, 1))
      for time in _arrivals(stream, rate, shape, self.end):
        self._push(time, kind, tuple(fates.random(3)))

  def _push(self, time: float, kind: int, fate: tuple[float, ...] = ()) -> None:
    if time < self.end:
      heapq.heappush(self.heap, (time, kind, fate))

  def shares(self) -> np.ndarray:
    """Runs to the end; returns shares of the time in the order of CAUSES."""
    handlers = (
      self._fail,
      self._slow_down,
      self._stall,
      self._stop,
      self._repaired,
      self._slow_machine_found,
      self._join,
    )
    while self.heap:
      time, kind, fate = heapq.heappop(self.heap)
      self._advance(time)
      handlers[kind](*fate)
    self._advance(self.end)
    self.lost[PROGRESS] = self.work
    return np.array([self.lost[cause] for cause in CAUSES]) / self.end

  def _advance(self, time: float) -> None:
    """Lets the clock run: the run waits, stands still, or works."""
    if self._idle:
      self.lost[WAITING] += time - self.now
      self.now = time
      return
    while self.down and self.now < time:
      until, why = self.down[0]
      stop = min(until, time)
      self.lost[why] += max(stop - self.now, 0.0)
      self.now = max(self.now, stop)
      if stop == until:
        self.down.pop(0)
    if self.now < time:
      self._train(time)
    self.now = time

  @property
  def _idle(self) -> bool:
    return self.missing > 0 and not self.elastic

  def _train(self, time: float) -> None:
    """Works and saves until `time`; only the last two checkpoints can matter."""
    alive = 1 - self.gone / self.job.separate
    speed = alive / (self.assumed.slowdown if self.slow else 1.0)
    cycle = self.interval + self.pause
    span = time - self.now
    tau = self.interval
    phase = self.phase + span
    cycles, in_cycle = divmod(phase, cycle)
    busy = cycles * tau + min(in_cycle, tau) - min(self.phase, tau)
    newest = math.floor((phase - tau) / cycle) if phase >= tau else -1
    for number in range(max(newest - 1, 1 if self.phase >= tau else 0), newest + 1):
      start = self.now + number * cycle + tau - self.phase
      done = self.work + speed * (number * tau + tau - min(self.phase, tau))
      self.pending = [*self.pending[-1:], (start + self.durable, done)]
    self.work += speed * busy
    self.lost[SLOW] += (alive - speed) * busy
    self.lost[FEWER] += (1 - alive) * busy
    self.lost[SAVING] += span - busy
    self.phase = in_cycle

  def _stand(self, seconds: float, why: str) -> None:
    """Stands still for so long after whatever it stands still for already."""
    self.down.append(((self.down[-1][0] if self.down else self.now) + seconds, why))

  def _take_machine(self, drawn: float) -> bool:
    """Sends a machine to repair; says whether a spare took its place."""
    self._push(self.now + _exponential(drawn, self.assumed.repair * HOUR), _REPAIRED)
    if self.spares:
      self.spares -= 1
      return True
    self.missing += 1
    return False

  def _fail(self, hardware: float, repair: float, which: float) -> None:
    if self._idle:
      return  # nothing runs that could fail
    if self.elastic:
      self._lose_replica(hardware, repair, which)
      return
    self._roll_back()
    if hardware >= self.assumed.hardware or self._take_machine(repair):
      self._stand(self.assumed.detect * MINUTE, DETECTION)
      self._stand(self.restart, RESTART)

  def _lose_replica(self, hardware: float, repair: float, which: float) -> None:
    """Goes on without a replica after detection; the others have the state but for half a step."""
    if which < self.gone / self.job.separate:  # one that is gone already
      return
    self.gone += 1
    if self.gone == self.job.separate:
      self._roll_back()
    lost = min(self.work, self.job.step / 2)
    self.work -= lost
    self.lost[AGAIN] += lost
    self._stand(self.assumed.detect * MINUTE, DETECTION)
    self._stand(self.assumed.regroup * MINUTE, RESTART)
    if hardware >= self.assumed.hardware or self._take_machine(repair):
      self._push(self.now + self.assumed.detect * MINUTE + self.restart, _JOIN)

  def _roll_back(self) -> None:
    for when, work in self.pending:
      if when <= self.now:
        self.saved = work
    self.lost[AGAIN] += self.work - self.saved
    self.work = self.saved
    self.phase = 0.0
    self.pending.clear()
    self.down.clear()

  def _repaired(self, *_: float) -> None:
    if not self.missing:
      self.spares += 1
      return
    self.missing -= 1
    if self.elastic:
      self._push(self.now + self.restart, _JOIN)
    elif not self.missing:
      self._stand(self.restart, RESTART)

  def _join(self, *_: float) -> None:
    self.gone -= 1
    self._stand(self.assumed.regroup * MINUTE, RESTART)

  def _slow_down(self, find: float, *_: float) -> None:
    if not self.slow:
      self.slow = True
      self._push(self.now + _exponential(find, self.assumed.find * HOUR), _FOUND, _)

  def _slow_machine_found(self, repair: float, *_: float) -> None:
    """Swaps a slow machine after a checkpoint, or keeps it while there is no other."""
    if not self.spares or self._idle:
      self._push(self.now + HOUR, _FOUND, (repair,))
      return
    self._take_machine(repair)
    self.slow = False
    self._save_and_restart(SLOW)

  def _stop(self, *_: float) -> None:
    if not self._idle:
      self._save_and_restart(PLANNED)

  def _save_and_restart(self, why: str) -> None:
    if not self.down:
      self._stand(self.durable, why)
      self.saved = self.work
      self.phase = 0.0
      self.pending.clear()
    self._stand(self.restart, why)

  def _stall(self, length: float, *_: float) -> None:
    if not self._idle and not self.down:
      self._stand(_exponential(length, self.assumed.stall * MINUTE), STALLS)


def _exponential(drawn: float, mean: float) -> float:
  """Turns a number of [0, 1) into an exponential one of this mean."""
  return -math.log1p(-drawn) * mean


def _arrivals(stream: np.random.Generator, rate: float, shape: float, end: float) -> np.ndarray:
  """Returns the times of a renewal process with `rate` events a second and Weibull intervals."""
  if not rate:
    return np.empty(0)
  scale = 1 / rate / math.gamma(1 + 1 / shape)
  times = np.cumsum(stream.weibull(shape, 16) * scale)
  while times[-1] < end:
    later = np.cumsum(stream.weibull(shape, len(times)) * scale)
    times = np.append(times, times[-1] + later)
  return times[times < end]
