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
from collections.abc import AsyncIterator, Mapping
from typing import Any

from mgjax.core.errors import ConfigError
from mgjax.media.provenance import release
from mgjax.serving import http
from mgjax.serving.videos.files import VARIANTS
from mgjax.serving.videos.jobs import Jobs
from mgjax.serving.videos.metrics import Metrics
from mgjax.serving.videos.models import Models
from mgjax.serving.videos.results import Results
from mgjax.serving.videos.schema import (
  ID,
  ApiError,
  Limits,
  edit_job,
  error_object,
  parse_job,
  parse_prompt,
)
from mgjax.serving.videos.uploads import UnreadableError, decode_picture

_PAGE = pathlib.Path(__file__).parent / 'page.html'
_JSON = 128_000  # bytes of a body of JSON without a picture
_BODIES = 256e6  # bytes of bodies that are on their way at once
_GUESSES = 30  # wrong tokens of an address in a minute
_IMAGES = 4  # of one request
_WATCHERS = 200  # open streams of events


class Service:
  """What the routes share."""

  def __init__(
    self, models: Models, jobs: Jobs, results: Results, limits: Limits, metrics: Metrics,
    tokens: list[str],
  ):  # fmt: skip
    """Serves models; without tokens everybody may use them."""
    self.models, self.jobs, self.results = models, jobs, results
    self.limits, self.metrics = limits, metrics
    self._tokens = [hashlib.sha256(token.encode()).digest() for token in tokens]
    self._spent: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
    self._bodies, self.watchers = 0.0, 0

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
    digest, found = hashlib.sha256(given.encode()).digest(), ''
    for number, token in enumerate(self._tokens):  # all of them, whichever fits
      if hmac.compare_digest(digest, token):
        found = f'token {number}'
    if not found:
      self.spend(f'guess {address}', _GUESSES)
      raise ApiError('The token is missing or wrong; send Authorization: Bearer TOKEN.', None, 401)
    return found

  def spend(self, who: str, most: float, count: int = 1) -> None:
    """Counts what somebody asks for. Raises ApiError if that is too often in a minute."""
    now = time.monotonic()
    left, since = self._spent.pop(who, (most, now))
    left = min(most, left + (now - since) * most / 60)
    if left < count:
      self._spent[who] = (left, now)
      wait = (count - left) * 60 / most
      raise ApiError(f'Too many requests; wait {wait:.0f} s.', None, 429, wait)
    self._spent[who] = (left - count, now)
    while len(self._spent) > 10_000:
      self._spent.popitem(last=False)

  @contextlib.asynccontextmanager
  async def fields(self, request: Any) -> AsyncIterator[tuple[dict[str, Any], bytes | None]]:
    """Yields the fields of a request and the picture that came with it, as it came."""
    from starlette.formparsers import MultiPartException
    from starlette.requests import Request

    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    form = kind == 'multipart/form-data'
    most, came = int(self.limits.upload * 1.4e6) + _JSON, 0
    length = request.headers.get('content-length', '0')
    if not length.isdecimal() or int(length) > most:
      raise ApiError(f'The body is too large; expected at most {most} bytes.', None, 413)

    async def receive() -> Any:
      nonlocal came
      message = await request.receive()
      size = len(message.get('body', b''))
      came, self._bodies = came + size, self._bodies + size
      if came > most:
        raise ApiError(f'The body is too large; expected at most {most} bytes.', None, 413)
      if self._bodies > _BODIES:
        raise ApiError('Too much is being sent to this server; try again.', None, 503, 2)
      return message

    counted = Request(request.scope, receive)
    try:
      if not form:
        yield _read_json(await http.body_of(counted, most))
        return
      try:
        async with counted.form(max_files=1, max_fields=32, max_part_size=_JSON) as parts:
          names = [name for name, _ in parts.multi_items()]
          found: dict[str, Any] = dict(parts)
          if len(set(names)) < len(names):
            raise ApiError('A field comes twice; send each once.')
          picture = found.pop('input_reference', None)
          if any(not isinstance(value, str) for value in found.values()):
            raise ApiError('A file comes as another field than input_reference.')
          if url := found.pop('input_reference[image_url]', None):
            picture = url
          data = _data_of(picture) if isinstance(picture, str) and picture else None
          if picture is not None and not isinstance(picture, str):
            data = await picture.read()
          yield found | ({'input_reference': True} if data is not None else {}), data
      except MultiPartException as error:
        raise ApiError(f'The form cannot be read: {error.message}') from error
    finally:
      self._bodies -= came

  async def job(self, id: str) -> dict[str, Any]:
    """Returns a job. Raises ApiError if there is none, or no more, with such an id."""
    found = await asyncio.to_thread(self.jobs.describe, id) if ID.fullmatch(id) else None
    if found is None or not id.startswith('video_'):
      raise ApiError('There is no video of this id, or no more; GET /v1/videos lists them.',
                     'video_id', 404)  # fmt: skip
    return found

  async def add(
    self, request: Any, who: str, jobs: list[dict[str, Any]], data: bytes | None, kind: str
  ) -> list[str]:
    """Takes jobs in. Raises ApiError if there are too many, or a prompt or picture is refused."""
    key = request.headers.get('idempotency-key', '')
    self.spend(who, self.limits.rate, len(jobs))
    if self.jobs.queued + len(jobs) > self.limits.queue:
      raise ApiError(f'{self.jobs.queued} jobs wait already; come back later.', None, 429, 10)
    picture = None
    if data is not None:
      if len(data) > self.limits.upload * 1e6:
        raise ApiError(f'The picture has more than {self.limits.upload:g} MB; send a smaller one.',
                       'input_reference', 413)  # fmt: skip
      try:
        picture = await asyncio.to_thread(decode_picture, data)
      except UnreadableError as error:
        raise ApiError(f'The picture {error}; send a PNG, JPEG or WebP.', 'input_reference') from (
          error
        )

    def store() -> list[str]:
      release.admit([job['prompt'] for job in jobs])
      ids = []
      for number, job in enumerate(jobs):
        id = ''
        if key:  # who sends it again, as after a broken connection, gets the same job
          told = hashlib.sha256(f'{who} {number} {key}'.encode()).hexdigest()
          id = f'{kind}_{told[:32]}'
        ids.append(self.jobs.add(job, id, picture, kind))
      return ids

    try:
      return await asyncio.to_thread(store)
    except ConfigError as error:
      raise ApiError(str(error), 'prompt') from error


