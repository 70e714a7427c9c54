"""The watchdog: ends a process whose step, save or other phase takes too long (exit code 124).

A stuck process of several still sends heartbeats, and the others wait for it in the next exchange.
So every process has a watchdog of its own, a thread that looks at the clock; steps know nothing of
it.
"""

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from mgjax.core.settings import Checked, Range
from mgjax.training.monitoring.phases import Phases

EXIT_CODE = 124
OFTEN = 1.0  # seconds between two looks
_Seconds = Annotated[float, Range(least=0, most=1e9)]  # 31 years; longer is a slip


@dataclasses.dataclass(frozen=True)
class PhaseLimits(Checked):
  """Seconds that each phase of a run may take: `train.limits` of a configuration; 0 for any time.

  Attributes:
    compile: compiling the programs of a step.
    step: one step, with waiting for its data.
    evaluate: a validation, or pictures.
    save: a checkpoint.
    restore: reading one.
    stop: from a signal to the end of the process; Slurm's recipe gives it 300.
    heartbeat: without a sign of life from one of several processes; JAX watches that one.
  """

  compile: _Seconds = 7200.0
  step: _Seconds = 900.0
  evaluate: _Seconds = 3600.0
  save: _Seconds = 3600.0
  restore: _Seconds = 3600.0
  stop: _Seconds = 270.0
  heartbeat: _Seconds = 100.0

  def watched(self) -> list[float]:
    """Returns the limits that a watchdog enforces."""
    every = dataclasses.asdict(self).items()
    return [limit for name, limit in every if limit and name != 'heartbeat']


@contextlib.contextmanager
def watched(
  phases: Phases, limits: PhaseLimits, leave: Callable[[int], Any] = os._exit, patience: float = 0.0
) -> Iterator[None]:
  """Watches over a block, in which no phase may take longer than its limit.

  If one does, all threads' stacks are printed below a sentence, and `leave` ends the process with
  exit code 124. Waiting for data is part of a step. What may compile first has that limit as well.
  After a signal the block has `stop` seconds to end; if nothing is unsaved then, the exit code is
  0. Before its end it waits `patience` seconds, in which other processes, which end with it, may
  print their stacks.
  """
  over = threading.Event()
  pause = min([OFTEN, *(limit / 4 for limit in limits.watched())])

  def watch() -> None:
    while not over.wait(pause):
      if (overdue := _overdue(phases, limits)) is not None:
        message, code = overdue
        _tell(message, stacks=code != 0)
        if not over.wait(patience):
          leave(code)
        return

  thread = threading.Thread(target=watch, name='watchdog', daemon=True)
  if limits.watched():
    thread.start()
  try:
    yield
  finally:
    over.set()
    if thread.ident is not None and thread is not threading.current_thread():
      thread.join()


def _overdue(phases: Phases, limits: PhaseLimits) -> tuple[str, int] | None:
  """Returns the message about a phase that takes too long, and the exit code; None without one."""
  moment = phases.clock()
  now = phases.now
  if phases.stopping is not None and limits.stop:
    spent = moment - phases.stopping
    if spent > limits.stop:
      reason = f'a signal asked to stop {spent:.3g} s ago (train.limits.stop = {limits.stop:g})'
      if not phases.unsaved:
        return f'{reason}; nothing is unsaved, so it ends now, in the phase {now.name}', 0
      return f'{reason}, but the phase {now.name} does not end; unsaved steps are done again', (
        EXIT_CODE
      )
  name = 'step' if now.name == 'data' else now.name
  limit = getattr(limits, name, 0.0)
  if now.compiles and limit:
    limit = limit + limits.compile if limits.compile else 0.0
  spent = moment - now.since
  if not limit or spent <= limit:
    return None
  suffix = ' with that of compile' if now.compiles else ''
  return (
    f'the phase {now.name} has taken {spent:.3g} s, its limit{suffix} is {limit:g} s '
    f'(train.limits.{name}); this process is stuck, or the limit too low. The same command goes on '
    'from the newest checkpoint',
    EXIT_CODE,
  )


def _tell(message: str, stacks: bool) -> None:
  """Prints to the standard error; that it cannot be written to must not keep it from ending."""
  with contextlib.suppress(Exception):
    stream = sys.__stderr__
    print(f'watchdog: {message}.', file=stream, flush=True)
    if stacks and stream is not None:
      print('Where its threads are:', file=stream, flush=True)
      faulthandler.dump_traceback(file=stream, all_threads=True)
      stream.flush()
