"""Keeps jobs in a database (DBOS on SQLite, or on Postgres with many workers) and makes them.

A job is a workflow of DBOS with one step, which makes all files in a folder of its own and then
puts each to its place whole: a step that runs twice, because its process was killed in the midst,
writes the same files again. What a process had when it died goes back into the queue when it starts
again or, on Postgres, when any other worker sees that it is silent.

What is stored is JSON. DBOS would unpickle any row that names pickle as its format, whatever its
serializer is, and a pickle runs code: this module takes that ability away, and refuses to start
with a store that has such rows.
"""

import contextlib
import datetime
import errno
import functools
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
from dbos import DBOS, DBOSPortableJSONSerializer, SetWorkflowID, _serialization

from mgjax.apps.serving.videos import files
from mgjax.apps.serving.videos.models import CancelledError, Live, Models
from mgjax.apps.serving.videos.results import Results
from mgjax.apps.serving.videos.schema import ApiError, Job, Limits, public, video_object
from mgjax.core.errors import ConfigError, MgjaxError, first_line

KINDS = 'video', 'image'  # of jobs, whose ids begin so
_QUEUE = 'videos'
_WORKERS = 'workers'
_POLL = 0.1  # seconds between two looks into the queue, of which each takes 4 ms of a core
_BEAT, _DEAD = 1.0, 30.0  # seconds: between two looks around; a worker silent for so long is dead
_STUCK = 10.0  # seconds in which what was taken from the queue is begun, and what ended is noted
_MADE = 1000  # ends that are remembered until the database has them
_LOG = 100  # pages of 4 kB of SQLite's log, of a thousand usually: a small disk would be full of it
_FULL = 'The disk of this server is full; delete videos, and ask again.'
_SETTLE = 0.5  # seconds in which the database has what ended last
_TRIES = 20  # of a job whose process dies each time
_KEPT = 3600.0  # seconds for which the row of a cancelled job stays, for the thread that has it
_ENDED = ['SUCCESS', 'ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED']
_STATES = {
  'ENQUEUED': 'queued',
  'DELAYED': 'queued',
  'PENDING': 'in_progress',
  **dict(zip(_ENDED, ('completed', 'failed', 'failed'), strict=True)),
}
_BARE = {'load_input': False, 'load_output': False}
_FORMAT = 'serialization'  # the column with the format of a row
_JSON = DBOSPortableJSONSerializer()
_log = logging.getLogger(__name__)


