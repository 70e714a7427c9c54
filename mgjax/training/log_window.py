"""The log window: accumulates metrics and step times between two lines of metrics."""

import collections
import resource
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mgjax.core.typing import Batch, Metrics
from mgjax.parallel.chips import GIB, find_chip, peak_bytes
from mgjax.training.guard import momentary
from mgjax.training.monitoring.metrics import Means
from mgjax.training.monitoring.progress import Progress
from mgjax.training.monitoring.session import Session
from mgjax.training.monitoring.trackers import RunLog
from mgjax.training.non_finite import check_norms, drop_skipped

T = TypeVar('T')

# The most steps whose metrics stay on the devices. A run that reports rarely still keeps few of
# them, and soon notices a loss that is not finite.
PENDING = 100
# The most steps in flight when the next batch is sent to the devices: one runs, and one waits with
# its batch in place. More would hold more batches there, and save no time.
AHEAD = 2
_SHOWN = 50  # steps of the means that the progress bar shows between two lines of metrics
_TIMES = 10_000  # the most steps whose times are kept


class LogWindow:
  """The steps since the last line of metrics."""

  def __init__(
    self,
    writer: RunLog,
    progress: Progress,
    session: Session,
    mesh: Mesh,
    flops: Callable[[Batch], int] | None = None,
  ):
    """Starts with no steps; `flops` maps a batch to the operations of a step, if known."""
    self._writer, self._progress, self._session = writer, progress, session
    self._mesh, self._flops = mesh, flops
    self._done = 0  # the last step that was added
    self._recent: collections.deque[Metrics] = collections.deque(maxlen=_SHOWN)
    self.replaced = 0  # broken samples of this host that were replaced, since the loop started
    self._clear()

  def _clear(self) -> None:
    self._pending: list[Metrics] = []
    self._means = Means()
    self._momentary: Metrics = {}
    self._steps = 0
    self._replaced_before = self.replaced
    self._operations = 0
    self._times: collections.deque[float] = collections.deque(maxlen=_TIMES)
    phases = self._session.phases
    self._began = phases.clock()
    self._data_before = phases.seconds()['data']
    self._seen = self._worked = phases.working()  # when the last step was seen to be done
    self._unseen = 0  # steps since then
    self._waited = 0.0  # for devices

  def count(self, batch: Batch) -> None:
    """Counts the operations of a step on a batch, on all devices."""
    if self._flops is not None:
      self._operations += self._flops(batch)

  def add(self, done: int, metrics: Metrics) -> None:
    """Adds the metrics of step `done`, which the devices may still compute."""
    self._done = done
    self._momentary = {name: value for name, value in metrics.items() if momentary(name)}
    self._pending.append({name: metrics[name] for name in metrics.keys() - self._momentary.keys()})
    self._unseen += 1
    if len(self._pending) >= PENDING:
      self.check(done)

  def bound(self) -> None:
    """Waits until all steps but the last `AHEAD` - 1 are done, to limit batches on the devices."""
    if len(self._pending) >= AHEAD:
      self._wait(lambda: jax.block_until_ready(self._pending[-AHEAD]), still_running=AHEAD - 1)
      if self._progress.due():
        self._show()

  def check(self, done: int) -> None:
    """Fetches the pending metrics, up to step `done`; raises as `drop_skipped` does."""
    # Only here does the host wait for all work on the devices.
    rows = self._wait(lambda: jax.device_get(self._pending), still_running=0)
    self._pending = []
    self._steps += len(rows)
    for row in drop_skipped(rows, done):
      self._means.add(row)
      self._recent.append(row)

  def report(self, done: int, norms: Metrics) -> None:
    """Writes the means over the steps that end with step `done`, if there are any, and norms."""
    self.check(done)
    norms = check_norms(norms, done)
    if self._steps:
      means = self._means.means() | norms | jax.device_get(self._momentary)
      means |= self._speed()
      means['replaced_samples'] = self.replaced - self._replaced_before
      self._writer.write(done, means)
      self._progress.report(done, means)
      self._clear()

  def _show(self) -> None:
    """Shows the steps that are done, without waiting for others."""
    count = len(self._pending) - (AHEAD - 1)
    self._pending[:count] = jax.device_get(self._pending[:count])
    rows = [row for row in [*self._recent, *self._pending[:count]] if not row.get('skipped')]
    means = Means()
    for row in rows[-_SHOWN:]:
      means.add(row)
    self._progress.report(self._done - (AHEAD - 1), means.means())

  def _wait(self, wait: Callable[[], T], still_running: int) -> T:
    """Waits for devices; `still_running` steps may be unfinished on return."""
    phases = self._session.phases
    before = phases.clock()
    result = wait()
    self._waited += phases.clock() - before
    if (count := self._unseen - still_running) > 0:
      now = phases.working()
      self._times.extend([(now - self._seen) / count] * count)
      self._seen, self._unseen = now, still_running
    return result

  def _speed(self) -> Metrics:
    """Returns step times, use of the hardware and shares of time (docs/reference/training.md)."""
    phases = self._session.phases
    spent = phases.clock() - self._began
    seconds = phases.seconds()
    working = phases.working() - self._worked
    times = np.asarray(self._times or [0.0])
    metrics: Metrics = {
      'seconds_per_step': spent / self._steps,
      'seconds_per_step_p50': np.percentile(times, 50),
      'seconds_per_step_p99': np.percentile(times, 99),
      'data_wait': (seconds['data'] - self._data_before) / spent,
      'host_memory_gib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
    }
    if (held := peak_bytes()) is not None:
      metrics['device_memory_gib'] = held / GIB
    if self._operations and working:
      flops_per_device = self._operations / working / self._mesh.devices.size
      metrics['tflops_per_device'] = flops_per_device / 1e12
      if chip := find_chip(self._mesh.devices.flat[0].device_kind):
        metrics['mfu'] = flops_per_device / chip.flops
    metrics |= _gaps(np.percentile(times, 50), (working - self._waited) / self._steps)
    if account := self._session.ledger and self._session.ledger.now():
      metrics |= {f'spent/{name}': share for name, share in account.shares().items()}
      metrics['goodput'] = account.share
    return metrics


def _gaps(step: float, host: float) -> Metrics:
  """Returns how far hosts differ in speed. Every process calls it at the same steps.

  Hosts wait for each other in every step, so their step times hardly differ. The slow host is the
  one that spends the most time on its own work: its data, and the dispatch of the step.
  """
  if jax.process_count() == 1:
    return {}
  own = np.asarray([step, host], np.float32)
  steps, hosts = np.asarray(multihost_utils.process_allgather(own)).T
  return {
    'seconds_per_step_gap': np.ptp(steps),
    'host_seconds_gap': np.ptp(hosts),
    'slowest_host': int(np.argmax(hosts)),
  }
