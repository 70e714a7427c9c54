"""The page on which people compare videos, served over HTTP (Movie Gen §3.5).

A link holds a token of 128 bits and stands for one rater; without one there is nothing to be had.
Paths of requests are never made to paths of files.
"""

import asyncio
import base64
import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import re
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes
from mgjax.evaluation.human.desk import Desk, Refused
from mgjax.evaluation.human.study import FILE, KINDS

INVITATIONS = 'invitations.txt'
_LARGEST_VOTE = 2048  # bytes
_HEADER = 16_384  # bytes of a request's header
_REQUEST = 10.0  # seconds in which a request has to arrive; uvicorn itself would wait for ever
_IDLE = 5  # seconds that a connection may wait for its next request
_RESPONSE = 600.0  # seconds in which a response has to leave
_CONNECTIONS = 1000  # at once; more are told to come back
_LOOPBACK = ('127.0.0.1', '::1', 'localhost')
_HEADERS = {
  'Cache-Control': 'no-store',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}


def make_app(desk: Desk) -> Any:
  """Returns the application (ASGI) of a study.

  Raises:
    ConfigError: Starlette is not installed.
  """
  _need('starlette')
  from starlette.applications import Starlette
  from starlette.exceptions import HTTPException
  from starlette.requests import Request
  from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
  from starlette.routing import Route

  class Video(FileResponse):
    """Bytes, whole or a range of them; its headers tell nothing of the file but its length."""

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
      self.headers.setdefault('content-length', str(stat_result.st_size))

  def rater_of(request: Request) -> str:
    if (name := desk.raters.get(request.path_params['token'])) is None:
      raise Refused(404, 'This link is no invitation; please ask whoever sent it.')
    return name

  def operated(request: Request) -> None:
    if request.path_params['token'] != desk.operator:
      raise Refused(404, 'This is not the link that launch.compare serve printed.')

  async def rater_page(request: Request) -> Response:
    rater_of(request)
    return HTMLResponse(*_page('rater.html'))

  async def operator_page(request: Request) -> Response:
    operated(request)
    return HTMLResponse(*_page('operator.html'))

  async def following(request: Request) -> Response:
    return JSONResponse(await desk.next(rater_of(request), 'more' in request.query_params))

  async def media(request: Request) -> Response:
    path = desk.media(rater_of(request), request.path_params['name'])
    return Video(path, media_type=KINDS[path.suffix.lower()])

  async def vote(request: Request) -> Response:
    rater, body = rater_of(request), b''
    async for part in request.stream():
      body += part
      if len(body) > _LARGEST_VOTE:
        raise Refused(413, f'A vote has at most {_LARGEST_VOTE} bytes.')
    return JSONResponse(await desk.vote(rater, body))

  async def state(request: Request) -> Response:
    operated(request)
    return JSONResponse(desk.state())

  async def refuse(request: Request, error: Exception) -> Response:
    status = getattr(error, 'status', None) or getattr(error, 'status_code', 500)
    said = str(error) if isinstance(error, Refused) else 'There is nothing here.'
    if 'text/html' in request.headers.get('accept', ''):
      return HTMLResponse(
        f'<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
        f'<title>{said}</title><p style="font:18px system-ui;margin:3em">{said}</p>',
        status,
      )
    return JSONResponse({'error': said}, status)

  app = Starlette(
    routes=[
      Route('/r/{token}', rater_page),
      Route('/r/{token}/next', following),
      Route('/r/{token}/votes', vote, methods=['POST']),
      Route('/r/{token}/{name}', media),
      Route('/o/{token}', operator_page),
      Route('/o/{token}/state', state),
    ],
    exception_handlers={Refused: refuse, HTTPException: refuse},
  )
  return _guarded(app)


