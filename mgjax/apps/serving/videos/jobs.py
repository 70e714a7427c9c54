"""Stores jobs in a database (DBOS on SQLite, or on Postgres with many workers) and runs them.

A job is a DBOS workflow of one step. The step writes all files to a temporary folder, and then puts
each in its place atomically. If the process is killed, the step runs again and writes the same
files. The jobs of a process that died return to the queue when it starts again or, on Postgres,
when another worker no longer sees its heartbeat.

Rows are JSON. A database with pickled rows is refused (`dbos_internals.py` says why).
"""

import contextlib
import datetime
import errno
import itertools
import logging
import pathlib
import secrets
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy
from dbos import DBOS, SetWorkflowID

from mgjax.apps.serving.videos import dbos_internals, files
from mgjax.apps.serving.videos.job_states import CancelledError, JobStates, Live
from mgjax.apps.serving.videos.models import Models
from mgjax.apps.serving.videos.results import Results
from mgjax.apps.serving.videos.schema import ApiError, Job, Limits, public, video_object
from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, MgjaxError, first_line

KINDS = 'video', 'image'  # of jobs, whose ids begin so
_QUEUE = 'videos'
_WORKERS = 'workers'
_POLL = 0.1  # seconds between polls of the queue; each takes 4 ms of a core
_BEAT = 1.0  # seconds between heartbeats
_DEAD = 30.0  # seconds without a heartbeat after which a worker is dead
_STUCK = 10.0  # seconds after which a job is resumed that runs in the database alone
_LOG = 100  # pages of 4 kB of SQLite's log; its default of 1,000 would fill a small disk
_FULL = 'The disk of this server is full; delete videos, and ask again.'
_SETTLE = 0.5  # seconds after which a job that ended is in the database
_TRIES = 20  # runs of a job whose process dies each time
_KEPT = 3600.0  # seconds for which the row of a cancelled job stays, for the thread that runs it
_ENDED = ['SUCCESS', 'ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED']
_STATES = {
  'ENQUEUED': 'queued',
  'DELAYED': 'queued',
  'PENDING': 'in_progress',
  **dict(zip(_ENDED, ('completed', 'failed', 'failed'), strict=True)),
}
_BARE = {'load_input': False, 'load_output': False}
_log = logging.getLogger(__name__)


