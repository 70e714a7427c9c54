"""Ray Data as the engine: embedded on this machine by default, on a cluster by its address.

All of Ray stands in this file. Its workers do the same jobs as those of the plain engine, each
video in a process of its own under limits, and write the rows themselves; what travels is where
videos lie, and back how many were done. Ray retries nothing: a job whose worker was killed stays
undone, and `shards.finish_jobs` asks for it again.
"""

import contextlib
import logging
import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.curation.shards import Make, Seen

_QUIET = {
  'RAY_DEDUP_LOGS': '0', 'RAY_DATA_DISABLE_PROGRESS_BARS': '1', 'RAY_USAGE_STATS_ENABLED': '0',
  # It would install what this process has, on machines that have it.
  'RAY_ENABLE_UV_RUN_RUNTIME_ENV': '0',
}  # fmt: skip


def run(jobs: Iterator[Any], make: Make, workers: int, seen: Seen, *, address: str = '') -> None:
  """Does jobs with Ray's workers; see `shards.Engine`.

  Args:
    jobs: see there.
    make: see there.
    workers: how many actors.
    seen: told of the things in a job when it is done.
    address: of a cluster, 'auto' for the one that this machine belongs to; '' starts one here.

  Raises:
    ConfigError: Ray is not installed, or nothing answers at the address.
    MgjaxError: a worker raised it.
  """
  ray = _ray()
  with _cluster(ray, workers, address):
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{'job': pickle.dumps(job)} for job in jobs]
    done = (
      ray.data.from_items(rows, override_num_blocks=len(rows))
      .map(
        _Actor,
        fn_constructor_args=(make,),
        concurrency=min(workers, len(rows)),
        num_cpus=1,
        max_restarts=0,
        max_task_retries=0,
      )
      .iter_rows()
    )
    for row in done:
      if row['error']:
        raise pickle.loads(row['error'])
      seen(row['count'])


class _Actor:
  """A worker in a process of Ray's."""

  def __init__(self, make: Make):
    self._count = 0
    self._work = make(self._seen)

  def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
    self._count = 0
    try:
      self._work(pickle.loads(row['job']))
    except (MgjaxError, OSError) as error:  # Ray would count it among what it lost
      return {'count': self._count, 'error': pickle.dumps(error)}
    return {'count': self._count, 'error': b''}

  def _seen(self, count: int) -> None:
    self._count += count


@contextlib.contextmanager
def _cluster(ray: Any, workers: int, address: str) -> Iterator[None]:
  """Inside, Ray is there; what was started here ends with it."""
  if ray.is_initialized():
    yield
    return
  handler = signal.getsignal(signal.SIGTERM)
  try:
    # Embedded, it may have as many processors as there shall be workers, whatever is here.
    own = {'num_cpus': workers + 1, 'include_dashboard': False} if not address else {}
    ray.init(address=address or 'local', log_to_driver=False, logging_level=logging.ERROR, **own)
  except (ConnectionError, RuntimeError, ValueError) as error:
    raise ConfigError(
      f'no Ray cluster answers at {address!r} ({error!s:.200}); give the address of its head, or '
      'none to start Ray on this machine'
    ) from error
  try:
    yield
  finally:
    ray.shutdown()
    with contextlib.suppress(ValueError, TypeError):
      signal.signal(signal.SIGTERM, handler)


def _ray() -> Any:
  os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
  try:
    import ray
    import ray.data
  except ImportError:
    raise ConfigError(
      "the engine ray needs Ray, which is not installed: pip install 'mgjax[curation]', or take "
      'the plain engine'
    ) from None
  logging.getLogger('ray.data').setLevel(logging.ERROR)
  return ray
