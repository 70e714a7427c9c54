"""The routes of the service, with its access rules and rate limits."""

import asyncio
import base64
import contextlib
import hashlib
import inspect
import json
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mgjax.apps.serving import http
from mgjax.apps.serving.videos import bodies, files, schema
from mgjax.apps.serving.videos.access import Access
from mgjax.apps.serving.videos.jobs import Jobs
from mgjax.apps.serving.videos.models import Models
from mgjax.apps.serving.videos.schema import ApiError, choose, number, public
from mgjax.core.configuration.keys import JSON, LARGEST_SEED, Fields
from mgjax.core.errors import ConfigError
from mgjax.data.media.provenance import release

_PAGE = pathlib.Path(__file__).parent / 'page.html'
_IMAGES = 4  # of one request
_WATCHERS = 200  # open streams of events
_LOOK = 0.01  # seconds between two polls of a stream of events, of a running job
_WAIT = 0.1  # of a job that waits
_GONE = 'There is no video of this id, or no more; GET /v1/videos lists them.'
_ERRORS = {  # status -> type and code, as OpenAI's client reads them
  401: ('authentication_error', 'invalid_api_key'),
  403: ('permission_error', None),
  404: ('not_found_error', 'not_found'),
  409: ('conflict_error', None),
  429: ('rate_limit_error', 'rate_limit_exceeded'),
  503: ('service_unavailable_error', None),
}
_CORS = {  # what pages of --cors_origin may send and read
  'allow_methods': ('GET', 'POST', 'DELETE'),
  'allow_headers': ('Authorization', 'Content-Type', 'Idempotency-Key', 'Range', 'If-Range'),
  'expose_headers': ('Content-Range', 'ETag', 'Retry-After', 'openai-poll-after-ms'),
}


