"""Runs the service in one process: HTTP, jobs and the thread that owns the devices."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence

from mgjax.apps.serving import http
from mgjax.apps.serving.videos.schema import Limits
from mgjax.core.errors import ConfigError
from mgjax.training.monitoring.workdir_lock import hold

_SWITCH = 0.0005  # seconds: of the usual 5 ms, a busy thread would cost each step of a sampler some
_ORIGIN = re.compile(r'https?://[\w.-]+(:\d+)?|https?://\[[\da-fA-F:]+\](:\d+)?', re.ASCII)
_PACKAGES = ('starlette', 'uvicorn', 'dbos', 'prometheus_client', 'python_multipart')


@dataclasses.dataclass(frozen=True)
class Storage:
  """Where jobs and what they make are kept.

  Attributes:
    out: a folder of results, or a URL of fsspec that all workers reach.
    database: a URL of Postgres, for several workers; by default SQLite in `out`.
    worker: the name of this process among those of a database; by default the host's.
  """

  out: str = 'served'
  database: str = ''
  worker: str = ''


@dataclasses.dataclass(frozen=True)
class Access:
  """Where a service listens, and who may use it.

  Attributes:
    host: address to listen at.
    port: to listen at; 0 is a free one.
    token_file: tokens of those who may ask, one a line; without it everybody may.
    origins: sites whose pages may use the service, as in https://example.org; '*' is all of them.
  """

  host: str = '127.0.0.1'
  port: int = 8000
  token_file: str = ''
  origins: Sequence[str] = ()

  def tokens(self) -> list[str]:
    """Reads the tokens. Raises ConfigError if anyone could connect without a token."""
    tokens = _read_tokens(self.token_file)
    for origin in self.origins:
      if origin != '*' and not _ORIGIN.fullmatch(origin):
        raise ConfigError(f'--cors_origin={origin}: expected a site, as in https://example.org')
    if '*' in self.origins and not tokens:
      raise ConfigError('--cors_origin=* without --token_file lets every site in; give one')
    if not (tokens or self.host in http.LOOPBACK):
      raise ConfigError(f'--host={self.host} without --token_file lets everybody in; give one')
    return tokens


def serve_videos(
  names: Sequence[str],
  *,
  loras: Mapping[str, str] = {},
  expert_loras: Mapping[str, str] = {},
  storage: Storage = Storage(),
  access: Access = Access(),
  limits: Limits | None = None,
  log_ids: bool = False,
) -> None:
  """Serves models as /v1/videos until SIGTERM or Ctrl-C; the same call goes on with its jobs.

  Args:
    names: work directories or names of models; the first that makes videos is the usual one.
    loras: adapters that a request may name, by that name.
    expert_loras: adapters of a model's expert, by the same names.
    limits: what is allowed.
    log_ids: whether the log names jobs.

  Raises:
    ConfigError: a package or a model is missing, the port or the folder is in use, or the database
      or the file of tokens cannot be used.
  """
  http.check_installed(_PACKAGES)
  from mgjax.apps.serving.videos.app import Service  # all of these need the packages
  from mgjax.apps.serving.videos.jobs import Jobs
  from mgjax.apps.serving.videos.models import Models
  from mgjax.apps.serving.videos.results import Results
  from mgjax.models.flow_model.prompts import tell_prompts

  limits = limits or Limits()
  tokens = access.tokens()
  database = storage.database
  worker = storage.worker or socket.gethostname()
  if not re.fullmatch(r'[\w.-]*\w[\w.-]*', worker, re.ASCII):
    raise ConfigError(f'--worker={worker}; expected letters, digits, and -._ between them')
  with contextlib.ExitStack() as stack:
    fresh = tempfile.TemporaryDirectory(prefix='mgjax_served_', ignore_cleanup_errors=True)
    scratch = pathlib.Path(stack.enter_context(fresh))
    results = Results(storage.out, scratch)
    if not database and not results.local:
      raise ConfigError(
        f'--out={storage.out} is no folder; give --database=postgresql://... with it'
      )
    if not database or database.startswith('sqlite'):
      file = _sqlite_file(database or f'sqlite:///{results.root}/jobs.sqlite')
      if results.local:
        stack.enter_context(hold(results.root, 'folder'))
      stack.enter_context(hold(f'{file}.lock', 'database'))  # whatever --out is
      worker = worker if storage.database else 'local'
      database = f'sqlite:///{file}'
    models = Models(names, loras, limits, expert_loras)
    listener = stack.enter_context(http.listening(access.host, access.port))
    jobs = Jobs(database, worker, results, scratch, models, limits, log_ids=log_ids)
    app = Service(models, jobs, limits, tokens, access.origins).app()
    server = http.make_server(app, 2 * http.CONNECTIONS)
    failed = []
    base = http.address(access.host, listener.getsockname()[1])

    def warm() -> None:
      try:
        models.warm()
        print(f'ready: {base}/v1, and a page at {base}/', flush=True)
      except BaseException as error:
        failed.append(error)
        server.should_exit = True

    logging.getLogger(tell_prompts.__module__).disabled = True  # which would write prompts down
    sys.setswitchinterval(_SWITCH)
    print(f'listening at {base}; loading {", ".join(names)}', flush=True)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn ends by it, and raises it once more
    threading.Thread(target=warm, daemon=True, name='warm').start()
    with contextlib.suppress(KeyboardInterrupt):
      server.run([listener])
    done = jobs.stop(limits.grace if models.ready.is_set() else 0)
    if failed:
      raise failed[0]
    if not done:
      print('what was not done goes on with the next start', flush=True)
  os._exit(0)  # threads that wait for a device, or sleep, would keep the process


def _sqlite_file(url: str) -> str:
  """Returns the file of a database of SQLite, as all its names lead to."""
  import sqlalchemy

  try:
    parsed = sqlalchemy.make_url(url)
  except sqlalchemy.exc.ArgumentError:
    parsed = None
  file = parsed.database if parsed is not None and not parsed.query else ''
  if not file or ':' in file or not os.path.isdir(os.path.dirname(file) or '.'):
    raise ConfigError(f'--database={url}: expected a file in a folder, as in sqlite:///jobs.sqlite')
  return os.path.realpath(file)


def _read_tokens(path: str) -> list[str]:
  if not path:
    return []
  try:
    tokens = [line.strip() for line in pathlib.Path(path).read_text().splitlines() if line.strip()]
  except (OSError, UnicodeDecodeError) as error:
    raise ConfigError(f'--token_file={path}: {error}') from error
  if not tokens or min(map(len, tokens)) < 16:
    raise ConfigError(f'--token_file={path}: expected tokens of 16 characters or more, one a line')
  return tokens