class Jobs:
  """Jobs by id: adds, runs, describes, lists, cancels and deletes them.

  Attributes:
    results: the files of jobs.
    states: of the jobs of this process.
    queued: how many jobs wait, as of about a second ago.
  """

  def __init__(
    self,
    database: str,
    worker: str,
    results: Results,
    scratch: pathlib.Path,
    models: Models,
    limits: Limits,
    *,
    log_ids: bool = False,
  ):
    """Opens the database. Jobs run as soon as the models are ready, the oldest first.

    `worker` is the name of this process among those that share the database. `scratch` is a folder
    that no other process uses.
    Raises ConfigError if the database cannot be used, or has rows that are not JSON.
    """
    self.results = results
    self._scratch = scratch
    self._worker = worker
    self._log_ids = log_ids
    self._models = models
    self._limits = limits
    self._metrics = models.metrics
    self._shared = not database.startswith('sqlite')
    self.states = JobStates()
    self.queued = 0
    self._stopped = threading.Event()
    self._adding = threading.Lock()
    self._heartbeats: dict[str, tuple[bytes, float]] = {}  # worker -> the last one, and its time
    concurrency = 2 * limits.batch  # a batch gathers while another one runs
    try:
      if not self._shared:
        file = pathlib.Path(database.removeprefix('sqlite:///'))
        file.touch(0o600)  # it holds prompts; what SQLite puts beside it gets the same mode
        file.chmod(0o600)
        with contextlib.closing(sqlite3.connect(file)) as connection:
          connection.execute('PRAGMA journal_mode=WAL')  # readers do not wait for writers
        sqlalchemy.event.listen(sqlalchemy.pool.Pool, 'connect', _keep_log_small)
      dbos_internals.refuse_pickles(database)
      DBOS(
        config={
          'name': 'mgjax',
          'system_database_url': database,
          'executor_id': worker,
          'application_version': 'mgjax',
          'max_executor_threads': concurrency + 16,
          'serializer': dbos_internals.SERIALIZER,
          'log_level': 'CRITICAL',
        }
      )
      step = DBOS.step(name='produce')(lambda job: self._produce(job))
      workflow = DBOS.workflow(name='make', max_recovery_attempts=_TRIES)
      self._work = workflow(lambda job: self._run_until_stored(step, job))
      if self._shared:  # before other workers recover the jobs that this one resumes
        results.put(_WORKERS, worker, secrets.token_bytes(4))
      DBOS.launch()
      DBOS.register_queue(
        _QUEUE,
        worker_concurrency=concurrency,
        polling_interval_sec=_POLL,
        on_conflict='always_update',
      )
    except ConfigError:
      raise
    except Exception as error:
      raise ConfigError(f'--database: {first_line(error)}; give one that can be used') from error
    self._update_counts()
    threading.Thread(target=self._maintain, daemon=True, name='jobs').start()

  def add(
    self, job: Job, kind: str = 'video', key_digest: str = '', picture: bytes | None = None
  ) -> str:
    """Adds a job and returns its id. If there is a job with the same digest, adds none.

    Args:
      job: of `plain_job`.
      kind: one of `KINDS`.
      key_digest: of an Idempotency-Key: 32 hexadecimal digits that make the id; by default random.
      picture: a PNG to start from.

    Raises:
      ApiError: the job of the same digest is another one, or there is no room on the disk.
    """
    id = f'{kind}_{key_digest or secrets.token_hex(16)}'
    with _room(), self._adding:  # one at a time, or a job that is sent twice could be added twice
      for other in KINDS if key_digest else ():
        if row := DBOS.get_workflow_status(f'{other}_{key_digest}'):
          self._check_same(row, job)
          return id
      self.states.forget_result(id)
      self.results.check_room()
      if picture is not None:
        self.results.put(id, 'input.png', picture)
      # With several workers the queue decides which of them runs the job.
      start_now = self.states.idle and not self._shared
      if not self._shared:
        self.states.queue(id, job)
      try:
        with SetWorkflowID(id):
          if start_now:
            DBOS.start_workflow(self._work, dict(job))
          else:
            DBOS.enqueue_workflow(_QUEUE, self._work, dict(job))
      except BaseException:
        self.states.unqueue(id)
        self.results.remove(id)
        raise
    return id

  def _check_same(self, row: Any, job: Job) -> None:
    """Raises ApiError if the job of an Idempotency-Key is another one, or was deleted."""
    problem = ''
    if self._describe_row(row) is None:
      problem = 'is of a job that was cancelled or has expired'
    elif row.input['args'][0].get('request', job['request']) != job['request']:
      problem = 'came with another request'
    if problem:
      raise ApiError(f'This Idempotency-Key {problem}; send another key.', None, 409)

  def describe(self, id: str) -> JSON | None:
    """Returns a job as the API shows it; None if there is none."""
    live = self.states.running(id)
    if live is not None and not live.cancelled:
      state = {'status': 'in_progress', 'progress': live.percent, 'created_at': int(live.created)}
      return video_object(id, live.job, **state)
    if queued := self.states.queued(id):  # clients poll often; the database would be busy with it
      return video_object(id, queued.job, status='queued', created_at=int(queued.created))
    row = DBOS.get_workflow_status(id)
    return None if row is None else self._describe_row(row)

  def page(self, after: str | None, limit: int, newest: bool) -> tuple[list[JSON], bool]:
    """Returns the videos after the id `after`, sorted by time, and whether there are more.
    Raises KeyError if there is no such job.
    """
    bounds = {}
    videos = []
    passed = not after
    size = limit + 8
    if after:
      if (row := DBOS.get_workflow_status(after)) is None:
        raise KeyError(after)
      bounds['end_time' if newest else 'start_time'] = _iso((row.created_at or 0) / 1000)
    for offset in itertools.count(0, size):
      rows = DBOS.list_workflows(
        workflow_id_prefix='video_',
        status=[*_STATES],
        sort_desc=newest,
        limit=size,
        offset=offset,
        **bounds,
      )
      for row in rows:  # jobs of the same millisecond may come before `after`
        if passed and (video := self._describe_row(row)):
          videos.append(video)
        passed = passed or row.workflow_id == after
      if len(rows) < size or len(videos) > limit:
        break
    return videos[:limit], len(videos) > limit

  def delete(self, id: str) -> bool:
    """Cancels a job, or deletes its files; says whether there was one.
    Raises ApiError if the disk is full even without its files.
    """
    if live := self.states.running(id):  # at once: the database takes a moment
      live.cancelled = True
    row = DBOS.get_workflow_status(id)
    if row is None or row.status not in _STATES:
      return False
    self.states.unqueue(id)
    self.results.remove(id)  # first: the database needs room on a full disk
    with _room():
      if row.status in _ENDED:
        DBOS.delete_workflow(id)
      else:
        DBOS.cancel_workflow(id)
    if row.status not in _ENDED:
      if row.status == 'ENQUEUED':  # the next request has room now, not after the next count
        self.queued = max(0, self.queued - 1)
      self._metrics.requests.labels('cancelled').inc()
    self.results.remove(id)  # files that were written meanwhile
    return True

  def preview(self, id: str) -> bytes | None:
    """Returns the preview of a running job, None if there is none."""
    if (live := self.states.running(id)) is not None:
      return None if live.colours is None else files.preview(live.colours)
    return self.results.get(id, 'preview.webp') if self._shared else None

  def stop(self, seconds: float) -> bool:
    """Starts no new jobs, and waits for the running ones for so many seconds at most.

    The others return to the queue when this process starts again, or another worker recovers them.
    Returns whether all ended.
    """
    self._stopped.set()
    # In a thread: it stops the queue at once, but then joins threads that sleep for ten seconds.
    options = {'workflow_completion_timeout_sec': int(seconds) + 1}
    threading.Thread(target=DBOS.destroy, kwargs=options, daemon=True).start()
    end = time.monotonic() + seconds
    while self.states.all_running() and time.monotonic() < end:
      time.sleep(0.05)
    time.sleep(_SETTLE)
    if self._shared:
      self.results.put(_WORKERS, self._worker, b'gone')
    return not self.states.all_running()

  def _produce(self, job: JSON) -> JSON:
    """Runs a job and returns its result, or its error."""
    self._models.ready.wait()
    id = str(DBOS.workflow_id)
    if finished := self.states.finished(id):  # the database could not store the result
      return finished.result
    result = self._attempt(id, job)
    self.states.finish(id, result)
    return result

  def _run_until_stored(self, step: Callable[[Job], JSON], job: Job) -> JSON:
    """Runs the step of a job until its result is in the database, whose disk may be full."""
    while True:
      try:
        return step(job)
      except sqlalchemy.exc.DBAPIError as error:
        if not _is_full(error) or self._stopped.wait(_BEAT):
          raise

  def _attempt(self, id: str, job: JSON) -> JSON:
    created = 0.0
    if queued := self.states.queued(id):
      created = queued.created
    elif row := DBOS.get_workflow_status(id):
      created = (row.created_at or 0) / 1000  # SQLite stores whole seconds
    live = Live(job, created)
    self.states.begin(id, live)
    began = time.monotonic()
    status = 'failed'
    code = 'invalid_request'
    name = f' {id}' if self._log_ids else ''
    try:
      with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
        record = self._make(id, live, pathlib.Path(folder))
      status = 'completed'
      return record
    except CancelledError:
      status = code = 'cancelled'
      message = 'It was cancelled.'
    except MgjaxError as error:
      message = public(error)
    except Exception as error:
      code = 'server_error'
      message = _FULL
      if not _is_full(error):
        _log.exception('a job failed%s', name)
        message = f'{type(error).__name__}; the log of the server says more'
    finally:
      spent = time.monotonic() - began
      size = f'{job["width"]}x{job["height"]}'
      self._metrics.duration.labels(size, status).observe(spent)
      if status != 'cancelled':  # `delete` counts those
        self._metrics.requests.labels(status).inc()
        self._metrics.latency.observe(time.time() - live.created)
      _log.info('a job%s %s after %.1f s', name, status, spent)
    self.results.remove(id)  # some files may be there
    return {'error': {'code': code, 'message': message}}

  def _make(self, id: str, live: Live, folder: pathlib.Path) -> JSON:
    file = None
    source = live.job['source']
    if live.job['picture']:
      file = self.results.path(id, 'input.png')
    elif source and (file := self.results.path(source, 'video.mp4')) is None:
      raise ConfigError('the video to change is gone; make it again')
    record = self._models.make(live, folder, file)
    live.check()
    for path in sorted(folder.iterdir(), key=lambda path: path.name == 'job.json'):
      self.results.put(id, path.name, path.read_bytes())  # job.json last
      self._metrics.bytes.inc(path.stat().st_size)
    if live.cancelled:
      self.results.remove(id)
    return record

  def _describe_row(self, row: Any) -> JSON | None:
    """Returns a job of the database as the API shows it; None if it was cancelled, or expired."""
    if row.status not in _STATES or not isinstance(row.input, dict):  # DBOS could not read it
      return None
    output = row.output if isinstance(row.output, dict) else {}
    status = _STATES[row.status]
    ended = (row.completed_at or row.updated_at) // 1000 if row.status in _ENDED else None
    finished = self.states.finished(row.workflow_id) if ended is None else None
    if finished and time.time() - finished.ended > _SETTLE:  # the disk of the database is full
      output, ended = finished
      status = 'completed'
    error = output.get('error')
    expires = ended and int(ended + 86400 * self._limits.days)
    if (error and error['code'] == 'cancelled') or (expires and time.time() > expires):
      return None
    if error or status == 'failed':
      status = 'failed'
      error = error or {'code': 'server_error', 'message': 'It was tried too often.'}
    progress = 100 if status == 'completed' else 99 if finished else 0
    if status == 'in_progress' and self._shared and not finished:
      progress = int(self.results.get(row.workflow_id, 'progress') or 0)
    return video_object(
      row.workflow_id,
      row.input['args'][0],
      status=status,
      progress=progress,
      error=error,
      created_at=row.created_at // 1000,
      completed_at=ended and int(ended),
      expires_at=expires,
    )

  def _maintain(self) -> None:
    """Updates counts and heartbeats until the process stops; resumes and deletes old jobs."""
    for turn in itertools.count(1):
      if self._stopped.wait(_BEAT):
        return
      try:
        self._update_counts(turn)
        if turn % 5 == 0:
          self._resume()
        if turn % 60 == 1:
          self._sweep()
        if self._shared:
          self._beat(turn)
      except Exception as error:  # the database may be unavailable for a while
        _log.warning('cannot look after jobs: %s', first_line(error))

  def _update_counts(self, turn: int = 0) -> None:
    """Counts jobs, and cancels the running ones that were cancelled at another worker."""
    if turn % (1 + self.queued // 1000) == 0:  # counting 1,000 jobs takes about 20 ms of a core
      most = self._limits.queue + 1
      waiting = DBOS.list_workflows(queue_name=_QUEUE, status='ENQUEUED', limit=most, **_BARE)
      self.queued = len(waiting)
    self._metrics.queued.set(self.queued)
    running = self.states.all_running()
    self._metrics.running.set(len(running))
    if running and self._shared:
      for row in DBOS.list_workflows(workflow_ids=[*running], status='CANCELLED', **_BARE):
        running[row.workflow_id].cancelled = True

  def _resume(self) -> None:
    """Resumes jobs whose result could not be stored, as when the disk was full."""
    if not self._models.ready.is_set():
      return
    own = {'executor_id': self._worker} if self._shared else {}  # SQLite has one worker
    rows = DBOS.list_workflows(status='PENDING', **own, **_BARE)
    for id in self.states.stuck([row.workflow_id for row in rows], _STUCK):
      DBOS.resume_workflow(id, queue_name=_QUEUE)

  def _sweep(self) -> None:
    """Deletes jobs that have expired."""
    for status, seconds in ((_ENDED, 86400 * self._limits.days), (['CANCELLED'], _KEPT)):
      before = _iso(time.time() - seconds)
      rows = DBOS.list_workflows(status=status, completed_before=before, limit=1000, **_BARE)
      for row in rows:
        self.results.remove(row.workflow_id)
      if rows:
        DBOS.delete_workflows([row.workflow_id for row in rows])

  def _beat(self, turn: int) -> None:
    """Writes this worker's heartbeat and progress, and recovers the jobs of dead workers."""
    self.results.put(_WORKERS, self._worker, f'{secrets.token_hex(4)} {turn}'.encode())
    for id, live in self.states.all_running().items():
      if live.colours is not None:
        self.results.put(id, 'preview.webp', files.preview(live.colours))
        self.results.put(id, 'progress', str(live.percent).encode())
    for name in self.results.names(_WORKERS):
      beat = self.results.get(_WORKERS, name)
      now = time.monotonic()
      if name == self._worker or beat is None:
        continue
      last, since = self._heartbeats.get(name, (b'', now))
      since = since if beat == last else now
      self._heartbeats[name] = beat, since
      if beat == b'gone' or now - since > _DEAD:
        dbos_internals.recover(name)


def _keep_log_small(connection: Any, _: object) -> None:
  connection.execute(f'PRAGMA wal_autocheckpoint={_LOG}')


@contextlib.contextmanager
def _room() -> Iterator[None]:
  """Raises ApiError if there is no room on the disk."""
  try:
    yield
  except (OSError, sqlalchemy.exc.DBAPIError) as error:
    if not _is_full(error):
      raise
    raise ApiError(_FULL, None, 507) from error


def _is_full(error: BaseException) -> bool:
  cause = getattr(error, 'orig', error)  # SQLAlchemy wraps errors
  name = getattr(cause, 'sqlite_errorname', '')
  number = getattr(cause, 'errno', None)
  return number in (errno.ENOSPC, errno.EDQUOT) or name in ('SQLITE_FULL', 'SQLITE_IOERR_SHMSIZE')


def _iso(seconds: float) -> str:
  return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
