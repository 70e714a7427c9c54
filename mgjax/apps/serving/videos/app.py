"""The routes of the service, and who may use them how often."""

import asyncio
import base64
import collections
import contextlib
import hashlib
import hmac
import inspect
import json
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mgjax.apps.serving import http
from mgjax.apps.serving.videos import schema
from mgjax.apps.serving.videos.files import VARIANTS
from mgjax.apps.serving.videos.jobs import Jobs
from mgjax.apps.serving.videos.models import Models
from mgjax.apps.serving.videos.schema import ApiError, choose, number
from mgjax.apps.serving.videos.uploads import decode_picture
from mgjax.core.errors import ConfigError
from mgjax.data.media.provenance import release

_PAGE = pathlib.Path(__file__).parent / 'page.html'
_JSON = 128_000  # bytes of a body without a picture
_BODIES = 256e6  # bytes of bodies that are on their way at once
_GUESSES = 30  # wrong tokens of an address in a minute
_IMAGES = 4  # of one request
_WATCHERS = 200  # open streams of events
_LOOK = 0.01  # seconds between two looks of a stream at what is made
_GONE = 'There is no video of this id, or no more; GET /v1/videos lists them.'
_PICTURE = 'input_reference'
_ERRORS = {  # status -> type and code, as OpenAI's client reads them
  401: ('authentication_error', 'invalid_api_key'),
  404: ('not_found_error', 'not_found'),
  429: ('rate_limit_error', 'rate_limit_exceeded'),
  503: ('service_unavailable_error', None),
}


