"""The routes of the service, and who may use them how often."""

import asyncio
import base64
import collections
import contextlib
import hashlib
import hmac
import json
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.media.provenance import release
from mgjax.serving import http
from mgjax.serving.videos.files import VARIANTS
from mgjax.serving.videos.jobs import Jobs
from mgjax.serving.videos.models import Models
from mgjax.serving.videos.schema import (
  ID,
  ApiError,
  Limits,
  edit_job,
  error_object,
  parse_job,
  parse_prompt,
)
from mgjax.serving.videos.uploads import decode_picture

_PAGE = pathlib.Path(__file__).parent / 'page.html'
_JSON = 128_000  # bytes of a body without a picture
_BODIES = 256e6  # bytes of bodies that are on their way at once
_GUESSES = 30  # wrong tokens of an address in a minute
_IMAGES = 4  # of one request
_WATCHERS = 200  # open streams of events
_Found = dict[str, Any]  # a job as the API shows it, that of the id in a path
_GONE = 'There is no video of this id, or no more; GET /v1/videos lists them.'


class Service:
  """What the routes share: models, jobs, and what was spent of the limits."""

  def __init__(self, models: Models, jobs: Jobs, limits: Limits, tokens: Sequence[str]):
    """Serves models; without tokens everybody may use them."""
    self.models, self.jobs, self.limits, self.metrics = models, jobs, limits, models.metrics
    self._tokens = [hashlib.sha256(token.encode()).digest() for token in tokens]
    self._spent: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
    self._bodies, self.watchers = 0, 0

  def check_ready(self) -> None:
    """Raises ApiError while models are loaded."""
    if not self.models.ready.is_set():
      raise ApiError('The models are being loaded; ask /ready until it says yes.', None, 503, 5)

  def check(self, request: Any) -> str:
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

  async def fields(self, request: Any) -> tuple[dict[str, Any], bytes | None]:
    """Returns the fields of a request and the picture that came with it, as it came."""
    from starlette.formparsers import MultiPartException
    from starlette.requests import Request

    most, came = int(self.limits.upload * 1.4e6) + _JSON, 0
    large = ApiError(f'The body is too large; expected at most {most} bytes.', None, 413)
    length = request.headers.get('content-length', '0')
    if not length.isdecimal() or int(length) > most:
      raise large

    async def receive() -> Any:
      nonlocal came
      message = await request.receive()
      size = len(message.get('body', b''))
      came, self._bodies = came + size, self._bodies + size
      if came > most:
        raise large
      if self._bodies > _BODIES:
        raise ApiError('Too much is being sent to this server; try again.', None, 503, 2)
      return message

    counted = Request(request.scope, receive)
    try:
      if not request.headers.get('content-type', '').startswith('multipart/form-data'):
        return _read_json(await http.body_of(counted, most))
      async with counted.form(max_files=1, max_fields=32, max_part_size=_JSON) as parts:
        found: dict[str, Any] = dict(parts)
        if len(parts.multi_items()) > len(found):
          raise ApiError('A field comes twice; send each once.')
        picture = found.pop('input_reference', None)
        picture = found.pop('input_reference[image_url]', picture)
        if any(not isinstance(value, str) for value in found.values()):
          raise ApiError('A file comes as another field than input_reference.')
        if picture in (None, ''):
          return found, None
        data = _data_of(picture) if isinstance(picture, str) else await picture.read()
        return {**found, 'input_reference': True}, data
    except MultiPartException as error:
      raise ApiError(f'The form cannot be read: {error.message}') from error
    finally:
      self._bodies -= came

  async def add(
    self, request: Any, who: str, jobs: list[dict[str, Any]], data: bytes | None, kind: str
  ) -> list[str]:
    """Takes jobs in. Raises ApiError if there are too many, or a prompt or picture is refused."""
    self._spend(who, self.limits.rate, len(jobs))
    if self.jobs.queued + len(jobs) > self.limits.queue:
      raise ApiError(f'{self.jobs.queued} jobs wait already; come back later.', None, 429, 10)
    key = request.headers.get('idempotency-key', '')

    def store() -> list[str]:
      try:
        release.admit([job['prompt'] for job in jobs])
      except ConfigError as error:
        raise ApiError(str(error), 'prompt') from error
      picture, ids = None if data is None else decode_picture(data), []
      for number, job in enumerate(jobs):
        # Who sends it again, as after a broken connection, gets the same job.
        told = hashlib.sha256(f'{who} {number} {key}'.encode()).hexdigest()[:32] if key else ''
        ids.append(self.jobs.add(job, kind, told, picture))
      return ids

    return await asyncio.to_thread(store)

  async def events(self, found: dict[str, Any]) -> AsyncIterator[str]:
    """Yields server-sent events of a job, one whenever something changed, until it ends."""
    self.watchers += 1
    told, asked, id = '', time.monotonic(), found['id']
    try:
      while True:
        if (text := json.dumps(found)) != told:
          running, told = found['status'] == 'in_progress', text
          data = await asyncio.to_thread(self.jobs.preview, id) if running else None
          shown = base64.b64encode(data).decode() if data else None
          yield f'event: video\ndata: {json.dumps({**found, "preview": shown})}\n\n'
        if found['status'] in ('completed', 'failed'):
          return
        await asyncio.sleep(0.05)
        if id in self.jobs.live or time.monotonic() - asked > 0.25:
          asked, found = time.monotonic(), await asyncio.to_thread(self.jobs.describe, id)
        if found is None:
          yield 'event: deleted\ndata: {}\n\n'
          return
    finally:
      self.watchers -= 1


