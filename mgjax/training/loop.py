"""The training loop: batches in, steps, reports, checkpoints; the same for every component."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from mgjax.checkpoints.manager import Checkpoints
from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import StepIterator
from mgjax.parallel.shard import put_batch
from mgjax.runtime.metrics import MetricWriter, validation_loss
from mgjax.runtime.progress import Progress
from mgjax.runtime.session import Session, signals_only
from mgjax.training.faults import check_state, explained
from mgjax.training.log_window import LogWindow
from mgjax.training.settings import RunSettings
from mgjax.training.state import State
from mgjax.training.step import Step

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Hooks:
  """The functions that the loop calls beside the step itself.

  Attributes:
    prepare: a batch on the devices to what the step reads.
    evaluate: averaged parameters to validation metrics; at the end the parameters themselves too.
    show: averaged parameters and a directory to a picture, which the first process alone writes.
    meta: the state to what a checkpoint keeps beside it.
    react: the state and what validation found to the state that goes on; None for the same.
    norms: the state to the norms of its parameters.
    explain: the state and the step that ended the run to a sentence on what was found and kept.
    flops: what the step reads to the operations that it takes on all devices, by its shapes alone.

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
  flops: Callable[[Batch], int] | None = None


def run_loop(
  state: State,
  step: Step,
  loader: StepIterator,
  hooks: Hooks,
  settings: RunSettings,
  *,
  mesh: Mesh,
  workdir: pathlib.Path,
  checkpoints: Checkpoints,
  stop_at: int | None = None,
  session: Session | None = None,
) -> State:
  """Trains from `state.step` to the end of the schedule, or until a signal asks to stop.

  Args:
    state: where to begin.
    step: jitted; may donate its state.
    loader: positioned at `state.step`.
    hooks: functions that it calls beside the step.
    settings: how long it trains, and when what happens.
    mesh: of the devices.
    workdir: where metrics and pictures go.
    checkpoints: where states go.
    stop_at: save and return after this step, as on a signal.
    session: of the process; by default one that hears signals, and that is all.

  Raises:
    NonFiniteError: more bad steps in a row than the guard lets pass, or a state that is not finite;
      that state is not saved.
    ConfigError: another process has taken over the work directory.
  """
  done = saved = int(state.step)
  last = settings.steps if stop_at is None else min(stop_at, settings.steps)
  stopping, evaluated, found = False, False, {}
  shapes = set()  # of batches: for each of them programs are compiled
  with contextlib.ExitStack() as around:
    session = session or around.enter_context(signals_only())
    during = session.phases.during
    writer = around.enter_context(MetricWriter(workdir, resume_step=done))
    # Its clock counts steps and their data alone.
    progress = Progress(settings.steps, done, clock=session.phases.working)
    around.enter_context(contextlib.closing(progress))
    waiting = progress.waiting
    explain = hooks.explain and during('evaluate', compiles=True)(hooks.explain)
    around.enter_context(explained(explain, lambda: state))
    around.enter_context(during('step'))
    if session.ledger is not None:
      session.ledger.begin(done)
    progress.report(done)
    window = LogWindow(writer, progress, session, mesh, hooks.flops)
    while done < last and not (stopping := session.stopped()):
      session.check()
      with during('data'):
        batch = next(loader)
      window.bound()
      shape = frozenset((name, array.shape, str(array.dtype)) for name, array in batch.items())
      new = shape not in shapes
      with during('compile' if new else 'step'), waiting(_compiling(batch) if new else ''):
        prepared = hooks.prepare(put_batch(batch, mesh))
        window.count(prepared)
        state, metrics = step(state, prepared)
      session.phases.unsaved = True
      shapes.add(shape)
      del batch, prepared
      done += 1
      window.add(done, metrics)
      window.replaced = loader.replaced
      if due(done, settings.log_every) or done == last:
        window.report(done, hooks.norms(state))
        session.note(done, always=False)
      found = {}
      if due(done, settings.evaluate_every) or done == settings.steps:
        first = '' if evaluated else 'compiling and running the first validation'
        with during('evaluate', compiles=not evaluated), waiting(first):
          if found := hooks.evaluate(state.average):  # too little data to validate on gives nothing
            ended = done == settings.steps
            writer.write(done, found | (_as_raw(hooks.evaluate(state.params)) if ended else {}))
          if hooks.react is not None:
            state = hooks.react(state, found)
        progress.validated(done, found)
        evaluated = True
      if hooks.show and (due(done, settings.show_every) or done == settings.steps):
        with during('evaluate', compiles=True), waiting('compiling and drawing samples'):
          directory = workdir / 'samples' / f'step_{done:06d}'
          writer.image(done, 'samples', hooks.show(state.average, directory))
      if due(done, settings.save_every) and done < last:
        window.check(done)
        with during('save', compiles=True):
          check_state(state, hooks.norms(state), done)
          session.check()
          checkpoints.save(state, hooks.meta(state), validation_loss(found))
        saved = done
        session.note(done, always=False)
    window.report(done, hooks.norms(state))
    with during('save', compiles=True):
      session.check()
      # Not asked of the disk, which may not show every host the same files at the same moment.
      if done != saved or done == 0:
        check_state(state, {}, done)
        checkpoints.save(state, hooks.meta(state), validation_loss(found))
      checkpoints.wait()
    session.phases.unsaved = False
    session.note(done, finished=done == settings.steps)
    if stopping:
      _log.warning('stopped by a signal; step %d is saved, the same command goes on', done)
  return state


def _as_raw(found: Metrics) -> Metrics:
  """Names what validation found with the parameters themselves, not their average."""
  return {f'validation_raw/{name.partition("/")[2]}': value for name, value in found.items()}


def _compiling(batch: Batch) -> str:
  """Says what is compiled for a batch, by its largest array."""
  name, array = max(batch.items(), key=lambda item: item[1].size)
  return f'compiling the step of {name} {" x ".join(map(str, array.shape))}'


def due(step: int, every: int) -> bool:
  """Whether something that happens every so many steps happens after this one."""
  return every > 0 and step % every == 0
