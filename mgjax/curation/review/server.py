"""The page on which people look at clips, keep or drop, trim and caption them (Movie Gen §3.3)."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from mgjax.curation.review.decisions import FILE
from mgjax.curation.review.desk import Desk
from mgjax.data.ingest.inputs import Inputs
from mgjax.runtime import page_server
from mgjax.runtime.page_server import Refused

_LARGEST = 65_536  # bytes of a decision
_PAGE = pathlib.Path(__file__).parent / 'reviewer.html'


def make_server(desk: Desk) -> Any:
  """Returns a server (uvicorn) of a review, to be run with a socket that listens.

  Raises:
    ConfigError: a package is not installed.
  """
  page_server.need('starlette')
  from starlette.requests import Request
  from starlette.responses import JSONResponse, Response
  from starlette.routing import Route

  def person_of(request: Request) -> str:
    if (name := desk.people.get(request.path_params['token'])) is None:
      raise Refused(404, 'This link is no invitation; please ask whoever sent it.')
    return name

  async def reviewer_page(request: Request) -> Response:
    person_of(request)
    return page_server.page(_PAGE)

  async def following(request: Request) -> Response:
    back = request.query_params.get('back', '0')
    if not (back.isdecimal() and len(back) < 9):
      raise Refused(400, 'back is a number.')
    return JSONResponse(desk.next(person_of(request), int(back)))

  async def media(request: Request) -> Response:
    person_of(request)
    path = await desk.media(request.path_params['name'])
    return page_server.file_response(path, 'video/mp4')

  async def decide(request: Request) -> Response:
    person = person_of(request)
    body = await page_server.body_of(request, _LARGEST, 'A decision')
    return JSONResponse(await desk.decide(person, body))

  async def skip(request: Request) -> Response:
    person = person_of(request)
    return JSONResponse(
      desk.skip(person, await page_server.body_of(request, _LARGEST, 'A decision'))
    )

  return page_server.make_server(
    page_server.make_app(
      [
        Route('/r/{token}', reviewer_page),
        Route('/r/{token}/next', following),
        Route('/r/{token}/decisions', decide, methods=['POST']),
        Route('/r/{token}/skip', skip, methods=['POST']),
        Route('/r/{token}/{name}', media),
      ]
    )
  )


def serve(
  folder: str | os.PathLike[str],
  inputs: Inputs,
  people: Sequence[str] = (),
  *,
  host: str = '127.0.0.1',
  port: int = 8000,
  url: str = '',
  tell: Callable[[str], None] | None = None,
) -> None:
  """Serves a review until it is stopped.

  Args:
    folder: of the review.
    inputs: the videos that the clips are in.
    people: names of those who look at clips, beside those who did before.
    host: address to listen at.
    port: 0 for one that is free.
    url: that people reach it by, where that is another one.
    tell: gets the lines that say where it is; by default they are printed.

  Raises:
    ConfigError: there is nothing to look at, another server has it, the port is in use, or a
      package is missing.
  """
  tell = tell or functools.partial(print, flush=True)
  folder = pathlib.Path(folder)
  review = page_server.held(
    folder / FILE, 'ab', 'run launch.curate with this --output first', 'review'
  )
  with (
    review,
    contextlib.closing(Desk(folder, inputs, people)) as desk,
    page_server.listening(host, port) as listener,
  ):
    token, *others = desk.people
    page_server.run(
      make_server(desk), listener, folder, desk.people, host=host, url=url, tell=tell,
      links={} if others else {'look at clips': f'/r/{token}'},
    )  # fmt: skip
