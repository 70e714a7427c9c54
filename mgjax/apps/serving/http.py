"""The HTTP server of pages for people: headers, limits of time and size, and where it listens.

A link holds a token of 128 bits and stands for one person; without one the server returns nothing.
A page runs its own script alone and loads nothing. Requests have to arrive, and answers to leave,
in time. Paths of requests are never made to paths of files.
"""

import asyncio
import base64
import contextlib
import hashlib
import html
import os
import pathlib
import re
import resource
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_package

ASGI = Callable[..., Awaitable[None]]  # an application

LOOPBACK = ('127.0.0.1', '::1', 'localhost')
HEADERS = {
  'Cache-Control': 'no-store',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}
_HEADER = 16_384  # bytes of a request's header
_REQUEST = 10.0  # seconds in which a request has to arrive; uvicorn itself would wait for ever
_IDLE = 5  # seconds that a connection may wait for its next request
_RESPONSE = 600.0  # seconds in which a response has to leave
_PIECE = 16_384  # bytes that are read of a connection at a time
_CHUNK, _CHUNKS = 64, 500  # bytes of a small chunk, and how many of these a connection may send
_RANGE = re.compile(r'bytes=((?P<first>\d{1,18})-(?P<last>\d{1,18})?|-\d{1,18})', re.ASCII)
CONNECTIONS = 1000  # at once


class Refused(Exception):
  """A request that is answered with a sentence."""

  def __init__(self, status: int, sentence: str):
    super().__init__(sentence)
    self.status = status


def make_app(
  routes: Sequence[Any], tell: Callable[..., Any] | None = None, middleware: Sequence[Any] = ()
) -> Any:
  """Returns an ASGI application of Starlette routes whose errors are sentences.

  `tell(error, status, sentence)` makes their responses, by default JSON or a page; `middleware` is
  Starlette's.
  """
  from starlette.applications import Starlette
  from starlette.exceptions import HTTPException
  from starlette.requests import ClientDisconnect, Request
  from starlette.responses import HTMLResponse, JSONResponse, Response

  async def refuse(request: Request, error: Exception) -> Response:
    status = getattr(error, 'status', None) or getattr(error, 'status_code', 500)
    sentence = str(error) if isinstance(error, Refused) else 'There is nothing here.'
    if status == 405:
      sentence = f'This path takes {error.headers["Allow"]}, not {request.method:.20}.'
    if tell is not None:
      return tell(error, status, sentence)
    if 'text/html' in request.headers.get('accept', ''):
      text = html.escape(sentence)
      return HTMLResponse(
        f'<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
        f'<title>{text}</title><p style="font:18px system-ui;margin:3em">{text}</p>',
        status,
      )
    return JSONResponse({'error': sentence}, status)

  # A client that disconnects reads no answer, and should leave no traceback in the log.
  known = (Refused, HTTPException, ClientDisconnect, *([Exception] if tell else []))
  handlers: Mapping[Any, Any] = dict.fromkeys(known, refuse)
  app = Starlette(routes=[*routes], exception_handlers=handlers, middleware=[*middleware])
  return _guarded(app)


def page_response(path: pathlib.Path) -> Any:
  """Returns a page as a response, with a policy by which only its own script runs."""
  from starlette.responses import HTMLResponse

  text = path.read_text()
  allowed = [
    f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
    for body in re.findall('<script>(.*?)</script>', text, re.DOTALL)
  ]
  policy = (
    f"default-src 'none'; script-src {' '.join(allowed)}; style-src 'unsafe-inline'; "
    "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
  )
  return HTMLResponse(text, 200, {'Content-Security-Policy': policy})