def make_app(service: Service) -> Any:
  """Returns the application (ASGI)."""
  from starlette.requests import Request
  from starlette.responses import JSONResponse, Response, StreamingResponse
  from starlette.routing import Route

  def tell(error: Exception, status: int, sentence: str) -> Response:
    service.metrics.refused.labels(str(status)).inc()
    param, wait = getattr(error, 'param', None), getattr(error, 'wait', 0)
    if status == 500 and not isinstance(error, ApiError):
      sentence = 'This is a fault of the server; its log says more.'
    headers = {'Retry-After': str(max(1, round(wait)))} if wait else {}
    if status == 401:
      headers['WWW-Authenticate'] = 'Bearer'
    if status in (401, 413, 503):  # what is still on its way is not read
      headers['Connection'] = 'close'
    return JSONResponse(error_object(status, sentence, param), status, headers)

  async def create(request: Request) -> Response:
    who = service.check(request)
    service.check_ready()
    async with service.fields(request) as (fields, data):
      job = parse_job(fields, service.models.offers, service.limits)
      (id,) = await service.add(request, who, [job], data, 'video')
    return JSONResponse(await service.job(id))

  async def remix(request: Request) -> Response:
    who, source = service.check(request), await service.job(request.path_params['id'])
    if source['status'] != 'completed':
      raise ApiError(f'The video is {source["status"]}; wait until it is completed.', 'video_id')
    offers = service.models.offers.values()
    editor = next((offer for offer in offers if offer.component == 'editing'), None)
    if editor is None:
      raise ApiError('No model of this server edits; start it with --model=digits/editing as well.')
    async with service.fields(request) as (fields, _):
      if unknown := sorted(set(fields) - {'prompt'}):
        raise ApiError(f'unknown field {unknown[0]!r:.60}; a remix has a prompt alone.')
      job = edit_job(source, parse_prompt(fields.get('prompt'), service.limits), editor)
      (id,) = await service.add(request, who, [job], None, 'video')
    return JSONResponse(await service.job(id))

  async def several(request: Request) -> Response:
    service.check(request)
    asked = request.query_params
    limit, order = asked.get('limit', '20'), asked.get('order', 'desc')
    after = asked.get('after', '')
    if not (limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= 100):
      raise ApiError(f'limit {limit[:20]!r}; expected a number from 1 to 100', 'limit')
    if order not in ('asc', 'desc'):
      raise ApiError(f'order {order[:20]!r}; expected asc or desc', 'order')
    if after:
      await service.job(after)
    found, more = await asyncio.to_thread(service.jobs.page, after, int(limit), order == 'desc')
    ends = {'first_id': found[0]['id'], 'last_id': found[-1]['id']} if found else {}
    return JSONResponse({'object': 'list', 'data': found, 'has_more': more, **ends})

  async def one(request: Request) -> Response:
    service.check(request)
    found = await service.job(request.path_params['id'])
    return JSONResponse(found, headers={'openai-poll-after-ms': '250'})

  async def delete(request: Request) -> Response:
    service.check(request)
    id = request.path_params['id']
    await service.job(id)
    done = await asyncio.to_thread(service.jobs.delete, id)
    return JSONResponse({'id': id, 'object': 'video.deleted', 'deleted': done})

  async def content(request: Request) -> Response:
    service.check(request)
    found, variant = (
      await service.job(request.path_params['id']),
      request.query_params.get('variant'),
    )
    if (variant := variant or 'video') not in VARIANTS:
      raise ApiError(f'variant {variant[:20]!r}; expected {", ".join(VARIANTS)}', 'variant')
    if found['status'] != 'completed':
      raise ApiError(f'The video is {found["status"]}; wait until it is completed.', 'video_id')
    name, kind = VARIANTS[variant]
    path = await asyncio.to_thread(service.results.path, found['id'], name)
    if path is None:
      raise ApiError(f'This video has no {variant}; make it with soundtrack=true.', 'variant', 404)
    if ',' in request.headers.get('range', ''):  # many ranges at once are nobody's need
      request.scope['headers'] = [each for each in request.scope['headers'] if each[0] != b'range']
    return http.file_response(path, kind)

  async def preview(request: Request) -> Response:
    service.check(request)
    found = await service.job(request.path_params['id'])
    data = await asyncio.to_thread(service.jobs.preview, found['id'])
    if data is None:
      raise ApiError('There is no preview before the first step, nor after the last one.',
                     'video_id', 404)  # fmt: skip
    return Response(data, media_type='image/webp')

  async def events(request: Request) -> Response:
    service.check(request)
    first = await service.job(request.path_params['id'])
    if service.watchers >= _WATCHERS:
      raise ApiError('Too many streams of events are open; ask GET /v1/videos/ID.', None, 503, 5)

    async def stream() -> AsyncIterator[str]:
      service.watchers += 1
      try:
        told, found, asked = '', first, time.monotonic()
        while True:
          data = None
          if found['status'] == 'in_progress':
            data = await asyncio.to_thread(service.jobs.preview, found['id'])
          text = json.dumps(found)
          if text != told:
            told = text
            shown = base64.b64encode(data).decode() if data else None
            yield f'event: video\ndata: {json.dumps(found | {"preview": shown})}\n\n'
          if found['status'] in ('completed', 'failed'):
            return
          await asyncio.sleep(0.05)
          here = found['id'] in service.jobs.live
          if here or time.monotonic() - asked > 0.25:
            asked = time.monotonic()
            found = await service.job(found['id'])
      except ApiError:
        yield 'event: deleted\ndata: {}\n\n'
      finally:
        service.watchers -= 1

    return StreamingResponse(stream(), media_type='text/event-stream')

  async def images(request: Request) -> Response:
    who = service.check(request)
    service.check_ready()
    async with service.fields(request) as (fields, data):
      count, kind = fields.pop('n', 1), fields.pop('response_format', 'b64_json')
      if str(count) not in map(str, range(1, _IMAGES + 1)):
        raise ApiError(f'n {count!r:.20}; expected a number from 1 to {_IMAGES}', 'n')
      if kind != 'b64_json':
        raise ApiError('response_format; expected b64_json', 'response_format')
      job = parse_job(fields, service.models.offers, service.limits, image=True)
      jobs = [{**job, 'seed': job['seed'] + number} for number in range(int(count))]
      ids = await service.add(request, who, jobs, data, 'image')
    found = []
    for id in ids:
      while (state := await asyncio.to_thread(service.jobs.describe, id)) is not None:
        if state['status'] in ('completed', 'failed'):
          break
        await asyncio.sleep(0.1)
      if state is None or state['status'] == 'failed':
        raise ApiError(state['error']['message'] if state else 'It was cancelled.', None, 500)
      picture = await asyncio.to_thread(service.results.get, id, 'image.png')
      found.append({'b64_json': base64.b64encode(picture or b'').decode()})
    return JSONResponse({'created': int(time.time()), 'data': found})

  async def models(request: Request) -> Response:
    service.check(request)
    shown = [
      {
        'id': offer.name, 'object': 'model', 'created': 0, 'owned_by': 'mgjax',
        'component': offer.component, 'fps': offer.fps, 'steps': offer.steps,
        'shapes': [list(shape) for shape in offer.shapes], 'reads_picture': bool(offer.reads),
        'loras': list(offer.loras),
      }
      for offer in service.models.offers.values()
    ]  # fmt: skip
    return JSONResponse({'object': 'list', 'data': shown})

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

  routes = [
    Route('/', page),
    Route('/health', health),
    Route('/ready', ready),
    Route('/metrics', metrics),
    Route('/v1/models', models),
    Route('/v1/images/generations', images, methods=['POST']),
    Route('/v1/videos', create, methods=['POST']),
    Route('/v1/videos', several),
    Route('/v1/videos/{id}', one),
    Route('/v1/videos/{id}', delete, methods=['DELETE']),
    Route('/v1/videos/{id}/content', content),
    Route('/v1/videos/{id}/preview', preview),
    Route('/v1/videos/{id}/events', events),
    Route('/v1/videos/{id}/remix', remix, methods=['POST']),
  ]
  return http.make_app(routes, tell)


def _read_json(body: bytes) -> tuple[dict[str, Any], bytes | None]:
  try:
    fields = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise ApiError('The body is no JSON; send {"prompt": "..."}.') from error
  if not isinstance(fields, dict):
    raise ApiError('The body is no object of JSON; send {"prompt": "..."}.')
  picture = fields.pop('input_reference', None)
  if isinstance(picture, Mapping):
    picture = picture.get('image_url')
  if picture is None:
    return fields, None
  return fields | {'input_reference': True}, _data_of(picture)


def _data_of(url: Any) -> bytes:
  """Returns what a data URL holds; nothing is fetched for a client."""
  if isinstance(url, str) and url.startswith('data:image/') and ';base64,' in url[:64]:
    with contextlib.suppress(ValueError):
      return base64.b64decode(url.partition(',')[2], validate=True)
  raise ApiError(
    'input_reference; expected a file of a form, or data:image/png;base64,... in JSON',
    'input_reference',
  )
