"""Reads bodies of requests into fields and a picture: with limits, and off the event loop.

A large body is mostly its picture, so that is cut out before the rest is parsed: `json.loads` of
20 MB would hold the interpreter, and with it all other requests, for seconds.
"""

import asyncio
import binascii
import concurrent.futures
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mgjax.apps.serving.videos.schema import ApiError, quoted
from mgjax.apps.serving.videos.uploads import CHILDREN, decode_picture
from mgjax.core.configuration.keys import JSON

PICTURE = 'input_reference'
SMALL = 128_000  # bytes of a body without its picture
_AT_ONCE = 256e6  # bytes of all bodies that are here at once
_WAITING = 8  # large bodies and pictures that wait for a thread
_FIELDS = 32  # of a form
_PIECE = 1 << 20  # characters of base64, or bytes of a form, that are read without a pause
_JSON, _FORM = 'application/json', 'multipart/form-data'
_MARK = 'data:'  # stands for a picture that was cut out
_DIGITS = re.compile(r'\d{1,15}', re.ASCII)

Found = tuple[JSON, bytes | None]  # fields, and the picture as it came


class Bodies:
  """Bodies that are on their way to this server, or here."""

  def __init__(self, upload: float):
    """Takes pictures of so many MB."""
    self._upload = int(upload * 1e6)
    self._most = {_JSON: int(upload * 1.4e6) + SMALL, _FORM: self._upload + SMALL}
    self._room = max(_AT_ONCE, 2 * self._most[_JSON])
    self._pool = concurrent.futures.ThreadPoolExecutor(CHILDREN, 'uploads')
    self._held = self._waiting = 0

  @contextlib.asynccontextmanager
  async def read(self, request: Request, pictures: bool) -> AsyncIterator[Found]:
    """Yields what a request brings; with `pictures` perhaps one, and perhaps as a form.

    The body counts as held until the block ends. Raises ApiError if it is too large, of another
    type, cannot be read, or if too much is here already.
    """
    known = (_JSON, _FORM) if pictures else (_JSON,)
    kind = request.headers.get('content-type', '')
    if (plain := kind.partition(';')[0].strip().lower()) not in known:
      expected = ' or '.join(known)
      raise ApiError(f'Content-Type: {quoted(plain)}; expected {expected}', None, 415)
    if (coding := request.headers.get('content-encoding', 'identity').lower()) != 'identity':
      raise ApiError(f'Content-Encoding: {quoted(coding)}; send the body as it is', None, 415)
    most = self._most[plain] if pictures else SMALL
    length = request.headers.get('content-length', '0')
    if not _DIGITS.fullmatch(length) or int(length) > most:
      raise _too_large(most)
    data = bytearray()
    try:
      async for part in request.stream():
        data += part
        self._held += len(part)
        if len(data) > most:
          raise _too_large(most)
        if self._held > self._room:
          raise ApiError('Too much is being sent to this server; try again.', None, 503, 2)
      parse = _parse_json if plain == _JSON else _parse_form
      run = run_in_threadpool if len(data) <= SMALL else self._run
      fields, picture = await run(parse, data, kind)
      if (size := len(picture or b'')) > self._upload:
        raise ApiError(
          f'The picture has {size} bytes; expected at most {self._upload}.', PICTURE, 413
        )
      yield fields, picture
    finally:
      self._held -= len(data)

  async def decode(self, picture: bytes) -> bytes:
    """Returns a picture as a PNG; see `decode_picture`. Raises ApiError if too many wait."""
    return await self._run(decode_picture, picture)

  async def _run(self, work: Callable[..., object], *args: object) -> Any:
    if self._waiting >= _WAITING:
      raise ApiError('Too many pictures are being read; try again.', None, 503, 2)
    self._waiting += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
    finally:
      self._waiting -= 1


def _too_large(most: int) -> ApiError:
  return ApiError(f'The body is too large; expected at most {most} bytes.', None, 413)