class Service:
  """Answers requests: one method a route, and what was spent of the limits.

  Methods that wait for a database or a file are plain functions and run in threads. In the state of
  a request are `who` asks and, of a path with an id, the `video` as the API shows it.
  """

  def __init__(self, models: Models, jobs: Jobs, limits: schema.Limits, tokens: Sequence[str] = ()):
    """Serves models; without tokens everybody may use them."""
    self._models = models
    self._jobs = jobs
    self._limits = limits
    self._offers = models.offers
    self._tokens = [hashlib.sha256(token.encode()).digest() for token in tokens]
    self._spent: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
    self._bodies = self._watchers = 0

  def app(self) -> Any:
    """Returns the application (ASGI)."""
    video = '/v1/videos/{id}'
    open_to_all = {
      '/': self._page,
      '/health': self._health,
      '/ready': self._ready,
      '/metrics': self._metrics,
    }
    guarded = [
      ('GET', '/v1/models', self._list_models),
      ('POST', '/v1/images/generations', self._make_images),
      ('POST', '/v1/videos', self._create),
      ('GET', '/v1/videos', self._list),
      ('GET', video, self._show),
      ('DELETE', video, self._delete),
      ('GET', f'{video}/content', self._content),
      ('GET', f'{video}/preview', self._preview),
      ('GET', f'{video}/events', self._watch),
      ('POST', f'{video}/remix', self._remix),
    ]
    routes = [Route(path, answer) for path, answer in open_to_all.items()]
    routes += [Route(path, self._guarded(run), methods=[by]) for by, path, run in guarded]
    return http.make_app(routes, self._refuse)

  def _refuse(self, error: Exception, status: int, sentence: str) -> Response:
    self._models.metrics.refused.labels(str(status)).inc()
    if not isinstance(error, http.Refused) and status == 500:
      sentence = 'This is a fault of the server; its log says more.'
    headers = {'WWW-Authenticate': 'Bearer'} if status == 401 else {}
    if wait := getattr(error, 'wait', 0):
      headers['Retry-After'] = str(max(1, round(wait)))
    if status in (401, 413, 503):  # what is still on its way is not read
      headers['Connection'] = 'close'
    usual = 'server_error' if status >= 500 else 'invalid_request_error'
    kind, code = _ERRORS.get(status, (usual, None))
    told = {'message': sentence, 'type': kind, 'param': getattr(error, 'param', None), 'code': code}
    return JSONResponse({'error': told}, status, headers)

  def _guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Lets those in who may, and finds the job of the id in a path."""

    async def handle(request: Request) -> Response:
      request.state.who = self._check(request)
      if request.method == 'POST':
        self._check_ready()
      if (id := request.path_params.get('id')) is not None:
        known = schema.ID.fullmatch(id)
        request.state.video = await run_in_threadpool(self._jobs.describe, id) if known else None
        if request.state.video is None:
          raise ApiError(_GONE, 'video_id', 404)
      waits = inspect.iscoroutinefunction(answer)
      made = await (answer(request) if waits else run_in_threadpool(answer, request))
      return made if isinstance(made, Response) else JSONResponse(made)

    return handle

  def _check(self, request: Request) -> str:
    """Returns who asks. Raises ApiError for one who may not, or guesses."""
    address = request.client.host if request.client else ''
    if not self._tokens:
      return address
    given = request.headers.get('authorization', '').removeprefix('Bearer ').strip()
    digest = hashlib.sha256(given.encode()).digest()
    same = [hmac.compare_digest(digest, token) for token in self._tokens]  # all, whichever fits
    if not any(same):
      self._spend(f'guess {address}', _GUESSES)
      raise ApiError('The token is missing or wrong; send Authorization: Bearer TOKEN.', None, 401)
    return f'token {same.index(True)}'

  def _spend(self, who: str, most: float, count: int = 1) -> None:
    """Counts what somebody asks for. Raises ApiError if that is too often in a minute."""
    now = time.monotonic()
    left, since = self._spent.pop(who, (most, now))
    left = min(most, left + (now - since) * most / 60)
    self._spent[who] = (left - count if left >= count else left, now)
    while len(self._spent) > 10_000:
      self._spent.popitem(last=False)
    if left < count:
      wait = (count - left) * 60 / most
      raise ApiError(f'Too many requests; wait {wait:.0f} s.', None, 429, wait)

  def _check_ready(self) -> None:
    if not self._models.ready.is_set():
      raise ApiError('The models are being loaded; ask /ready until it says yes.', None, 503, 5)

  async def _read(self, request: Request) -> tuple[dict[str, Any], bytes | None]:
    """Returns the fields of a request and the picture that came with it, as it came."""
    most = int(self._limits.upload * 1.4e6) + _JSON
    came = 0
    large = ApiError(f'The body is too large; expected at most {most} bytes.', None, 413)
    length = request.headers.get('content-length', '0')
    if not length.isdecimal() or int(length) > most:
      raise large

    async def receive() -> Any:
      nonlocal came
      message = await request.receive()
      size = len(message.get('body', b''))
      came = came + size
      self._bodies = self._bodies + size
      if came > most:
        raise large
      if self._bodies > _BODIES:
        raise ApiError('Too much is being sent to this server; try again.', None, 503, 2)
      return message

    counted = Request(request.scope, receive)
    try:
      if not request.headers.get('content-type', '').startswith('multipart/form-data'):
        if not isinstance(found := json.loads(await counted.body()), dict):
          raise ValueError
        picture = found.pop(_PICTURE, None)
        picture = picture.get('image_url') if isinstance(picture, Mapping) else picture
      else:
        async with counted.form(max_files=1, max_fields=32, max_part_size=_JSON) as parts:
          found = dict(parts)
          if len(parts.multi_items()) > len(found):
            raise ApiError('A field comes twice; send each once.')
          picture = found.pop(f'{_PICTURE}[image_url]', found.pop(_PICTURE, None))
          picture = await picture.read() if isinstance(picture, UploadFile) else picture
          if any(isinstance(value, UploadFile) for value in found.values()):
            raise ApiError(f'A file comes as another field than {_PICTURE}.')
    except MultiPartException as error:
      raise ApiError(f'The form cannot be read: {error.message}') from error
    except (ValueError, RecursionError) as error:
      raise ApiError('The body is no object of JSON; send {"prompt": "..."}.') from error
    finally:
      self._bodies -= came
    if picture in (None, ''):
      return found, None
    return {**found, _PICTURE: True}, picture if isinstance(picture, bytes) else _data_of(picture)

  async def _add(
    self, request: Request, jobs: list[schema.Job], data: bytes | None = None, kind: str = 'video'
  ) -> list[str]:
    """Takes jobs in. Raises ApiError if there are too many, or a prompt or picture is refused."""
    who = request.state.who
    key = request.headers.get('idempotency-key', '')
    self._spend(who, self._limits.rate, len(jobs))
    if self._jobs.queued + len(jobs) > self._limits.queue:
      raise ApiError(f'{self._jobs.queued} jobs wait already; come back later.', None, 429, 10)
    self._jobs.queued += len(jobs)  # before any other request is looked at; soon counted anew

    def store() -> list[str]:
      try:
        release.admit([job['prompt'] for job in jobs])
      except ConfigError as error:
        raise ApiError(str(error), 'prompt') from error
      picture = None if data is None else decode_picture(data)
      ids = []
      for count, job in enumerate(jobs):
        # Who sends it again, as after a broken connection, gets the same job.
        told = hashlib.sha256(f'{who} {count} {key}'.encode()).hexdigest()[:32] if key else ''
        ids.append(self._jobs.add(job, kind, told, picture))
      return ids

    return await run_in_threadpool(store)

  async def _create(self, request: Request) -> Any:
    fields, data = await self._read(request)
    job = schema.parse_job(fields, self._offers, self._limits)
    return await run_in_threadpool(self._jobs.describe, *await self._add(request, [job], data))

  async def _remix(self, request: Request) -> Any:
    video = _completed(request)
    editor = next((each for each in self._offers.values() if each.component == 'editing'), None)
    if editor is None:
      raise ApiError('No model of this server edits; start it with --model=digits/editing as well.')
    fields, _ = await self._read(request)
    if unknown := sorted(set(fields) - {'prompt'}):
      raise ApiError(f'unknown field {unknown[0]!r:.60}; a remix has a prompt alone.')
    prompt = schema.parse_prompt(fields.get('prompt'), self._limits)
    told = {'fps': video['fps'], 'seed': video['seed'], 'source': video['id']}
    frames = min(video['num_frames'], editor.shapes[0][0])
    job = schema.plain_job(editor, prompt, frames=frames, **told)
    return await run_in_threadpool(self._jobs.describe, *await self._add(request, [job]))

  async def _make_images(self, request: Request) -> Any:
    fields, data = await self._read(request)
    count = number(fields, 'n', 1, 1, _IMAGES, int)
    kind = fields.get('response_format', 'b64_json')
    choose('response_format', kind, {'b64_json': ''})
    job = schema.parse_job(fields, self._offers, self._limits, image=True)
    jobs: list[schema.Job] = [{**job, 'seed': job['seed'] + more} for more in range(count)]
    found = []
    for id in await self._add(request, jobs, data, 'image'):
      while state := await run_in_threadpool(self._jobs.describe, id):
        if state['status'] not in ('queued', 'in_progress'):
          break
        await asyncio.sleep(0.1)
      if state is None or state['status'] == 'failed':
        raise ApiError(state['error']['message'] if state else 'It was deleted.', None, 500)
      picture = await run_in_threadpool(self._jobs.results.get, id, 'image.png')
      found.append({'b64_json': base64.b64encode(picture or b'').decode()})
    return {'created': int(time.time()), 'data': found}

  def _list(self, request: Request) -> Any:
    asked = request.query_params
    limit = number(asked, 'limit', 20, 1, 100, int)
    after = asked.get('after')
    newest = choose('order', asked.get('order', 'desc'), {'asc': False, 'desc': True})
    try:
      if after and not schema.ID.fullmatch(after):
        raise KeyError(after)
      found, more = self._jobs.page(after, limit, newest)
    except KeyError as error:
      raise ApiError(_GONE, 'after', 404) from error
    ends = {'first_id': found[0]['id'], 'last_id': found[-1]['id']} if found else {}
    return {'object': 'list', 'data': found, 'has_more': more, **ends}

  def _show(self, request: Request) -> Any:
    return JSONResponse(request.state.video, headers={'openai-poll-after-ms': '250'})

  def _delete(self, request: Request) -> Any:
    id = request.state.video['id']
    return {'id': id, 'object': 'video.deleted', 'deleted': self._jobs.delete(id)}

  def _content(self, request: Request) -> Any:
    variant = request.query_params.get('variant', 'video')
    name, kind = choose('variant', variant, VARIANTS)
    path = self._jobs.results.path(_completed(request)['id'], name)
    if path is None:
      raise ApiError(f'This video has no {variant}; make it with soundtrack=true.', 'variant', 404)
    if ',' in request.headers.get('range', ''):  # many ranges at once are nobody's need
      request.scope['headers'] = [each for each in request.scope['headers'] if each[0] != b'range']
    return http.file_response(path, kind)

  def _preview(self, request: Request) -> Any:
    if data := self._jobs.preview(request.state.video['id']):
      return Response(data, media_type='image/webp')
    raise ApiError('There is a preview after the first step and before the end.', 'video_id', 404)

  async def _watch(self, request: Request) -> Any:
    if self._watchers >= _WATCHERS:
      raise ApiError('Too many streams of events are open; ask GET /v1/videos/ID.', None, 503, 5)
    return StreamingResponse(self._events(request.state.video), media_type='text/event-stream')

  async def _events(self, found: dict[str, Any] | None) -> AsyncIterator[str]:
    """Yields server-sent events of a job, one whenever something changed, until it ends."""
    self._watchers += 1
    told = None
    asked = time.monotonic()
    seen = None
    id = (found or {})['id']
    try:
      while found is not None:
        if found != told:
          running = found['status'] == 'in_progress'
          told = found
          data = await run_in_threadpool(self._jobs.preview, id) if running else None
          shown = base64.b64encode(data).decode() if data else None
          yield f'event: video\ndata: {json.dumps({**found, "preview": shown})}\n\n'
        if found['status'] in ('completed', 'failed'):
          return
        await asyncio.sleep(_LOOK)
        live = self._jobs.live.get(id)
        step = live and live.step  # costs nothing to look at, unlike what a database says
        if step != seen or time.monotonic() - asked > 0.25:
          seen = step
          asked = time.monotonic()
          found = await run_in_threadpool(self._jobs.describe, id)
      yield 'event: deleted\ndata: {}\n\n'
    finally:
      self._watchers -= 1

  def _list_models(self, request: Request) -> Any:
    return {'object': 'list', 'data': [each.shown() for each in self._offers.values()]}

  async def _health(self, request: Request) -> Response:
    return JSONResponse({'status': 'ok'})

  async def _ready(self, request: Request) -> Response:
    self._check_ready()
    return JSONResponse({'status': 'ready'})

  async def _metrics(self, request: Request) -> Response:
    return Response(self._models.metrics.text(), media_type='text/plain; version=0.0.4')

  async def _page(self, request: Request) -> Response:
    return http.page_response(_PAGE)


def _completed(request: Request) -> dict[str, Any]:
  if (video := request.state.video)['status'] != 'completed':
    raise ApiError(f'The video is {video["status"]}; wait until it is completed.', 'video_id')
  return video


def _data_of(url: Any) -> bytes:
  """Returns what a data URL holds; nothing is fetched for a client."""
  if isinstance(url, str) and url.startswith('data:image/') and ';base64,' in url[:64]:
    with contextlib.suppress(ValueError):
      return base64.b64decode(url.partition(',')[2], validate=True)
  wanted = 'expected a file of a form, or data:image/png;base64,... in JSON'
  raise ApiError(f'{_PICTURE}; {wanted}', _PICTURE)
