"""The training loop: batches in, steps, reports, checkpoints; the same for every part."""

import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import StepIterator
from mgjax.parallel.shard import put_batch
from mgjax.train.checkpoint import Checkpoints
from mgjax.train.faults import check_norms, explained, good
from mgjax.train.gate import momentary
from mgjax.train.metrics import Means, MetricWriter, Progress
from mgjax.train.state import State
from mgjax.train.step import Step
from mgjax.train.validation import validation_loss

# Steps whose metrics may wait on the devices: so however rarely a run reports, it keeps few of
# them and hears soon of a loss that is not finite.
PENDING = 100
# Steps that may be under way when the next batch is sent to the devices: one runs, one waits with
# its batch in place. More would hold more batches there and win nothing.
AHEAD = 2

_log = logging.getLogger(__name__)
_polls = itertools.count(1)  # over all loops of this process: see `stop_signal`


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When what happens, in steps; 0 is never, and the last step always reports and saves.

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
    show: averaged parameters and a directory to a picture, which the first process alone writes.
    meta: the state to what a checkpoint keeps beside it.
    react: the state and what validation found to the state that goes on; None for the same.
    norms: the state to the norms of its parameters.
    explain: the state and the step that ended the run to a sentence on what was found and kept.

  Every process calls all of them at the same steps: where the state lies in shards over several
  hosts, each has its share in what they compute.
  """

  prepare: Callable[[Batch], Batch]
  evaluate: Callable[[Tree], Metrics]
  show: Callable[[Tree, pathlib.Path], pathlib.Path] | None
  meta: Callable[[State], dict[str, Any]]
  react: Callable[[State, Metrics], State] | None = None
  norms: Callable[[State], Metrics] = lambda state: {}
  explain: Callable[[State, int], str] | None = None


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
    NonFiniteError: more bad steps in a row than the gate lets pass; that state is not saved.
  """
  done = saved = int(state.step)
  last = schedule.steps if stop_at is None else min(stop_at, schedule.steps)
  stopping, found = False, {}
  with (
    MetricWriter(workdir, resume_step=done) as writer,
    contextlib.closing(Progress(schedule.steps, done)) as progress,
    stop_signal() as stopped,
    explained(tasks.explain, lambda: state),
  ):
    window = _Window(writer, progress)
    while done < last and not (stopping := stopped()):
      asked = time.monotonic()
      batch = next(loader)
      window.waited += time.monotonic() - asked
      window.bound()
      state, metrics = step(state, tasks.prepare(put_batch(batch, mesh)))
      del batch
      done += 1
      window.add(done, metrics)
      window.replaced = loader.replaced
      if due(done, schedule.log_every) or done == last:
        window.report(done, tasks.norms(state))
      found = {}
      if due(done, schedule.evaluate_every) or done == schedule.steps:
        if found := tasks.evaluate(state.average):  # too little data to validate on gives nothing
          writer.write(done, found)
        if tasks.react is not None:
          state = tasks.react(state, found)
      if tasks.show and (due(done, schedule.show_every) or done == schedule.steps):
        directory = workdir / 'samples' / f'step_{done:06d}'
        writer.image(done, 'samples', tasks.show(state.average, directory))
      if due(done, schedule.save_every) and done < last:
        window.check(done)
        check_norms(tasks.norms(state), done)
        checkpoints.save(state, tasks.meta(state), validation_loss(found))
        saved = done
    window.report(done, tasks.norms(state))
    # Not asked of the disk, which may not show every host the same files at the same moment.
    if done != saved or done == 0:
      checkpoints.save(state, tasks.meta(state), validation_loss(found))
    checkpoints.wait()
    if stopping:
      _log.warning('stopped by a signal; step %d is saved, the same command goes on', done)
  return state


def due(step: int, every: int) -> bool:
  """Whether something that happens every so many steps happens after this one."""
  return every > 0 and step % every == 0


class _Window:
  """The steps since the last line of metrics."""

  def __init__(self, writer: MetricWriter, progress: Progress):
    self._writer, self._progress = writer, progress
    self.replaced = 0  # samples of this host that stand for broken ones, since the loop began
    self._clear()

  def _clear(self) -> None:
    self._pending: list[Metrics] = []
    self._means = Means()
    self._momentary: Metrics = {}
    self._steps = 0
    self._replaced_before = self.replaced
    self.waited, self._began = 0.0, time.monotonic()

  def add(self, done: int, metrics: Metrics) -> None:
    """Takes up the metrics of step `done`, which may still be on their way."""
    self._momentary = {name: each for name, each in metrics.items() if momentary(name)}
    self._pending.append({name: metrics[name] for name in metrics.keys() - self._momentary.keys()})
    if len(self._pending) >= PENDING:
      self.check(done)

  def bound(self) -> None:
    """Waits until all steps but the last `AHEAD` - 1 are done, so that few batches are in place."""
    if len(self._pending) >= AHEAD:
      jax.block_until_ready(self._pending[-AHEAD])

  def check(self, done: int) -> None:
    """Fetches what is pending, the last of it from step `done`; raises as `good` does."""
    rows, self._pending = jax.device_get(self._pending), []  # here alone the host waits for devices
    self._steps += len(rows)
    for row in good(rows, done):
      self._means.add(row)

  def report(self, done: int, norms: Metrics) -> None:
    """Writes the means over the steps that end with step `done`, if there are any, and norms."""
    self.check(done)
    norms = check_norms(norms, done)
    if self._steps:
      means = self._means.means() | norms | jax.device_get(self._momentary)
      spent = time.monotonic() - self._began
      means |= {'seconds_per_step': spent / self._steps, 'data_wait': self.waited / spent}
      means['replaced_samples'] = self.replaced - self._replaced_before
      self._writer.write(done, means)
      self._progress.report(done, means)
      self._clear()


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
  """Turns the first SIGTERM or Ctrl-C into a request to stop; a second Ctrl-C quits at once.

  What it yields is asked once before each step and says whether to stop instead. A signal to any of
  several processes stops all of them before the same step: JAX's preemption service, which takes
  SIGTERM for itself, settles on a poll that none has reached yet. Polls are therefore counted over
  the life of the process: steps begin anew with each loop, and late when a run is resumed.
  """
  several = jax.distributed.is_initialized()
  asked: list[int] = []

  def handle(number: int, frame: Any) -> None:
    if asked:
      signal.default_int_handler(number, frame)
    asked.append(number)
    _log.warning('stopping after this step; again to quit at once')
    if several:
      os.kill(os.getpid(), signal.SIGTERM)

  def stopped() -> bool:
    return multihost_utils.reached_preemption_sync_point(next(_polls)) if several else bool(asked)

  numbers = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
  try:
    before = {number: signal.signal(number, handle) for number in numbers}
  except ValueError:  # not in the main thread: whoever owns it handles signals
    before = {}
  try:
    yield stopped
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