def make_app(service: Service) -> Any:
  """Returns the application (ASGI)."""
  from starlette.requests import Request
  from starlette.responses import JSONResponse, Response, StreamingResponse
  from starlette.routing import Route

  jobs, offers = service.jobs, service.models.offers

  def tell(error: Exception, status: int, sentence: str) -> Response:
    service.metrics.refused.labels(str(status)).inc()
    if not isinstance(error, http.Refused) and status == 500:
      sentence = 'This is a fault of the server; its log says more.'
    headers = {'WWW-Authenticate': 'Bearer'} if status == 401 else {}
    if wait := getattr(error, 'wait', 0):
      headers['Retry-After'] = str(max(1, round(wait)))
    if status in (401, 413, 503):  # what is still on its way is not read
      headers['Connection'] = 'close'
    return JSONResponse(
      error_object(status, sentence, getattr(error, 'param', None)), status, headers
    )

  def guarded(path: str, answer: Callable[..., Any], method: str = 'GET') -> Route:
    """A route for those who may, with the job of the id in its path, or who asks."""

    async def handle(request: Request) -> Response:
      who = service.check(request)
      if method == 'POST':
        service.check_ready()
      if (id := request.path_params.get('id')) is None:
        return await answer(request, who)
      found = await asyncio.to_thread(jobs.describe, id) if ID.fullmatch(id) else None
      if found is None:
        raise ApiError(_GONE, 'video_id', 404)
      return await answer(request, found)

    return Route(path, handle, methods=[method])

  def completed(found: _Found) -> None:
    if found['status'] != 'completed':
      raise ApiError(f'The video is {found["status"]}; wait until it is completed.', 'video_id')

  async def begun(request: Request, who: str, job: _Found, data: bytes | None = None) -> Response:
    (id,) = await service.add(request, who, [job], data, 'video')
    return JSONResponse(await asyncio.to_thread(jobs.describe, id))

  async def create(request: Request, who: str) -> Response:
    fields, data = await service.fields(request)
    return await begun(request, who, parse_job(fields, offers, service.limits), data)

  async def remix(request: Request, found: _Found) -> Response:
    completed(found)
    editor = next((each for each in offers.values() if each.component == 'editing'), None)
    if editor is None:
      raise ApiError('No model of this server edits; start it with --model=digits/editing as well.')
    fields, _ = await service.fields(request)
    if unknown := sorted(set(fields) - {'prompt'}):
      raise ApiError(f'unknown field {unknown[0]!r:.60}; a remix has a prompt alone.')
    job = edit_job(found, parse_prompt(fields.get('prompt'), service.limits), editor)
    return await begun(request, service.check(request), job)

  async def several(request: Request, who: str) -> Response:
    asked = request.query_params
    limit, order, after = asked.get('limit', '20'), asked.get('order', 'desc'), asked.get('after')
    if limit not in map(str, range(1, 101)):
      raise ApiError(f'limit {limit[:20]!r}; expected a number from 1 to 100', 'limit')
    if order not in ('asc', 'desc'):
      raise ApiError(f'order {order[:20]!r}; expected asc or desc', 'order')
    if after and not ID.fullmatch(after):
      raise ApiError(_GONE, 'after', 404)
    try:
      found, more = await asyncio.to_thread(jobs.page, after, int(limit), order == 'desc')
    except KeyError as error:
      raise ApiError(_GONE, 'after', 404) from error
    ends = {'first_id': found[0]['id'], 'last_id': found[-1]['id']} if found else {}
    return JSONResponse({'object': 'list', 'data': found, 'has_more': more, **ends})

  async def one(request: Request, found: _Found) -> Response:
    return JSONResponse(found, headers={'openai-poll-after-ms': '250'})

  async def delete(request: Request, found: _Found) -> Response:
    done = await asyncio.to_thread(jobs.delete, found['id'])
    return JSONResponse({'id': found['id'], 'object': 'video.deleted', 'deleted': done})

  async def content(request: Request, found: _Found) -> Response:
    variant = request.query_params.get('variant', 'video')
    if variant not in VARIANTS:
      raise ApiError(f'variant {variant[:20]!r}; expected {", ".join(VARIANTS)}', 'variant')
    completed(found)
    name, kind = VARIANTS[variant]
    path = await asyncio.to_thread(jobs.results.path, found['id'], name)
    if path is None:
      raise ApiError(f'This video has no {variant}; make it with soundtrack=true.', 'variant', 404)
    if ',' in request.headers.get('range', ''):  # many ranges at once are nobody's need
      request.scope['headers'] = [each for each in request.scope['headers'] if each[0] != b'range']
    return http.file_response(path, kind)

  async def preview(request: Request, found: _Found) -> Response:
    if data := await asyncio.to_thread(jobs.preview, found['id']):
      return Response(data, media_type='image/webp')
    raise ApiError('There is a preview after the first step and before the end.', 'video_id', 404)

  async def events(request: Request, found: _Found) -> Response:
    if service.watchers >= _WATCHERS:
      raise ApiError('Too many streams of events are open; ask GET /v1/videos/ID.', None, 503, 5)
    return StreamingResponse(service.events(found), media_type='text/event-stream')

  async def images(request: Request, who: str) -> Response:
    fields, data = await service.fields(request)
    count, kind = str(fields.pop('n', 1)), fields.pop('response_format', 'b64_json')
    if count not in map(str, range(1, _IMAGES + 1)) or kind != 'b64_json':
      raise ApiError(f'expected n from 1 to {_IMAGES}, and response_format b64_json', 'n')
    job = parse_job(fields, offers, service.limits, image=True)
    several = [{**job, 'seed': job['seed'] + number} for number in range(int(count))]
    found = []
    for id in await service.add(request, who, several, data, 'image'):
      state: _Found | None = {'status': 'queued'}
      while state and state['status'] in ('queued', 'in_progress'):
        await asyncio.sleep(0.1)
        state = await asyncio.to_thread(jobs.describe, id)
      if state is None or state['status'] == 'failed':
        raise ApiError(state['error']['message'] if state else 'It was deleted.', None, 500)
      picture = await asyncio.to_thread(jobs.results.get, id, 'image.png')
      found.append({'b64_json': base64.b64encode(picture or b'').decode()})
    return JSONResponse({'created': int(time.time()), 'data': found})

  async def models(request: Request, who: str) -> Response:
    return JSONResponse({'object': 'list', 'data': [each.shown() for each in offers.values()]})

  async def health(request: Request) -> Response:
    alive = service.models.device.is_alive()
    return JSONResponse({'status': 'ok' if alive else 'failed'}, 200 if alive else 503)

  async def ready(request: Request) -> Response:
    service.check_ready()
    return JSONResponse({'status': 'ready'})

  async def metrics(request: Request) -> Response:
    return Response(service.metrics.text(), media_type='text/plain; version=0.0.4')

  async def page(request: Request) -> Response:
    return http.page_response(_PAGE)

  video = '/v1/videos/{id}'
  routes = [
    *(Route(*each) for each in (('/', page), ('/health', health), ('/ready', ready))),
    Route('/metrics', metrics),
    guarded('/v1/models', models),
    guarded('/v1/images/generations', images, 'POST'),
    guarded('/v1/videos', create, 'POST'),
    guarded('/v1/videos', several),
    guarded(video, one),
    guarded(video, delete, 'DELETE'),
    guarded(f'{video}/content', content),
    guarded(f'{video}/preview', preview),
    guarded(f'{video}/events', events),
    guarded(f'{video}/remix', remix, 'POST'),
  ]
  return http.make_app(routes, tell)


def _read_json(body: bytes) -> tuple[dict[str, Any], bytes | None]:
  try:
    fields = json.loads(body)
  except (ValueError, RecursionError):
    fields = None
  if not isinstance(fields, dict):
    raise ApiError('The body is no object of JSON; send {"prompt": "..."}.')
  picture = fields.pop('input_reference', None)
  if isinstance(picture, Mapping):
    picture = picture.get('image_url')
  if picture is None:
    return fields, None
  return {**fields, 'input_reference': True}, _data_of(picture)


def _data_of(url: Any) -> bytes:
  """Returns what a data URL holds; nothing is fetched for a client."""
  if isinstance(url, str) and url.startswith('data:image/') and ';base64,' in url[:64]:
    with contextlib.suppress(ValueError):
      return base64.b64decode(url.partition(',')[2], validate=True)
  raise ApiError(
    'input_reference; expected a file of a form, or data:image/png;base64,... in JSON',
    'input_reference',
  )
