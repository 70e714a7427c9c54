"""Keeps jobs in a database (DBOS on SQLite, or on Postgres with many workers) and makes them.

A job is a workflow of DBOS with one step, which makes all files in a folder of its own and then
puts each to its place whole: a step that runs twice, because its process was killed in the midst,
writes the same files again. What a process had when it died goes back into the queue when it starts
again or, on Postgres, when any other worker sees that it is silent.
"""

import contextlib
import datetime
import itertools
import logging
import pathlib
import secrets
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.errors import ConfigError, MgjaxError, first_line
from mgjax.serving.videos import files
from mgjax.serving.videos.models import CancelledError, Live, Models
from mgjax.serving.videos.results import Results
from mgjax.serving.videos.schema import Limits, video_object

_QUEUE, _WORKERS = 'videos', 'workers'
_POLL = 0.05  # seconds between two looks into the queue; a job waits half of it
_BEAT, _DEAD = 1.0, 30.0  # seconds: between two looks around; a worker silent for so long is dead
_SETTLE = 0.5  # seconds in which the database has what ended last
_TRIES = 20  # of a job whose process dies each time
_KEPT = 3600.0  # seconds for which the row of a cancelled job stays, for the thread that has it
_STATES = {
  'ENQUEUED': 'queued', 'DELAYED': 'queued', 'PENDING': 'in_progress', 'SUCCESS': 'completed',
  'ERROR': 'failed', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED': 'failed',
}  # fmt: skip
_ENDED = ['SUCCESS', 'ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED']
_log = logging.getLogger(__name__)