def file_response(request: Any, path: pathlib.Path, media_type: str, etag: str = '') -> Any:
  """Returns a response with a file, or one range of it, with its length and the etag, if any.

  A range of another unit, or with an If-Range other than the etag, is ignored (RFC 9110).
  """
  from starlette.responses import FileResponse

  text = request.headers.get('range', '').lower()
  is_current = request.headers.get('if-range', etag) == etag
  valid = _RANGE.fullmatch(text) if is_current else None
  if valid and valid['last'] and int(valid['last']) < int(valid['first']):
    valid = None
  headers = request.scope['headers']
  headers = [(name, value) for name, value in headers if name not in (b'range', b'if-range')]
  request.scope['headers'] = [*headers, *([(b'range', text.encode())] if valid else [])]

  class _Bytes(FileResponse):
    def set_stat_headers(self, stat_result: os.stat_result) -> None:
      self.headers.setdefault('content-length', str(stat_result.st_size))

  return _Bytes(path, media_type=media_type, headers={'ETag': etag} if etag else {})


async def body_of(request: Any, most: int) -> bytes:
  """Reads what a request of Starlette brings, up to `most` bytes; more is `Refused`."""
  body = b''
  async for part in request.stream():
    body += part
    if len(body) > most:
      raise Refused(413, f'An answer has at most {most} bytes.')
  return body


def _guarded(app: ASGI) -> ASGI:
  """Adds headers to every response of an application, and a time limit."""
  headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

  async def answer(scope, receive, send):
    async def sending(message):
      if message['type'] == 'http.response.start':
        names = {name for name, _ in message['headers']}
        missing = [header for header in headers if header[0] not in names]
        message['headers'] = [*message['headers'], *missing]
      await send(message)

    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(_RESPONSE):
        await app(scope, receive, sending)

  return answer


def make_server(app: ASGI, connections: int = CONNECTIONS) -> Any:
  """Returns a server (uvicorn) of an application, to be run with a socket that listens.

  More connections at once are refused for the moment.
  """
  import uvicorn

  return uvicorn.Server(
    uvicorn.Config(
      app,
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
      limit_concurrency=connections,
      backlog=1024,
      h11_max_incomplete_event_size=_HEADER,
    )
  )


def listening(host: str, port: int) -> socket.socket:
  """Returns a socket that listens, for as many connections as a server takes.
  Raises ConfigError if the port is in use.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  files = 4 * CONNECTIONS  # each connection may read one
  limit = max(soft, files if hard == resource.RLIM_INFINITY else min(hard, files))
  resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
  try:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise ConfigError(f'--host={host} --port={port}: {error}; take another') from error


def address(host: str, port: int) -> str:
  """Returns the address of a server as others reach it."""
  name = socket.getfqdn() if host in ('0.0.0.0', '::') else f'[{host}]' if ':' in host else host
  return f'http://{name}:{port}'


def _make_protocol() -> type:
  import h11
  from uvicorn.protocols.http.h11_impl import H11Protocol

  class Connection(h11.Connection):
    """Ends a connection that sends many small chunks, which are more work than their bytes."""

    end: Callable[[], None]
    _small = 0

    def next_event(self):
      event = super().next_event()
      if isinstance(event, h11.Data) and event.chunk_end and len(event.data) < _CHUNK:
        self._small += 1
        if self._small > _CHUNKS:
          self.end()
          return h11.NEED_DATA
      return event

  class Punctual(H11Protocol):
    """Ends connections whose requests do not arrive in time, however steadily they trickle."""

    _late = None

    def connection_made(self, transport):
      super().connection_made(transport)
      self.conn = Connection(h11.SERVER, _HEADER)
      self.conn.end = transport.abort
      transport.max_size = _PIECE  # others are served between two pieces
      # asyncio does so only where a socket names its protocol; without it an answer takes 40 ms.
      transport.get_extra_info('socket').setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      self._wait()

    def data_received(self, data):
      super().data_received(data)
      self._wait()

    def connection_lost(self, exc):
      super().connection_lost(exc)
      self._arrived()

    def send_400_response(self, msg):
      # What is no HTTP may follow a request that is being answered, or was.
      if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        super().send_400_response(msg)
      else:
        self.transport.abort()
      if self.cycle is not None:
        self.cycle.disconnected = True  # its answer has nowhere to go
        self.cycle.message_event.set()

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


def check_installed(packages: Sequence[str] = ('starlette', 'uvicorn')) -> None:
  """Raises a ConfigError where a package that serving needs is not installed."""
  for package in packages:
    load_package(package, f'serving needs {package}', 'serve')