class Service:
  """Answers requests, with one method for each route, and enforces limits.

  Methods that wait for a database or a file are plain functions, and run in threads. The state of a
  request has the client as `who` and, if the path has an id, the `video` as the API shows it.
  """

  def __init__(
    self,
    models: Models,
    jobs: Jobs,
    limits: schema.Limits,
    tokens: Sequence[str] = (),
    origins: Sequence[str] = (),
  ):
    """Serves models to clients with one of the tokens; without tokens to every client.

    Pages of other sites have access if `origins` names the site.
    """
    self._models = models
    self._jobs = jobs
    self._limits = limits
    self._offers = models.offers
    self._access = Access(tokens, origins)
    self._bodies = bodies.Bodies(limits.upload)
    self._origins = origins
    self._watchers = 0

  def app(self) -> http.ASGI:
    """Returns the application (ASGI)."""
    video = '/v1/videos/{id}'
    open_to_all = {
      '/': self._page,
      '/health': self._health,
      '/ready': self._ready,
      '/metrics': self._metrics,
    }
    guarded = {  # one route a path, so that a refusal lists all of its methods
      '/v1/models': {'GET': self._list_models},
      '/v1/models/{model:path}': {'GET': self._show_model},
      '/v1/images/generations': {'POST': self._make_images},
      '/v1/videos': {'POST': self._create, 'GET': self._list},
      video: {'GET': self._show, 'DELETE': self._delete},
      f'{video}/content': {'GET': self._content},
      f'{video}/preview': {'GET': self._preview},
      f'{video}/events': {'GET': self._watch},
      f'{video}/remix': {'POST': self._remix},
    }
    routes = [Route(path, self._open(answer)) for path, answer in open_to_all.items()]
    routes += [
      Route(path, self._guarded(methods), methods=[*methods]) for path, methods in guarded.items()
    ]
    cors = Middleware(CORSMiddleware, allow_origins=self._origins, **_CORS)
    return http.make_app(routes, self._refuse, [cors] if self._origins else [])

  def _refuse(self, error: Exception, status: int, sentence: str) -> Response:
    self._models.metrics.refused.labels(str(status)).inc()
    if not isinstance(error, http.Refused) and status == 500:
      sentence = 'This is a fault of the server; its log says more.'
    headers = dict(getattr(error, 'headers', None) or {})
    headers['Connection'] = 'close'  # the client may still be sending the body
    if status == 401:
      headers['WWW-Authenticate'] = 'Bearer'
    if wait := getattr(error, 'wait', 0):
      headers['Retry-After'] = str(max(1, round(wait)))
    usual = 'server_error' if status >= 500 else 'invalid_request_error'
    kind, code = _ERRORS.get(status, (usual, None))
    param = getattr(error, 'param', None)
    body = {'error': {'message': sentence, 'type': kind, 'param': param, 'code': code}}
    return JSONResponse(body, status, headers)

  def _open(
    self, answer: Callable[[Request], Awaitable[Response]]
  ) -> Callable[[Request], Awaitable[Response]]:
    """Answers all clients, except pages of other sites."""

    async def handle(request: Request) -> Response:
      self._access.check_site(request)
      return await answer(request)

    return handle

  def _guarded(
    self, answers: Mapping[str, Callable[[Request], object]]
  ) -> Callable[[Request], Awaitable[Response]]:
    """Checks the client, and finds the job of an id in the path; `answers` are by HTTP method."""

    async def handle(request: Request) -> Response:
      self._access.check_site(request)
      request.state.who = self._access.check(request)
      if request.method == 'POST':
        self._check_ready()
      if (id := request.path_params.get('id')) is not None:
        valid = schema.ID.fullmatch(id)
        request.state.video = await run_in_threadpool(self._jobs.describe, id) if valid else None
        if request.state.video is None:
          raise ApiError(_GONE, 'video_id', 404)
      answer = answers['GET' if request.method == 'HEAD' else request.method]
      is_async = inspect.iscoroutinefunction(answer)
      content = await (answer(request) if is_async else run_in_threadpool(answer, request))
      return content if isinstance(content, Response) else JSONResponse(content)

    return handle

  def _check_ready(self) -> None:
    if not self._models.ready.is_set():
      raise ApiError('The models are being loaded; ask /ready until it says yes.', None, 503, 5)

  @contextlib.asynccontextmanager
  async def _read(self, request: Request, pictures: bool = True) -> AsyncIterator[bodies.Found]:
    """Yields the fields of a request, and the bytes of its picture, not decoded yet."""
    self._access.spend(request.state.who, self._limits.rate)  # before any work
    async with self._bodies.read(request, pictures) as (fields, picture):
      yield {**fields, **({bodies.PICTURE: True} if picture is not None else {})}, picture

  async def _add(
    self,
    request: Request,
    jobs: list[schema.Job],
    fields: Fields,
    data: bytes | None = None,
    kind: str = 'video',
  ) -> list[str]:
    """Adds jobs. Raises ApiError if too many wait, or the model cannot run one of them."""
    who = request.state.who
    key = request.headers.get('idempotency-key', '')
    if len(jobs) > 1:
      self._access.spend(who, self._limits.rate, len(jobs) - 1)
    if self._jobs.queued + len(jobs) > self._limits.queue:
      raise ApiError(f'{self._jobs.queued} jobs wait already; come back later.', None, 429, 10)
    self._jobs.queued += len(jobs)  # before the next request is checked; `Jobs` counts them anew

    def check() -> list[schema.Job]:
      try:
        release.admit([job['prompt'] for job in jobs])
      except ConfigError as error:
        raise ApiError(public(error), 'prompt') from error
      content = [
        request.url.path,
        sorted(fields.items()),
        hashlib.sha256(data or b'').hexdigest(),
      ]
      digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
      return [{**job, 'request': digest, 'warnings': self._models.check(job)} for job in jobs]

    def store(jobs: list[schema.Job]) -> list[str]:
      ids = []
      for count, job in enumerate(jobs):
        # A client that repeats a request with the same key gets the same job.
        key_digest = hashlib.sha256(f'{who} {count} {key}'.encode()).hexdigest()[:32] if key else ''
        ids.append(self._jobs.add(job, kind, key_digest, picture))
      return ids

    checked = await run_in_threadpool(check)
    picture = None if data is None else await self._bodies.decode(data)
    return await run_in_threadpool(store, checked)

  async def _create(self, request: Request) -> JSON | None:
    async with self._read(request) as (fields, data):
      job = schema.parse_job(fields, self._offers, self._limits)
      ids = await self._add(request, [job], fields, data)
    return await run_in_threadpool(self._jobs.describe, *ids)

  async def _remix(self, request: Request) -> JSON | None:
    async with self._read(request, pictures=False) as (fields, _):
      video = _completed(request)
      schema.check_fields(fields, ('prompt',))
      prompt = schema.parse_prompt(fields.get('prompt'), self._limits)
      width, height = map(int, video['size'].split('x'))
      maker = self._offers.get(video['model'])
      editor = schema.find_other('editing', self._offers, maker, (height, width))
      overrides = {'fps': video['fps'], 'seed': video['seed'], 'source': video['id']}
      frames = min(video['num_frames'], editor.shapes[0][0])
      if (frames, height, width) not in [shape for shape in editor.shapes if shape[0] > 1]:
        raise ApiError(
          f'{editor.name} edits no videos of {frames} frames; remix another', 'video_id'
        )
      if await run_in_threadpool(self._jobs.results.path, video['id'], 'video.mp4') is None:
        raise ApiError('The file of this video is gone; make it again.', 'video_id', 409)
      size = {'height': height, 'width': width}
      job = schema.plain_job(editor, prompt, frames=frames, **size, **overrides)
      ids = await self._add(request, [job], fields)
    return await run_in_threadpool(self._jobs.describe, *ids)

  async def _make_images(self, request: Request) -> JSON:
    async with self._read(request) as (fields, data):
      job = schema.parse_job(fields, self._offers, self._limits, image=True)
      count = number(fields, 'n', 1, 1, _IMAGES, int)
      seeds = [(job['seed'] + offset) % (LARGEST_SEED + 1) for offset in range(count)]
      jobs: list[schema.Job] = [{**job, 'seed': seed} for seed in seeds]
      ids = await self._add(request, jobs, fields, data, 'image')
    images = []
    for id in ids:
      while state := await run_in_threadpool(self._jobs.describe, id):
        if state['status'] not in ('queued', 'in_progress'):
          break
        await asyncio.sleep(0.1)
      if state is None or state['status'] == 'failed':
        raise ApiError(state['error']['message'] if state else 'It was deleted.', None, 500)
      picture = await run_in_threadpool(self._jobs.results.get, id, files.PICTURE[0])
      images.append({'b64_json': base64.b64encode(picture or b'').decode()})
    return {'created': int(time.time()), 'data': images}

  def _list(self, request: Request) -> JSON:
    query = request.query_params
    limit = number(query, 'limit', 20, 1, 100, int)
    after = query.get('after')
    newest = choose('order', query.get('order', 'desc'), {'asc': False, 'desc': True})
    try:
      if after and not schema.ID.fullmatch(after):
        raise KeyError(after)
      videos, has_more = self._jobs.page(after, limit, newest)
    except KeyError as error:
      raise ApiError(_GONE, 'after', 404) from error
    ends = {'first_id': videos[0]['id'], 'last_id': videos[-1]['id']} if videos else {}
    return {'object': 'list', 'data': videos, 'has_more': has_more, **ends}

  def _show(self, request: Request) -> Response:
    return JSONResponse(request.state.video, headers={'openai-poll-after-ms': '250'})

  def _delete(self, request: Request) -> JSON:
    id = request.state.video['id']
    return {'id': id, 'object': 'video.deleted', 'deleted': self._jobs.delete(id)}

  def _content(self, request: Request) -> Response:
    variant = request.query_params.get('variant', 'video')
    name, kind = choose('variant', variant, files.VARIANTS)
    video = _completed(request)
    if video['num_frames'] == 1 and variant == 'video':
      name, kind = files.PICTURE
    path = self._jobs.results.path(video['id'], name)
    if path is None:
      mend = 'make it with soundtrack=true' if variant == 'audio' else 'make it again'
      raise ApiError(f'This video has no {variant}; {mend}.', 'variant', 404)
    etag = f'"{video["id"]}-{video["completed_at"]}-{variant}"'  # finished files never change
    return http.file_response(request, path, kind, etag)

  def _preview(self, request: Request) -> Response:
    if data := self._jobs.preview(request.state.video['id']):
      return Response(data, media_type='image/webp')
    raise ApiError('There is a preview after the first step and before the end.', 'video_id', 404)

  async def _watch(self, request: Request) -> Response:
    if self._watchers >= _WATCHERS:
      raise ApiError('Too many streams of events are open; ask GET /v1/videos/ID.', None, 503, 5)
    return StreamingResponse(self._events(request.state.video), media_type='text/event-stream')

  async def _events(self, video: JSON | None) -> AsyncIterator[str]:
    """Yields server-sent events of a job, one for each change, until it ends."""
    self._watchers += 1
    last_sent = None
    last_step = None
    described = time.monotonic()
    id = video['id']
    try:
      while video is not None:
        if video != last_sent:
          running = video['status'] == 'in_progress'
          last_sent = video
          data = await run_in_threadpool(self._jobs.preview, id) if running else None
          preview = base64.b64encode(data).decode() if data else None
          yield f'event: video\ndata: {json.dumps({**video, "preview": preview})}\n\n'
        if video['status'] in ('completed', 'failed'):
          return
        live = self._jobs.states.running(id)
        await asyncio.sleep(_LOOK if live else _WAIT)
        step = live and live.step  # free to read, unlike the database
        if step != last_step or time.monotonic() - described > 0.25:
          last_step = step
          described = time.monotonic()
          video = await run_in_threadpool(self._jobs.describe, id)
      yield 'event: deleted\ndata: {}\n\n'
    finally:
      self._watchers -= 1

  def _list_models(self, request: Request) -> JSON:
    return {'object': 'list', 'data': [offer.to_json() for offer in self._offers.values()]}

  def _show_model(self, request: Request) -> JSON:
    return choose('model', request.path_params['model'], self._offers, 404).to_json()

  async def _health(self, request: Request) -> Response:
    return JSONResponse({'status': 'ok'})

  async def _ready(self, request: Request) -> Response:
    self._check_ready()
    return JSONResponse({'status': 'ready'})

  async def _metrics(self, request: Request) -> Response:
    return Response(self._models.metrics.text(), media_type='text/plain; version=0.0.4')

  async def _page(self, request: Request) -> Response:
    return http.page_response(_PAGE)


def _completed(request: Request) -> JSON:
  if error := request.state.video['error']:
    raise ApiError(f'This video failed and has no files: {error["message"]}', 'video_id')
  if (video := request.state.video)['status'] != 'completed':
    raise ApiError(f'The video is {video["status"]}; wait until it is completed.', 'video_id')
  return video
