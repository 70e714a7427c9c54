"""The expensive pass: every shard of videos that is not measured yet, by an engine.

A `Job` is a shard: where its videos lie, never what is in them. A `ShardWorker` does one job after
the other, each video in a process under limits, and writes the rows itself; an engine only spreads
jobs over workers. So a video that kills the process which opens it is a row with the reason, a
worker that is killed costs one shard, and the rows do not depend on the engine.
"""

import collections
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.worker_pool import ALLOWANCE, Allowance, Guarded, Lost
from mgjax.lab.curation.filters.scenes import scene_library
from mgjax.lab.curation.gate import OPEN, Gate
from mgjax.lab.curation.measure import error_row, measure_video
from mgjax.lab.curation.rows import GATED, Scores
from mgjax.lab.curation.scores.scorer import make_scorers
from mgjax.lab.curation.settings import MeasureSettings

VIDEOS_PER_SHARD = 16
_ROUNDS = 3  # in a row of which an engine brings nothing, until it is given up


@dataclasses.dataclass(frozen=True)
class Job:
  """A shard to measure: its index, the place of its first video among all, and its videos."""

  index: int
  first: int
  inputs: Inputs


Measure = Callable[[tuple[Input | RejectedEntry, int]], list[JSON]]
Seen = Callable[[int], None]


class ShardWorker:
  """Measures shards, one after the other; calls `seen` with 1 after each video."""

  def __init__(
    self, scores: Scores, settings: MeasureSettings, allowance: Allowance, gate: Gate, seen: Seen
  ):
    self._scores, self._gate, self._seen = scores, gate, seen
    measure = functools.partial(_measure, settings, gate)
    self._measure = Guarded(measure, allowance, functools.partial(check_installed, settings))

  def __call__(self, job: Job) -> None:
    """Measures a shard and writes its rows; of a measured shard only the videos now let through."""
    self._measure.start()
    there, seconds, name = self._scores.rows(job.index)
    known_rows = collections.defaultdict(list)
    for row in there:
      known_rows[row['place']].append(row)
    began = time.monotonic() - seconds
    rows = []
    for index, video in enumerate(job.inputs.between(0, len(job.inputs)), job.first):
      if index in known_rows and not self._opened(known_rows[index][0]):
        rows += known_rows[index]
        self._seen(1)
        continue
      result = self._measure((video, index))
      rows += [error_row(video.name, result.reason, index)] if isinstance(result, Lost) else result
      self._seen(1)
    self._scores.write(job.index, rows, time.monotonic() - began, instead_of=name)

  def _opened(self, row: JSON) -> bool:
    return bool(row.get(GATED)) and not self._gate.reason(row)

  def close(self) -> None:
    """Ends its process; a call under way in another thread raises."""
    self._measure.close(for_good=True)


# Does jobs one after the other when it is called; `close` ends it, and a call in another thread
# then raises.
Worker = Any
Make = Callable[[Seen], Worker]  # it pickles
# Has as many workers as it is told do jobs, which it takes as these become free, and tells how many
# things more are done; some may be left undone where workers were killed.
Engine = Callable[[Iterator[Any], Make, int, Seen], None]


@dataclasses.dataclass(frozen=True)
class Executor:
  """Who does the jobs of a pass.

  Attributes:
    engine: spreads them over workers.
    workers: how many work at once; 0 for one a core.
    allowance: what one video may cost.
    progress: called with how many videos or clips are done, and of how many.
  """

  engine: Engine
  workers: int = 0
  allowance: Allowance = ALLOWANCE
  progress: Callable[[int, int], None] = lambda done, total: None


def check_installed(settings: MeasureSettings) -> None:
  """Imports what measuring needs, so that the first video does not pay for it.
  Raises ConfigError if something is not installed.
  """
  scene_library()
  make_scorers(settings)


def measure_all(
  inputs: Inputs,
  scores: Scores,
  settings: MeasureSettings,
  executor: Executor,
  *,
  gate: Gate = OPEN,
  limit: int = 0,
) -> None:
  """Measures the videos that are not measured yet.

  This includes videos that were not decoded and that the gate lets through now. With a limit it
  measures a fair sample of about that many videos.

  Raises:
    DataError: the engine loses shards repeatedly.
    ConfigError: something is not installed.
  """
  check_installed(settings)
  indices = []
  total = 0
  for index in scores.order():
    if not limit or total < limit:
      indices.append(index)
      total += len(scores.places(index))
  finish_jobs(
    lambda: missing_shards(scores, indices, gate),
    lambda missing: _jobs(inputs, scores, missing),
    lambda shard: len(scores.places(shard)),
    functools.partial(ShardWorker, scores, settings, executor.allowance, gate),
    executor,
    total,
  )


def finish_jobs(
  missing: Callable[[], list[int]],
  jobs: Callable[[list[int]], Iterator[object]],
  size: Callable[[int], int],
  make: Make,
  executor: Executor,
  total: int,
) -> None:
  """Runs jobs in an executor until all shards are done, again if workers were killed.

  `missing` returns the shards that are not done, `jobs` makes their jobs, `size` returns how many
  of the `total` items a shard has. Raises DataError if several rounds finish no shard.
  """
  failures = 0
  before = -1
  while remaining := missing():
    failures = failures + 1 if len(remaining) == before else 0
    before = len(remaining)
    if failures >= _ROUNDS:
      raise DataError(
        f'{len(remaining)} shards were lost {failures} times, their workers were killed; is memory '
        'short? The same command goes on with them'
      )
    meter = _Meter(total - sum(map(size, remaining)), total, executor.progress)
    executor.engine(jobs(remaining), make, executor.workers or os.cpu_count() or 1, meter)


def estimate_hours(scores: Scores, workers: int) -> float:
  """Estimates the hours that all videos take this many workers, from those that are measured."""
  seconds = scores.seconds()
  videos = sum(len(scores.places(index)) for index in seconds)
  return sum(seconds.values()) / max(videos, 1) * scores.videos / max(workers, 1) / 3600


def missing_shards(scores: Scores, indices: Sequence[int], gate: Gate = OPEN) -> list[int]:
  """Returns the shards that are not measured, or have videos that the gate lets through now."""
  there = scores.shards()
  opened = set()
  if (table := scores.gated()) is not None:
    opened = set(scores.shard_of(table.column('place').to_numpy()[gate.opened(table)]).tolist())
  return [index for index in indices if index not in there or index in opened]


def _jobs(inputs: Inputs, scores: Scores, shards: list[int]) -> Iterator[Job]:
  for index in shards:
    places = scores.places(index)
    yield Job(index, places.start, inputs.part(places.start, places.stop))


def _measure(
  settings: MeasureSettings, gate: Gate, job: tuple[Input | RejectedEntry, int]
) -> list[dict[str, Any]]:
  video, index = job
  return measure_video(video, settings, index, gate)


class _Meter:
  """Counts videos, whichever thread measures them."""

  def __init__(self, done: int, total: int, progress: Callable[[int, int], None]):
    self._done, self._total, self._progress = done, total, progress
    progress(done, total)

  def __call__(self, count: int) -> None:
    self._done += count
    self._progress(self._done, self._total)
