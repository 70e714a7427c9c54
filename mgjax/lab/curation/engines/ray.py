"""Ray Data as the engine: embedded on this machine by default, on a cluster by its address.

All of Ray stands in this file. Its workers do the same jobs as those of the plain engine, each
video in a process of its own under limits, and write the rows themselves. Only the places of videos
are sent, and the number of finished ones comes back. Ray retries nothing: a job whose worker was
killed stays undone, and `shards.finish_jobs` starts it again.
"""

import contextlib
import functools
import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from types import ModuleType

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.lab.curation.shards import Engine, Make, Seen

_QUIET = {
  'RAY_DEDUP_LOGS': '0',
  'RAY_DATA_DISABLE_PROGRESS_BARS': '1',
  'RAY_USAGE_STATS_ENABLED': '0',
  # It would install what this process has, on machines that have it.
  'RAY_ENABLE_UV_RUN_RUNTIME_ENV': '0',
}


@contextlib.contextmanager
def started(workers: int, address: str = '') -> Iterator[Engine]:
  """Yields the engine; a Ray that is started for it ends with the block.

  The address is of a cluster, 'auto' for the one that this machine belongs to; '' starts one here.
  Raises ConfigError if Ray is not installed, or nothing answers at the address.
  """
  ray = _ray()
  # Embedded, it may have as many processors as there shall be workers, whatever is here.
  own = {'num_cpus': workers + 1, 'include_dashboard': False} if not address else {}
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'os.fork', RuntimeWarning)  # only to call exec after it
    try:
      ray.init(address=address or 'local', log_to_driver=False, logging_level='ERROR', **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
      raise ConfigError(
        f'no Ray cluster answers at {address!r} ({error!s:.200}); give the address of its head, '
        'or none to start Ray on this machine'
      ) from error
    try:
      yield functools.partial(_run, ray)
    finally:
      ray.shutdown()


def _run(ray: ModuleType, jobs: Iterator[object], make: Make, workers: int, seen: Seen) -> None:
  """Does jobs with Ray's actors; see `shards.Engine`."""
  context = ray.data.DataContext.get_current()
  context.max_errored_blocks = -1  # those whose actor was killed
  context.enable_progress_bars = context.print_on_execution_start = False
  rows = [{'job': pickle.dumps(job)} for job in jobs]
  with warnings.catch_warnings():
    # That Ray retries nothing can be said in this way only, up to Ray 2.64.
    warnings.filterwarnings('ignore', '.*ray_remote_args', Warning)
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
      _Actor,
      fn_constructor_args=(make,),
      compute=ray.data.ActorPoolStrategy(
        size=min(workers, len(rows)), max_tasks_in_flight_per_actor=1
      ),
      num_cpus=1,
      max_restarts=0,
      max_task_retries=0,
    )
  for row in done.iter_rows():
    if row['error']:
      raise pickle.loads(row['error'])
    seen(row['count'])


class _Actor:
  """A worker in a process of Ray's."""

  def __init__(self, make: Make):
    self._count = 0
    self._work = make(self._seen)

  def __call__(self, row: JSON) -> JSON:
    self._count = 0
    try:
      self._work(pickle.loads(row['job']))
    except (MgjaxError, OSError) as error:  # Ray would count it among what it lost
      return {'count': self._count, 'error': pickle.dumps(error)}
    return {'count': self._count, 'error': b''}

  def _seen(self, count: int) -> None:
    self._count += count


def _ray() -> ModuleType:
  os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
  try:
    import ray
    import ray.data  # pyright: ignore[reportMissingImports]
  except ImportError:
    raise ConfigError(
      "the engine ray needs Ray, which is not installed: pip install 'mgjax[curation]', or take "
      'the plain engine'
    ) from None
  logging.getLogger('ray.data').setLevel(logging.ERROR)
  return ray
