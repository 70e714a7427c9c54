"""The page on which people compare videos, served over HTTP (Movie Gen §3.5)."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

from mgjax.evaluation.human.desk import Desk
from mgjax.evaluation.human.study import FILE, KINDS
from mgjax.runtime import page_server
from mgjax.runtime.page_server import Refused

_LARGEST_VOTE = 2048  # bytes
_PAGES = pathlib.Path(__file__).parent


def make_app(desk: Desk) -> Any:
  """Returns the application (ASGI) of a study.

  Raises:
    ConfigError: Starlette is not installed.
  """
  page_server.need('starlette')
  from starlette.requests import Request
  from starlette.responses import JSONResponse, Response
  from starlette.routing import Route

  def rater_of(request: Request) -> str:
    if (name := desk.raters.get(request.path_params['token'])) is None:
      raise Refused(404, 'This link is no invitation; please ask whoever sent it.')
    return name

  def operated(request: Request) -> None:
    if request.path_params['token'] != desk.operator:
      raise Refused(404, 'This is not the link that launch.compare serve printed.')

  async def rater_page(request: Request) -> Response:
    rater_of(request)
    return page_server.page(_PAGES / 'rater.html')

  async def operator_page(request: Request) -> Response:
    operated(request)
    return page_server.page(_PAGES / 'operator.html')

  async def following(request: Request) -> Response:
    return JSONResponse(await desk.next(rater_of(request), 'more' in request.query_params))

  async def media(request: Request) -> Response:
    path = desk.media(rater_of(request), request.path_params['name'])
    return page_server.file_response(path, KINDS[path.suffix.lower()])

  async def vote(request: Request) -> Response:
    rater = rater_of(request)
    body = await page_server.body_of(request, _LARGEST_VOTE, 'A vote')
    return JSONResponse(await desk.vote(rater, body))

  async def state(request: Request) -> Response:
    operated(request)
    return JSONResponse(desk.state())

  return page_server.make_app(
    [
      Route('/r/{token}', rater_page),
      Route('/r/{token}/next', following),
      Route('/r/{token}/votes', vote, methods=['POST']),
      Route('/r/{token}/{name}', media),
      Route('/o/{token}', operator_page),
      Route('/o/{token}/state', state),
    ]
  )


def make_server(desk: Desk) -> Any:
  """Returns a server (uvicorn) of a study, to be run with a socket that listens.

  Raises:
    ConfigError: a package is not installed.
  """
  return page_server.make_server(make_app(desk))


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
  study = page_server.held(
    directory / FILE, 'rb', 'give --a, --b and --prompts to begin one', 'study'
  )
  with study, page_server.listening(host, port) as listener:
    desk = Desk(directory)
    page_server.run(
      make_server(desk), listener, directory, desk.raters, host=host, url=url, tell=tell,
      links={'how far it is': f'/o/{desk.operator}'},
    )  # fmt: skip