def _guarded(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
  """Adds headers to all that an application answers, and an end to all answers."""

  async def answer(scope, receive, send):
    async def sending(message):
      if message['type'] == 'http.response.start':
        given = {name for name, _ in message['headers']}
        message['headers'] = [
          *message['headers'],
          *(
            (name.lower().encode(), value.encode())
            for name, value in _HEADERS.items()
            if name.lower().encode() not in given
          ),
        ]
      await send(message)

    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(_RESPONSE):
        await app(scope, receive, sending)

  return answer


def _page(name: str) -> tuple[str, int, dict[str, str]]:
  """Returns a page, 200, and a policy by which only its own script runs and nothing is loaded."""
  text = (pathlib.Path(__file__).parent / name).read_text()
  allowed = [
    f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
    for body in re.findall('<script>(.*?)</script>', text, re.DOTALL)
  ]
  policy = (
    f"default-src 'none'; script-src {' '.join(allowed)}; style-src 'unsafe-inline'; "
    "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
  )
  return text, 200, {'Content-Security-Policy': policy}


def make_server(desk: Desk) -> Any:
  """Returns a server (uvicorn) of a study, to be run with a socket that listens.

  Raises:
    ConfigError: uvicorn is not installed.
  """
  _need('uvicorn')
  import uvicorn

  return uvicorn.Server(
    uvicorn.Config(
      make_app(desk),
      http=_make_protocol(),
      ws='none',
      loop='asyncio',
      lifespan='off',
      log_level='error',
      access_log=False,  # lines of it would hold the tokens
      server_header=False,
      proxy_headers=False,
      timeout_keep_alive=_IDLE,
      timeout_graceful_shutdown=5,
      limit_concurrency=_CONNECTIONS,
      backlog=1024,
      h11_max_incomplete_event_size=_HEADER,
    )
  )


def serve(
  directory: str | os.PathLike[str],
  *,
  host: str = '127.0.0.1',
  port: int = 8000,
  url: str = '',
  tell: Callable[[str], None] | None = None,
) -> None:
  """Serves a study until it is stopped.

  Args:
    directory: of the study.
    host: address to listen at.
    port: 0 for one that is free.
    url: that raters reach it by, where that is another one.
    tell: gets the lines that say where it is; by default they are printed.

  Raises:
    ConfigError: the study or the port is in use, or a package is missing.
    DataError: the videos are not those that the study began with.
  """
  tell = tell or functools.partial(print, flush=True)
  directory = pathlib.Path(directory)
  with _held(directory), _listening(host, port) as listener:
    desk = Desk(directory)
    server = make_server(desk)
    base = (url or _address(host, listener.getsockname()[1])).rstrip('/')
    lines = [f'{name} {base}/r/{token}' for token, name in desk.raters.items()]
    path = directory / INVITATIONS
    path.touch(0o600)
    write_bytes(path, '\n'.join([*lines, '']).encode())
    path.chmod(0o600)
    tell(f'{len(lines)} invitations in {path}')
    tell(f'how far it is: {base}/o/{desk.operator}')
    if host not in _LOOPBACK and not url.startswith('https:'):
      tell(
        'what is sent is not encrypted: outside of your own network put TLS before it, with --url'
      )
    tell('stop with Ctrl-C; the same command goes on')
    server.run([listener])


@contextlib.contextmanager
def _held(directory: pathlib.Path) -> Iterator[None]:
  """Keeps other servers from a study; what a killed one held is free."""
  try:
    file = (directory / FILE).open('rb')
  except OSError as error:
    raise ConfigError(
      f'{directory}: holds no study ({error.strerror}); give --a, --b and --prompts to begin one'
    ) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ConfigError(f'{directory}: another server has this study; stop that one') from error
    yield


def _listening(host: str, port: int) -> socket.socket:
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  files = 4 * _CONNECTIONS  # each connection may read one
  wanted = max(soft, files if hard == resource.RLIM_INFINITY else min(hard, files))
  resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
  try:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise ConfigError(f'--host={host} --port={port}: {error}; take another') from error


def _address(host: str, port: int) -> str:
  name = socket.getfqdn() if host in ('0.0.0.0', '::') else f'[{host}]' if ':' in host else host
  return f'http://{name}:{port}'


def _make_protocol() -> type:
  import h11
  from uvicorn.protocols.http.h11_impl import H11Protocol

  class Punctual(H11Protocol):
    """Ends connections whose requests do not arrive in time, however steadily they trickle."""

    _late = None

    def connection_made(self, transport):
      super().connection_made(transport)
      # asyncio does so only where a socket names its protocol; without it an answer takes 40 ms.
      transport.get_extra_info('socket').setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      self._wait()

    def data_received(self, data):
      super().data_received(data)
      self._wait()

    def connection_lost(self, exc):
      super().connection_lost(exc)
      self._arrived()

    def _wait(self):
      if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
        self._arrived()
      elif self._late is None:
        self._late = self.loop.call_later(_REQUEST, self.transport.abort)

    def _arrived(self):
      if self._late is not None:
        self._late.cancel()
        self._late = None

  return Punctual


def _need(package: str) -> None:
  try:
    __import__(package)
  except ImportError as error:
    raise ConfigError(
      f'{package} is missing; install mgjax[compare], or starlette and uvicorn'
    ) from error
