"""The training loop: batches in, steps, reports, checkpoints; the same for every part."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mgjax.core.errors import NonFiniteError
from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import StepIterator
from mgjax.parallel.shard import put_batch
from mgjax.train.checkpoint import Checkpoints
from mgjax.train.metrics import MetricWriter, Progress
from mgjax.train.state import State
from mgjax.train.step import Step

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When what happens, in steps; 0 is never, and the last step always saves.

  Attributes:
    steps: length of the run.
    log_every: a line of metrics, the mean over the steps since the last one.
    save_every: a checkpoint.
    evaluate_every: the validation loss.
    show_every: pictures.
  """

  steps: int
  log_every: int
  save_every: int
  evaluate_every: int
  show_every: int


@dataclasses.dataclass(frozen=True)
class Tasks:
  """What the loop calls on, beside the step itself.

  Attributes:
    prepare: a batch on the devices to what the step reads.
    evaluate: averaged parameters to validation metrics.
    show: averaged parameters and a directory to a picture.
    meta: the state to what a checkpoint keeps beside it.
  """

  prepare: Callable[[Batch], Batch]
  evaluate: Callable[[Tree], Metrics]
  show: Callable[[Tree, pathlib.Path], pathlib.Path] | None
  meta: Callable[[State], dict[str, Any]]


def run_loop(
  state: State,
  step: Step,
  loader: StepIterator,
  tasks: Tasks,
  schedule: Schedule,
  *,
  mesh: Mesh,
  workdir: pathlib.Path,
  checkpoints: Checkpoints,
  stop_at: int | None = None,
) -> State:
  """Trains from `state.step` to the end of the schedule, or until a signal asks to stop.

  Args:
    state: where to begin.
    step: jitted; may donate its state.
    loader: positioned at `state.step`.
    tasks: see `Tasks`.
    schedule: see `Schedule`.
    mesh: of the devices.
    workdir: where metrics and pictures go.
    checkpoints: where states go.
    stop_at: save and return after this step, as on a signal.

  Raises:
    NonFiniteError: the loss of a step was not finite; that state is not saved.
  """
  done = int(state.step)
  last = schedule.steps if stop_at is None else min(stop_at, schedule.steps)
  pending: list[Metrics] = []
  waited, began = 0.0, time.monotonic()
  with (
    MetricWriter(workdir, resume_step=done) as writer,
    contextlib.closing(Progress(schedule.steps, done)) as progress,
    stop_signal() as stopped,
  ):
    while done < last and not stopped():
      asked = time.monotonic()
      batch = tasks.prepare(put_batch(next(loader), mesh))
      waited += time.monotonic() - asked
      state, metrics = step(state, batch)
      pending.append(metrics)
      done += 1
      if due(done, schedule.log_every) or done == last:
        means = _mean(pending, done)
        spent = time.monotonic() - began
        means |= {'seconds_per_step': spent / len(pending), 'data_wait': waited / spent}
        writer.write(done, means)
        progress.report(done, means)
        pending, waited, began = [], 0.0, time.monotonic()
      if due(done, schedule.evaluate_every) or done == schedule.steps:
        writer.write(done, tasks.evaluate(state.average))
      if tasks.show and (due(done, schedule.show_every) or done == schedule.steps):
        directory = workdir / 'samples' / f'step_{done:06d}'
        writer.image(done, 'samples', tasks.show(state.average, directory))
      if due(done, schedule.save_every) and done < last:
        checkpoints.save(state, tasks.meta(state))
    if pending:
      _mean(pending, done)  # never save what is not finite
    if done not in checkpoints.steps():
      checkpoints.save(state, tasks.meta(state))
    checkpoints.wait()
    if stopped():
      _log.warning('stopped by a signal; step %d is saved, the same command goes on', done)
  return state


def due(step: int, every: int) -> bool:
  """Whether something that happens every so many steps happens after this one."""
  return every > 0 and step % every == 0


def _mean(pending: list[Metrics], done: int) -> dict[str, float]:
  # The one place where the host waits for the devices.
  rows = jax.device_get(pending)
  first = done - len(rows)
  for offset, row in enumerate(rows):
    if not math.isfinite(float(row['loss'])):
      raise NonFiniteError(
        f'the loss of step {first + offset + 1} is {float(row["loss"])}; the last checkpoint is '
        'good: lower optimizer.peak or optimizer.clip, or look at the data, and run again'
      )
  return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
  """Turns the first SIGTERM or Ctrl-C into a request to stop; the second one quits at once."""
  asked: list[int] = []

  def handle(number: int, frame: Any) -> None:
    if asked:
      signal.default_int_handler(number, frame)
    asked.append(number)
    _log.warning('stopping after this step; again to quit at once')

  numbers = (signal.SIGTERM, signal.SIGINT)
  try:
    before = {number: signal.signal(number, handle) for number in numbers}
  except ValueError:  # not in the main thread: whoever owns it handles signals
    before = {}
  try:
    yield lambda: bool(asked)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
