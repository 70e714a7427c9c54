"""Serves a queue of items to people: routes, invitations, and the one server of a folder."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

from mgjax.apps.serving import http
from mgjax.apps.serving.annotation_queue import AnnotationQueue
from mgjax.apps.serving.http import Refused
from mgjax.core.files import write_bytes
from mgjax.training.monitoring.workdir_lock import hold

INVITATIONS = 'invitations.txt'
_PAGE = pathlib.Path(__file__).parent / 'page.html'


def make_server(queue: AnnotationQueue) -> Any:
  """Returns a server (uvicorn) of a queue, to be run with a socket that listens."""
  http.check_installed()
  from starlette.requests import Request
  from starlette.responses import JSONResponse, Response
  from starlette.routing import Route

  def person_of(request: Request) -> str:
    if (name := queue.people.get(request.path_params['token'])) is None:
      raise Refused(404, 'This link is no invitation; ask for another one where you got it.')
    return name

  def check_operator(request: Request) -> None:
    if request.path_params['token'] != queue.operator:
      raise Refused(404, 'This is not the link that launch.serve printed.')

  async def page(request: Request) -> Response:
    person_of(request)
    return http.page_response(_PAGE)

  async def following(request: Request) -> Response:
    person = person_of(request)
    back = request.query_params.get('back', '0')
    if not (back.isdecimal() and len(back) < 9):
      raise Refused(400, 'back is a number.')
    return JSONResponse(await queue.next(person, 'more' in request.query_params, int(back)))

  async def answer(request: Request) -> Response:
    person = person_of(request)
    body = await http.body_of(request, queue.largest)
    return JSONResponse(await queue.answer(person, body))

  async def skip(request: Request) -> Response:
    person = person_of(request)
    return JSONResponse(queue.skip(person, await http.body_of(request, queue.largest)))

  async def media(request: Request) -> Response:
    path, kind = await queue.media(person_of(request), request.path_params['name'])
    return http.file_response(request, path, kind)

  async def progress(request: Request) -> Response:
    check_operator(request)
    return http.page_response(_PAGE)

  async def state(request: Request) -> Response:
    check_operator(request)
    return JSONResponse({'kind': queue.kind, **queue.state()})

  routes = [
    Route('/r/{token}', page),
    Route('/r/{token}/next', following),
    Route('/r/{token}/answers', answer, methods=['POST']),
    Route('/r/{token}/skip', skip, methods=['POST']),
    Route('/r/{token}/{name}', media),
    Route('/o/{token}', progress),
    Route('/o/{token}/state', state),
  ]
  return http.make_server(http.make_app(routes))


def serve(
  folder: str | os.PathLike[str],
  make_queue: Callable[[pathlib.Path], AnnotationQueue],
  *,
  host: str = '127.0.0.1',
  port: int = 8000,
  url: str = '',
  tell: Callable[[str], None] | None = None,
) -> None:
  """Serves what is in a folder, of a study or a review, until it is stopped.

  `url` is what people reach it by, where that is another one; `tell` gets what would be printed.
  Raises ConfigError if another server has the folder, the port is in use, or a package is missing.
  """
  http.check_installed()
  tell = tell or functools.partial(print, flush=True)
  folder = pathlib.Path(folder)
  with (
    hold(folder, 'folder'),
    http.listening(host, port) as listener,
    contextlib.closing(make_queue(folder)) as queue,
  ):
    server = make_server(queue)
    base = (url or http.address(host, listener.getsockname()[1])).rstrip('/')
    tell(_invite(folder / INVITATIONS, base, queue))
    tell(f'how far it is: {base}/o/{queue.operator}')
    if host not in http.LOOPBACK and not url.startswith('https:'):
      tell('what is sent is not encrypted: outside your network put TLS before it, with --url')
    tell('stop with Ctrl-C; the same command goes on')
    server.run([listener])


def _invite(path: pathlib.Path, base: str, queue: AnnotationQueue) -> str:
  """Writes the links of people, for nobody else to read, and says where they are."""
  lines = [f'{name} {base}/r/{token}' for token, name in queue.people.items()]
  write_bytes(path, '\n'.join([*lines, '']).encode(), private=True)
  return f'{len(lines)} invitations in {path}'
