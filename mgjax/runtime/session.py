"""What surrounds a run from its start to its end: signals, a watchdog, an account of its time."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mgjax.parallel.distributed import PATIENCE
from mgjax.runtime.goodput import Ledger
from mgjax.runtime.phases import Phases
from mgjax.runtime.signals import stop_signal
from mgjax.runtime.watchdog import read_limits, watched


@dataclasses.dataclass(frozen=True)
class Session:
  """One process of a run, from its start to its end.

  Attributes:
    phases: what it is doing.
    stopped: whether a signal asks to stop; all processes ask equally often.
    ledger: keeps account of its time; None for nobody.
  """

  phases: Phases
  stopped: Callable[[], bool]
  ledger: Ledger | None = None

  def note(self, step: int | None = None, **options: bool) -> None:
    """Notes in the ledger, if there is one, how far the run is; see `Ledger.note`."""
    if self.ledger is not None:
      self.ledger.note(step, **options)


@contextlib.contextmanager
def run_session(
  workdir: str | os.PathLike[str], limits: Mapping[str, Any] | ConfigDict, spent: float = 0.0
) -> Iterator[Session]:
  """Watches over a run, hears signals and keeps account of its time in the work directory.

  Args:
    workdir: of the run; nothing is written there before the first note.
    limits: `train.limits` of its configuration.
    spent: seconds that its process had been there before.

  Raises:
    ConfigError: a limit makes no sense.
  """
  phases = Phases(spent)
  patience = PATIENCE if jax.distributed.is_initialized() else 0
  with (
    watched(phases, read_limits(limits), patience=patience),
    stop_signal(phases.stop) as stopped,
  ):
    yield Session(phases, stopped, Ledger(workdir, phases))


@contextlib.contextmanager
def signals_only() -> Iterator[Session]:
  """Hears signals alone."""
  phases = Phases()
  with stop_signal(phases.stop) as stopped:
    yield Session(phases, stopped)