def _parse_json(data: bytearray, _: str) -> Found:
  begin, end = _picture_in(data) if len(data) > SMALL else (0, 0)
  rest = data[:begin] + b'"%b"' % _MARK.encode() * (end > begin) + data[end:]
  if len(rest) > SMALL:
    raise _too_large(SMALL)
  try:
    fields = json.loads(rest, object_pairs_hook=_object, parse_constant=_refuse_constant)
    json.dumps(fields, ensure_ascii=False).encode()  # halves of characters cannot be written
  except RecursionError as error:
    raise ApiError('The body is nested too deep; send {"prompt": "..."}.') from error
  except ValueError as error:
    raise ApiError('The body is no readable JSON; send {"prompt": "..."}.') from error
  if not isinstance(fields, dict):
    raise ApiError('The body is no object of JSON; send {"prompt": "..."}.')
  picture = fields.pop(PICTURE, None)
  if isinstance(picture, Mapping):  # asks for a picture, whatever it has
    others = {key: value for key, value in picture.items() if value is not None}
    picture = others.pop('image_url', None)
    if others or not picture:
      raise _no_picture()
  if end > begin:
    if picture != _MARK:  # something else is that large
      raise _too_large(SMALL)
    return fields, _data_of(bytes(data[begin + 1 : end - 1]).replace(b'\\/', b'/'))
  if picture in (None, ''):
    return fields, None
  return fields, _data_of(picture.encode() if isinstance(picture, str) else b'')


def _picture_in(data: bytearray) -> tuple[int, int]:
  """Returns where text that is a data URL of a picture begins and ends, with its quotes."""
  for match in re.finditer(rb'"data:image', data):
    begin = match.start()
    if not data.endswith(b'\\', 0, begin):  # inside other text a quote has a backslash
      return begin, data.find(b'"', begin + 1) + 1
  return 0, 0


def _object(pairs: list[tuple[str, object]]) -> JSON:
  fields = dict(pairs)
  if len(fields) < len(pairs):
    raise ApiError('A field comes twice; send each once.')
  return fields


def _refuse_constant(name: str) -> None:
  raise ValueError(name)  # NaN and Infinity are no JSON


class _Form(MultiPartParser):
  """Notes whether a form is complete, and guesses no encodings."""

  ended = False

  def on_end(self) -> None:
    self.ended = True

  def on_part_end(self) -> None:
    part = self._current_part
    try:
      part.data.decode(self._charset)
    except (UnicodeDecodeError, LookupError):
      raise MultiPartException(
        f'{quoted(part.field_name)} is not text in {self._charset}'
      ) from None
    super().on_part_end()


def _parse_form(data: bytearray, kind: str) -> Found:
  boundary = b'--' + parse_options_header(kind)[1].get(b'boundary', b'')
  begin = 0 if data.startswith(boundary) else data.find(b'\r\n' + boundary) + 1  # of a preamble

  async def pieces() -> AsyncIterator[bytes]:
    for at in range(begin, len(data), _PIECE):
      yield bytes(data[at : at + _PIECE])

  async def read() -> tuple[FormData, bytes | None]:
    limits = {'max_files': 1, 'max_fields': _FIELDS, 'max_part_size': SMALL}
    parser = _Form(Headers({'content-type': kind}), pieces(), **limits)
    parser.spool_max_size = len(data) + 1  # never a file on the disk
    parts = await parser.parse()
    if not parser.ended:
      raise MultiPartException('it is cut off before its closing boundary; send it again')
    files = [part for part in parts.values() if isinstance(part, UploadFile)]
    picture = await files[0].read() if files else None
    # Browsers send an input without a file as an empty one without a name.
    return parts, picture if picture or (files and files[0].filename) else None

  try:
    parts, picture = asyncio.run(read())
  except MultiPartException as error:
    raise ApiError(f'The form cannot be read: {error.message}') from error
  fields = dict(parts)
  if len(parts.multi_items()) > len(fields):
    raise ApiError('A field comes twice; send each once.')
  if sum(len(value) for value in fields.values() if isinstance(value, str)) > SMALL:
    raise _too_large(SMALL)
  url = fields.pop(f'{PICTURE}[image_url]', None) or fields.pop(PICTURE, None)
  if any(isinstance(value, UploadFile) for value in fields.values()):
    raise ApiError(f'A file comes as another field than {PICTURE}.')
  if isinstance(url, str):
    return fields, _data_of(url.encode()) if url else None
  return fields, picture


def _data_of(url: bytes) -> bytes:
  """Returns what a data URL holds; nothing is fetched for a client."""
  head, _, text = url[:64].partition(b';base64,')
  if head.startswith(b'data:image/') and text:
    coded = memoryview(url)[len(head) + len(b';base64,') :]
    with contextlib.suppress(ValueError):
      pieces = (coded[at : at + _PIECE] for at in range(0, len(coded), _PIECE))
      return b''.join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
  raise _no_picture()


def _no_picture() -> ApiError:
  expected = 'a file of a form, or data:image/png;base64,... in JSON or as its image_url'
  return ApiError(f'{PICTURE} is no picture; expected {expected}', PICTURE)
