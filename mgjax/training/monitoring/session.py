"""A session: one process of a run, with its signals, its watchdog and its goodput ledger."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import jax

from mgjax.parallel.distributed import PATIENCE
from mgjax.training.monitoring.goodput import Ledger
from mgjax.training.monitoring.phases import Phases
from mgjax.training.monitoring.signals import stop_signal
from mgjax.training.monitoring.watchdog import PhaseLimits, watched
from mgjax.training.monitoring.workdir_lock import Hold, hold


@dataclasses.dataclass(frozen=True)
class Session:
  """One process of a run, from its start to its end.

  Attributes:
    phases: what it is doing.
    stopped: whether a signal asks to stop; all processes ask equally often.
    ledger: records where its time goes; None for no record.
    held: the lock on the work directory; None where another process of the run has it.
  """

  phases: Phases
  stopped: Callable[[], bool]
  ledger: Ledger | None = None
  held: Hold | None = None

  def check(self) -> None:
    """Raises ConfigError if another process has taken over the work directory."""
    if self.held is not None:
      self.held.check()

  def note(self, step: int | None = None, **options: bool) -> None:
    """Notes in the ledger, if there is one, how far the run is; see `Ledger.note`."""
    if self.ledger is not None:
      self.ledger.note(step, **options)


@contextlib.contextmanager
def run_session(
  workdir: str | os.PathLike[str], limits: PhaseLimits, spent: float = 0.0
) -> Iterator[Session]:
  """Locks the work directory of a run, starts its watchdog, signal handlers and goodput ledger.

  Nothing but the lock is written there before the first note. `spent` are the seconds that the
  process had been there before. ConfigError if another process runs in the work directory.
  """
  phases = Phases(spent)
  patience = PATIENCE if jax.distributed.is_initialized() else 0
  with (
    hold(workdir) as held,
    watched(phases, limits, patience=patience),
    stop_signal(phases.stop) as stopped,
  ):
    yield Session(phases, stopped, Ledger(workdir, phases), held)


@contextlib.contextmanager
def signals_only() -> Iterator[Session]:
  """Hears signals alone."""
  phases = Phases()
  with stop_signal(phases.stop) as stopped:
    yield Session(phases, stopped)