class Jobs:
  """Jobs by their ids: taken in, made here or by another worker, looked at, cancelled, deleted."""

  def __init__(
    self, database: str, worker: str, results: Results, scratch: pathlib.Path, models: Models,
    limits: Limits, *, log_ids: bool = False,
  ):  # fmt: skip
    """Opens the database; jobs are made as soon as the models are ready, the oldest first.

    Args:
      database: a URL of SQLite or Postgres.
      worker: the name of this process, another one for each worker of a database.
      scratch: a folder of this process alone.
      log_ids: whether the log may name jobs.

    Raises:
      ConfigError: the database cannot be used.
    """
    from dbos import DBOS

    self._engine, self.results, self._scratch = DBOS, results, scratch
    self._models, self._limits, self._worker = models, limits, worker
    self._metrics = models.metrics
    self._shared, self._log_ids = not database.startswith('sqlite'), log_ids
    self.live: dict[str, Live] = {}
    self._queued, self._stopped = 0, threading.Event()
    self._added: dict[str, tuple[Mapping[str, Any], int]] = {}  # here, and not begun yet
    self._adding = threading.Lock()
    self._seen: dict[str, tuple[bytes, float]] = {}  # worker -> its last beat, since when
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir(parents=True)
    most = 2 * limits.batch  # a batch gathers while another one runs
    try:
      if not self._shared:
        path = database.removeprefix('sqlite:///')
        with contextlib.closing(sqlite3.connect(path)) as connection:
          connection.execute('PRAGMA journal_mode=WAL')  # so that nobody waits to read
      DBOS(
        config={
          'name': 'mgjax', 'system_database_url': database, 'executor_id': worker,
          'application_version': 'mgjax', 'max_executor_threads': most + 16,
          'log_level': 'CRITICAL',
        }
      )  # fmt: skip
      step = DBOS.step(name='produce')(lambda job: self._produce(job))
      kinds = {'video': lambda job: step(job), 'image': lambda job: step(job)}
      self._kinds = {
        kind: DBOS.workflow(name=kind, max_recovery_attempts=_TRIES)(work)
        for kind, work in kinds.items()
      }
      if self._shared:  # before others take what this one, ended a moment ago, has again
        results.put(_WORKERS, worker, secrets.token_bytes(4))
      DBOS.launch()
      DBOS.register_queue(
        _QUEUE, worker_concurrency=most, polling_interval_sec=_POLL, on_conflict='always_update'
      )
    except Exception as error:
      raise ConfigError(f'--database: {first_line(error)}; give one that can be used') from error
    self._look()
    threading.Thread(target=self._look_around, daemon=True, name='jobs').start()

  def add(
    self, job: Mapping[str, Any], kind: str = 'video', told: str = '', picture: bytes | None = None
  ) -> str:
    """Takes a job in and returns its id; one that was told the same before is the earlier one.

    Args:
      kind: 'video' or 'image'.
      told: what makes the id, 32 hexadecimal digits; by default they are random.
      picture: a PNG to start from.
    """
    from dbos import SetWorkflowID

    id = f'{kind}_{told or secrets.token_hex(16)}'
    with self._adding:  # or the same job, sent twice at once, could be noted after it was begun
      if told and self._engine.get_workflow_status(id):
        return id
      if picture is not None:
        self.results.put(id, 'input.png', picture)
      if not self._shared:
        self._added[id] = dict(job), int(time.time())
      try:
        with SetWorkflowID(id):
          self._engine.enqueue_workflow(_QUEUE, self._kinds[kind], dict(job))
      except BaseException:
        self._added.pop(id, None)
        raise
      self._queued += 1
    return id

  @property
  def queued(self) -> int:
    """How many jobs wait, as of at most a second ago."""
    return self._queued

  def describe(self, id: str) -> dict[str, Any] | None:
    """Returns a job as the API shows it; None of one that is not, or no more."""
    live = self.live.get(id)
    if live is not None and not live.cancelled:
      state = {'status': 'in_progress', 'progress': live.percent, 'created_at': int(live.created)}
      return video_object(id, live.job, state)
    if added := self._added.get(id):  # clients ask often, and a database would be busy with that
      return video_object(id, added[0], {'status': 'queued', 'created_at': added[1]})
    row = self._engine.get_workflow_status(id)
    return None if row is None else self._described(row)

  def page(
    self, after: str | None, limit: int, descending: bool
  ) -> tuple[list[dict[str, Any]], bool]:
    """Returns jobs by their time, those after one of them, and whether there are more.
    Raises KeyError if there is no such job.
    """
    bounds, found = {}, []
    if after:
      if (row := self._engine.get_workflow_status(after)) is None:
        raise KeyError(after)
      bounds['end_time' if descending else 'start_time'] = _iso((row.created_at or 0) / 1000)
    begun, rows = not after, [None] * (size := limit + 8)
    for offset in itertools.count(0, size):
      if len(rows) < size or len(found) > limit:
        break
      rows = self._engine.list_workflows(
        name='video', status=[*_STATES], sort_desc=descending, limit=size, offset=offset, **bounds
      )
      for row in rows:  # of the millisecond of `after`, some stand before it
        found += [self._described(row)] if begun else []
        begun = begun or row.workflow_id == after
    found = [each for each in found if each]
    return found[:limit], len(found) > limit

  def delete(self, id: str) -> bool:
    """Cancels a job or deletes what it made; says whether there was one."""
    row = self._engine.get_workflow_status(id)
    if row is None or row.status not in _STATES:
      return False
    self._added.pop(id, None)
    if row.status in _ENDED:
      self._engine.delete_workflow(id)
    else:
      self._engine.cancel_workflow(id)
      if live := self.live.get(id):
        live.cancelled = True
      self._metrics.requests.labels('cancelled').inc()
    self.results.remove(id)
    return True

  def preview(self, id: str) -> bytes | None:
    """Returns the preview of a job that runs, None where there is none."""
    live = self.live.get(id)
    if live is not None:
      return None if live.colours is None else files.preview(live.colours)
    return self.results.get(id, 'preview.webp') if self._shared else None

  def stop(self, seconds: float) -> bool:
    """Ends what runs, for so many seconds at most, and takes nothing new.

    What is left goes back to the queue, when this process starts again or another worker sees it.
    Returns whether all of it ended.
    """
    self._stopped.set()
    # It takes nothing new at once, but joins threads that sleep for ten seconds more.
    ending = {'workflow_completion_timeout_sec': int(seconds) + 1}
    threading.Thread(target=self._engine.destroy, kwargs=ending, daemon=True).start()
    end = time.monotonic() + seconds
    while self.live and time.monotonic() < end:
      time.sleep(0.05)
    time.sleep(_SETTLE)
    if self._shared:
      self.results.put(_WORKERS, self._worker, b'gone')
    return not self.live

  def _produce(self, job: dict[str, Any]) -> dict[str, Any]:
    """Makes a job; errors that somebody can mend are what is returned."""
    self._models.ready.wait()
    id = self._engine.workflow_id
    row = self._engine.get_workflow_status(id)
    self._added.pop(id, None)
    live = self.live[id] = Live(id, job, ((row and row.created_at) or 0) / 1000)
    began, status = time.monotonic(), 'failed'
    named = f' {id}' if self._log_ids else ''
    try:
      with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
        made = self._make(live, pathlib.Path(folder))
      status = 'completed'
      return made
    except CancelledError:
      status = 'cancelled'
      return {'error': {'code': 'cancelled', 'message': 'It was cancelled.'}}
    except MgjaxError as error:
      return {'error': {'code': 'invalid_request', 'message': first_line(error)}}
    except Exception as error:
      _log.exception('a job failed%s', named)
      told = f'{type(error).__name__}; the log of the server says more'
      return {'error': {'code': 'server_error', 'message': told}}
    finally:
      del self.live[id]
      spent, size = time.monotonic() - began, f'{job["width"]}x{job["height"]}'
      self._metrics.duration.labels(size, status).observe(spent)
      if status != 'cancelled':  # which is counted where it is asked for
        self._metrics.requests.labels(status).inc()
        self._metrics.latency.observe(time.time() - live.created)
      _log.info('a job%s %s after %.1f s', named, status, spent)

  def _make(self, live: Live, folder: pathlib.Path) -> dict[str, Any]:
    given = None
    if live.job['picture']:
      given = self.results.path(live.id, 'input.png')
    elif live.job['source']:
      given = self.results.path(live.job['source'], 'video.mp4')
      if given is None:
        raise ConfigError('the video to change is gone; make it again')
    told = self._models.make(live, folder, given)
    if live.cancelled:
      raise CancelledError
    written = sorted(folder.iterdir(), key=lambda path: path.name == 'job.json')  # the record last
    for path in written:
      self.results.put(live.id, path.name, path.read_bytes())
      self._metrics.bytes.inc(path.stat().st_size)
    if live.cancelled:
      self.results.remove(live.id)
    return told

  def _described(self, row: Any) -> dict[str, Any] | None:
    if row.status not in _STATES or not row.input:
      return None
    status, error = _STATES[row.status], (row.output or {}).get('error')
    ended = (row.completed_at or row.updated_at) / 1000 if row.status in _ENDED else None
    kept = 86400 * self._limits.days
    cancelled = bool(error) and error['code'] == 'cancelled'
    if cancelled or (ended and time.time() > ended + kept):
      return None
    if error or status == 'failed':
      status = 'failed'
      error = error or {'code': 'server_error', 'message': 'It was tried too often.'}
    progress = 100 if status == 'completed' else 0
    if status == 'in_progress' and self._shared:
      progress = int(self.results.get(row.workflow_id, 'progress') or 0)
    times = {'created_at': row.created_at // 1000, 'completed_at': ended and int(ended)}
    times['expires_at'] = ended and int(ended + kept)
    state = {'status': status, 'progress': progress, 'error': error, **times}
    return video_object(row.workflow_id, row.input['args'][0], state)

  def _look_around(self) -> None:
    turn = 0
    while not self._stopped.wait(_BEAT):
      turn += 1
      try:
        self._look()
        if turn % 60 == 1:
          self._sweep()
        if self._shared:
          self._beat(turn)
      except Exception as error:  # a database that is away for a while
        _log.warning('cannot look after jobs: %s', first_line(error))

  def _look(self) -> None:
    """Counts, and sees what was cancelled elsewhere."""
    some = {'load_input': False, 'load_output': False}
    waiting = self._engine.list_workflows(
      queue_name=_QUEUE, status='ENQUEUED', limit=self._limits.queue + 1, **some
    )
    self._queued = len(waiting)
    self._metrics.queued.set(self._queued)
    self._metrics.running.set(len(self.live))
    if self.live and self._shared:
      for row in self._engine.list_workflows(workflow_ids=[*self.live], status='CANCELLED', **some):
        if live := self.live.get(row.workflow_id):
          live.cancelled = True

  def _sweep(self) -> None:
    """Deletes what is older than it is kept."""
    for status, seconds in ((_ENDED, 86400 * self._limits.days), (['CANCELLED'], _KEPT)):
      rows: Sequence[Any] = self._engine.list_workflows(
        status=status,
        completed_before=_iso(time.time() - seconds),
        limit=1000,
        load_input=False,
        load_output=False,
      )
      for row in rows:
        self.results.remove(row.workflow_id)
      if rows:
        self._engine.delete_workflows([row.workflow_id for row in rows])

  def _beat(self, turn: int) -> None:
    """Tells other workers of this one and its jobs, and takes back what dead ones had."""
    self.results.put(_WORKERS, self._worker, f'{secrets.token_hex(4)} {turn}'.encode())
    for id, live in list(self.live.items()):
      if live.colours is not None:
        self.results.put(id, 'preview.webp', files.preview(live.colours))
        self.results.put(id, 'progress', str(live.percent).encode())
    for name in self.results.names(_WORKERS):
      beat, now = self.results.get(_WORKERS, name), time.monotonic()
      if name == self._worker or beat is None:
        continue
      last, since = self._seen.get(name, (b'', now))
      self._seen[name] = (beat, since if beat == last else now)
      if beat == b'gone' or now - self._seen[name][1] > _DEAD:
        # Exact: of each job, the one that sees it first takes it.
        self._engine._recover_pending_workflows([name])


def _iso(seconds: float) -> str:
  return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