class Jobs:
  """Jobs by their ids: taken in, made here or by another worker, looked at, cancelled, deleted."""

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
    """Opens the database; jobs are made as soon as the models are ready, the oldest first.

    `worker` names this process among those of a database, and `scratch` is a folder of its own.
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
    self.live: dict[str, Live] = {}
    self.queued = 0  # how many jobs wait, as of a second ago, or some for each 1,000 of them
    self._stopped, self._adding = threading.Event(), threading.Lock()
    self._added: dict[str, tuple[Job, float]] = {}  # here, and not begun yet; and when
    self._made: dict[str, tuple[dict[str, Any], float]] = {}  # what ended here, and when
    self._idle: dict[str, float] = {}  # in the database they run; since when not
    self._seen: dict[str, tuple[bytes, float]] = {}  # worker -> its last beat, since when
    most = 2 * limits.batch  # a batch gathers while another one runs
    try:
      if not self._shared:
        file = pathlib.Path(database.removeprefix('sqlite:///'))
        file.touch(0o600)  # it holds prompts; what SQLite puts beside it gets the same mode
        file.chmod(0o600)
        with contextlib.closing(sqlite3.connect(file)) as found:
          found.execute('PRAGMA journal_mode=WAL')  # so that nobody waits to read
        sqlalchemy.event.listen(sqlalchemy.pool.Pool, 'connect', _keep_log_small)
      _check_stored(database)
      _serialization.DefaultSerializer.deserialize = _refuse_pickle
      DBOS(
        config={
          'name': 'mgjax',
          'system_database_url': database,
          'executor_id': worker,
          'application_version': 'mgjax',
          'max_executor_threads': most + 16,
          'serializer': _JSON,
          'log_level': 'CRITICAL',
        }
      )
      step = DBOS.step(name='produce')(lambda job: self._produce(job))
      workflow = DBOS.workflow(name='make', max_recovery_attempts=_TRIES)
      self._work = workflow(lambda job: self._written(step, job))
      if self._shared:  # before others take what this one, ended a moment ago, has again
        results.put(_WORKERS, worker, secrets.token_bytes(4))
      DBOS.launch()
      DBOS.register_queue(
        _QUEUE, worker_concurrency=most, polling_interval_sec=_POLL, on_conflict='always_update'
      )
    except ConfigError:
      raise
    except Exception as error:
      raise ConfigError(f'--database: {first_line(error)}; give one that can be used') from error
    self._look()
    threading.Thread(target=self._look_around, daemon=True, name='jobs').start()

  def add(self, job: Job, kind: str = 'video', told: str = '', picture: bytes | None = None) -> str:
    """Takes a job in and returns its id; one that was told the same before is the earlier one.

    `told` are 32 hexadecimal digits that make the id, by default random ones; `picture` is a PNG to
    start from; `kind` is one of `KINDS`.
    """
    id = f'{kind}_{told or secrets.token_hex(16)}'
    with _room(), self._adding:  # or the same job, sent twice at once, could be noted as begun
      for other in KINDS if told else ():
        if row := DBOS.get_workflow_status(f'{other}_{told}'):
          self._check_same(row, job)
          return id
      self._made.pop(id, None)  # of a job that was deleted, and had the same key
      self.results.check_room()
      if picture is not None:
        self.results.put(id, 'input.png', picture)
      # Of several workers, only the queue gives a job to one.
      idle = not (self._shared or self._added or self.live)
      if not self._shared:
        self._added[id] = dict(job), time.time()
      try:
        with SetWorkflowID(id):
          if idle:
            DBOS.start_workflow(self._work, dict(job))
          else:
            DBOS.enqueue_workflow(_QUEUE, self._work, dict(job))
      except BaseException:
        self._added.pop(id, None)
        self.results.remove(id)
        raise
    return id

  def _check_same(self, row: Any, job: Job) -> None:
    """Raises ApiError where the job of an Idempotency-Key is another one, or is no more."""
    wrong = ''
    if self._described(row) is None:
      wrong = 'is of a job that was cancelled or has expired'
    elif row.input['args'][0].get('request', job['request']) != job['request']:
      wrong = 'came with another request'
    if wrong:
      raise ApiError(f'This Idempotency-Key {wrong}; send another key.', None, 409)

  def describe(self, id: str) -> dict[str, Any] | None:
    """Returns a job as the API shows it; None of one that is not, or no more."""
    live = self.live.get(id)
    if live is not None and not live.cancelled:
      state = {'status': 'in_progress', 'progress': live.percent, 'created_at': int(live.created)}
      return video_object(id, live.job, **state)
    if added := self._added.get(id):  # clients ask often, and a database would be busy with that
      return video_object(id, added[0], status='queued', created_at=int(added[1]))
    row = DBOS.get_workflow_status(id)
    return None if row is None else self._described(row)

  def page(self, after: str | None, limit: int, newest: bool) -> tuple[list[dict[str, Any]], bool]:
    """Returns videos by their time, those after one of them, and whether there are more.
    Raises KeyError if there is no such job.
    """
    bounds = {}
    found = []
    begun = not after
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
      for row in rows:  # of the millisecond of `after`, some stand before it
        if begun and (job := self._described(row)):
          found.append(job)
        begun = begun or row.workflow_id == after
      if len(rows) < size or len(found) > limit:
        break
    return found[:limit], len(found) > limit

  def delete(self, id: str) -> bool:
    """Cancels a job or deletes what it made; says whether there was one.
    Raises ApiError if the disk is full even without its files.
    """
    if live := self.live.get(id):  # at once: the database takes a moment
      live.cancelled = True
    row = DBOS.get_workflow_status(id)
    if row is None or row.status not in _STATES:
      return False
    self._added.pop(id, None)
    self.results.remove(id)  # first: of a full disk, the database needs some
    with _room():
      if row.status in _ENDED:
        DBOS.delete_workflow(id)
      else:
        DBOS.cancel_workflow(id)
    if row.status not in _ENDED:
      if row.status == 'ENQUEUED':  # its place is free at once, not when all are counted again
        self.queued = max(0, self.queued - 1)
      self._metrics.requests.labels('cancelled').inc()
    self.results.remove(id)  # what was written meanwhile
    return True

  def preview(self, id: str) -> bytes | None:
    """Returns the preview of a job that runs, None where there is none."""
    if (live := self.live.get(id)) is not None:
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
    threading.Thread(target=DBOS.destroy, kwargs=ending, daemon=True).start()
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
    id = str(DBOS.workflow_id)
    if id in self._made:  # only that it ended could not be written
      return self._made[id][0]
    made = self._attempt(id, job)
    self._made[id] = made, time.time()
    del self.live[id]  # which never is in neither
    while len(self._made) > _MADE:
      del self._made[next(iter(self._made))]
    return made

  def _written(self, step: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    """Runs the step of a job until what came of it is in the database, whose disk may be full."""
    while True:
      try:
        return step(job)
      except sqlalchemy.exc.DBAPIError as error:
        if not _is_full(error) or self._stopped.wait(_BEAT):
          raise

  def _attempt(self, id: str, job: dict[str, Any]) -> dict[str, Any]:
    _, created = self._added.pop(id, (job, 0.0))
    if not created and (row := DBOS.get_workflow_status(id)):
      created = (row.created_at or 0) / 1000  # of SQLite in whole seconds
    live = self.live[id] = Live(job, created)
    began = time.monotonic()
    status = 'failed'
    code = 'invalid_request'
    named = f' {id}' if self._log_ids else ''
    try:
      with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
        made = self._make(id, live, pathlib.Path(folder))
      status = 'completed'
      return made
    except CancelledError:
      status = code = 'cancelled'
      told = 'It was cancelled.'
    except MgjaxError as error:
      told = public(error)
    except Exception as error:
      code = 'server_error'
      told = _FULL
      if not _is_full(error):
        _log.exception('a job failed%s', named)
        told = f'{type(error).__name__}; the log of the server says more'
    finally:
      spent = time.monotonic() - began
      size = f'{job["width"]}x{job["height"]}'
      self._metrics.duration.labels(size, status).observe(spent)
      if status != 'cancelled':  # which is counted where it is asked for
        self._metrics.requests.labels(status).inc()
        self._metrics.latency.observe(time.time() - live.created)
      _log.info('a job%s %s after %.1f s', named, status, spent)
    self.results.remove(id)  # half of it may be there
    return {'error': {'code': code, 'message': told}}

  def _make(self, id: str, live: Live, folder: pathlib.Path) -> dict[str, Any]:
    given = None
    source = live.job['source']
    if live.job['picture']:
      given = self.results.path(id, 'input.png')
    elif source and (given := self.results.path(source, 'video.mp4')) is None:
      raise ConfigError('the video to change is gone; make it again')
    told = self._models.make(live, folder, given)
    live.check()
    for path in sorted(folder.iterdir(), key=lambda path: path.name == 'job.json'):
      self.results.put(id, path.name, path.read_bytes())  # the record last
      self._metrics.bytes.inc(path.stat().st_size)
    if live.cancelled:
      self.results.remove(id)
    return told

  def _described(self, row: Any) -> dict[str, Any] | None:
    if row.status not in _STATES or not isinstance(row.input, dict):  # text, if it cannot be read
      return None
    output = row.output if isinstance(row.output, dict) else {}
    status = _STATES[row.status]
    ended = (row.completed_at or row.updated_at) // 1000 if row.status in _ENDED else None
    made = self._made.get(row.workflow_id) if ended is None else None
    if made and time.time() - made[1] > _SETTLE:  # the disk is full: as the database will say
      output, ended = made
      status = 'completed'
    error = output.get('error')
    expires = ended and int(ended + 86400 * self._limits.days)
    if (error and error['code'] == 'cancelled') or (expires and time.time() > expires):
      return None
    if error or status == 'failed':
      status = 'failed'
      error = error or {'code': 'server_error', 'message': 'It was tried too often.'}
    progress = 100 if status == 'completed' else 99 if made else 0
    if status == 'in_progress' and self._shared and not made:
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

  def _look_around(self) -> None:
    for turn in itertools.count(1):
      if self._stopped.wait(_BEAT):
        return
      try:
        self._look(turn)
        if turn % 5 == 0:
          self._resume()
        if turn % 60 == 1:
          self._sweep()
        if self._shared:
          self._beat(turn)
      except Exception as error:  # a database that is away for a while
        _log.warning('cannot look after jobs: %s', first_line(error))

  def _look(self, turn: int = 0) -> None:
    """Counts, and sees what was cancelled elsewhere."""
    if turn % (1 + self.queued // 1000) == 0:  # a thousand keep a core busy for some 20 ms
      most = self._limits.queue + 1
      waiting = DBOS.list_workflows(queue_name=_QUEUE, status='ENQUEUED', limit=most, **_BARE)
      self.queued = len(waiting)
    self._metrics.queued.set(self.queued)
    self._metrics.running.set(len(self.live))
    if self.live and self._shared:
      for row in DBOS.list_workflows(workflow_ids=[*self.live], status='CANCELLED', **_BARE):
        if live := self.live.get(row.workflow_id):
          live.cancelled = True

  def _resume(self) -> None:
    """Runs those again whose end could not be written, as when the disk was full."""
    if not self._models.ready.is_set():
      return
    own = {'executor_id': self._worker} if self._shared else {}  # SQLite has no other owner
    rows = DBOS.list_workflows(status='PENDING', **own, **_BARE)
    since = {row.workflow_id: self._idle.get(row.workflow_id, time.monotonic()) for row in rows}
    self._idle = {id: seen for id, seen in since.items() if id not in self.live}
    for id, seen in self._idle.items():
      if time.monotonic() - seen > _STUCK:
        DBOS.resume_workflow(id, queue_name=_QUEUE)

  def _sweep(self) -> None:
    """Deletes what is older than it is kept."""
    for status, seconds in ((_ENDED, 86400 * self._limits.days), (['CANCELLED'], _KEPT)):
      before = _iso(time.time() - seconds)
      rows = DBOS.list_workflows(status=status, completed_before=before, limit=1000, **_BARE)
      for row in rows:
        self.results.remove(row.workflow_id)
      if rows:
        DBOS.delete_workflows([row.workflow_id for row in rows])

  def _beat(self, turn: int) -> None:
    """Tells other workers of this one and its jobs, and takes back what dead ones had."""
    self.results.put(_WORKERS, self._worker, f'{secrets.token_hex(4)} {turn}'.encode())
    for id, live in list(self.live.items()):
      if live.colours is not None:
        self.results.put(id, 'preview.webp', files.preview(live.colours))
        self.results.put(id, 'progress', str(live.percent).encode())
    for name in self.results.names(_WORKERS):
      beat = self.results.get(_WORKERS, name)
      now = time.monotonic()
      if name == self._worker or beat is None:
        continue
      last, since = self._seen.get(name, (b'', now))
      self._seen[name] = (beat, since if beat == last else now)
      if beat == b'gone' or now - self._seen[name][1] > _DEAD:
        # Exact: of each job, the one that sees it first takes it.
        DBOS._recover_pending_workflows([name])


def _keep_log_small(connection: Any, _: Any) -> None:
  connection.execute(f'PRAGMA wal_autocheckpoint={_LOG}')


@contextlib.contextmanager
def _room() -> Iterator[None]:
  """Raises ApiError where there is no room on the disk."""
  try:
    yield
  except (OSError, sqlalchemy.exc.DBAPIError) as error:
    if not _is_full(error):
      raise
    raise ApiError(_FULL, None, 507) from error


def _is_full(error: BaseException) -> bool:
  cause = getattr(error, 'orig', error)  # of what SQLAlchemy raises
  name = getattr(cause, 'sqlite_errorname', '')
  number = getattr(cause, 'errno', None)
  return number in (errno.ENOSPC, errno.EDQUOT) or name in ('SQLITE_FULL', 'SQLITE_IOERR_SHMSIZE')


def _check_stored(database: str) -> None:
  """Raises ConfigError if a database has rows in another format than JSON."""
  url = sqlalchemy.make_url(database)
  schema = None
  if not database.startswith('sqlite'):
    url = url.set(drivername='postgresql+psycopg')
    schema = 'dbos'
  engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
  with contextlib.closing(engine.connect()) as connection:
    found = sqlalchemy.inspect(connection)
    for name in found.get_table_names(schema=schema):
      if all(each['name'] != _FORMAT for each in found.get_columns(name, schema=schema)):
        continue
      table = sqlalchemy.table(name, sqlalchemy.column(_FORMAT), schema=schema)
      count = sqlalchemy.select(sqlalchemy.func.count()).select_from(table)
      if rows := connection.execute(count.where(table.c[_FORMAT] != _JSON.name())).scalar_one():
        raise ConfigError(
          f'--database: {name} has pickled rows ({rows}), as older versions of mgjax wrote them; '
          'expected JSON, because reading a pickle can run any code. Give another --out, and on '
          'Postgres another --database, or delete these rows; finished videos stay in the old --out'
        )


def _refuse_pickle(_: Any, text: str) -> Any:
  """Stands in for what unpickles a row; DBOS then notes its job as failed."""
  del text
  _warn_of_pickle()
  raise ValueError('a pickle, which can run any code, is not read')


@functools.cache
def _warn_of_pickle() -> None:
  _log.warning(
    'a job in the database is a pickle, which is not read: it could run any code; check who can '
    'write to the database'
  )


def _iso(seconds: float) -> str:
  return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
