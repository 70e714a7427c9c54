"""Requests to a server of OpenAI's protocol of chat completions, made until one is answered.

Nothing here trusts the server: a reply has a size and a time in which all of it has to be there,
and no message repeats the key, not even where the server does.
"""

import base64
import contextlib
import dataclasses
import email.utils
import http.client
import io
import json
import math
import os
import random
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from PIL import Image

from mgjax.core.errors import ConfigError, DataError, MgjaxError, printable
from mgjax.core.files import WRONG, parse_json
from mgjax.core.settings import Positive, Range, check
from mgjax.core.typing import UInt8

_OURS = ('model', 'messages', 'stream', 'n')  # fields of a request that are no options
_AGAIN = (408, 409, 425, 429)  # of a client's errors those that pass; a server's all may
_SHORTEST_KEY = 8  # characters: what is shorter stands in many a text by chance
_SHOWN = 200  # characters of what a server said
_QUOTED = 4000  # characters of an answer that the model is told to mend
_POLL = 0.2  # seconds between two looks at whether to stop
_FENCED = re.compile(r'\s*```\w*\n(.*)\n```\s*', re.DOTALL)  # JSON as models like to write it

Seconds = Annotated[float, Range(above=0, most=86400)]
Check = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class EndpointSettings:
  """Which model answers, and how patiently it is asked.

  Attributes:
    model: its name, as the server knows it.
    url: of the server, up to and with /v1.
    key_variable: the environment variable that holds the server's key; '' sends none.
    options: of every request, such as temperature, max_tokens, seed or response_format.
    jpeg_quality: of the pictures that are sent; 0 sends PNG.
    at_once: requests under way at the same time.
    requests_a_minute: that begin, those that are made again among them.
    attempts: requests for one answer, while the server is busy, broken or silent.
    first_pause: seconds before the second of them, about; each later pause is twice as long.
    longest_pause: seconds, to which pauses grow; a server that asks for more gets no request.
    tries: answers to a question, if those before were cut short or not the JSON that is wanted.
    request_seconds: for one request.
    total_seconds: for all questions of a call.
    largest_answer: bytes of a reply, with all that is around the answer.
    failures_in_a_row: questions without an answer after which no more are asked.
  """

  model: str
  url: str = 'http://127.0.0.1:8000/v1'
  key_variable: str = ''
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  jpeg_quality: Annotated[int, Range(least=0, most=95)] = 0
  at_once: Annotated[int, Range(least=1, most=256)] = 8
  requests_a_minute: Annotated[float, Range(above=0, infinite=True)] = math.inf
  attempts: Annotated[int, Range(least=1, most=50)] = 8
  first_pause: Seconds = 1.0
  longest_pause: Seconds = 300.0
  tries: Annotated[int, Range(least=1, most=50)] = 3
  request_seconds: Seconds = 120.0
  total_seconds: Annotated[float, Range(above=0, infinite=True)] = math.inf
  largest_answer: Annotated[int, Range(least=1024, most=2**28)] = 2**20
  failures_in_a_row: Positive = 100

  def __post_init__(self):
    """Checks all of it.

    Raises:
      ConfigError: a field is out of its range; none of the messages shows what may be a key.
    """
    if not re.fullmatch(r'([A-Z_][A-Z0-9_]*)?', str(self.key_variable)):
      raise ConfigError(
        'key_variable is no name in capitals; give the name of an environment variable that holds '
        'the key, never the key itself'
      )
    check(self)
    _split(self.url)
    if ours := [name for name in _OURS if name in self.options]:
      raise ConfigError(f'options.{ours[0]} is not for options to say; take it out')
    try:
      json.dumps(self.options, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
      raise ConfigError(f'options are not JSON: {error}; give numbers, text and lists') from None


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
  """What a model is asked.

  Attributes:
    text: of the user.
    frames: pictures of one or several sizes, shown before the text.
    system: what the model is told beforehand; '' for nothing.
  """

  text: str
  frames: Sequence[UInt8[np.ndarray, '_ _ 3']] | UInt8[np.ndarray, 't h w 3'] = ()
  system: str = ''


class Failed(Exception):
  """A question has no answer, and will have none in this call."""


class Unfit(Exception):
  """An answer is not what was asked for."""


class _Trouble(Exception):
  """A request had no answer, which another one may have; `pause` is what the server asks for."""

  def __init__(self, reason: str, pause: float = 0.0):
    super().__init__(reason)
    self.pause = pause


def fit(text: str, check: Check | None) -> Any:
  """Returns what an answer is worth: its text, or what `check` makes of its JSON.

  Raises:
    Unfit: it is not what `check` takes.
    ConfigError: `check` returns None.
  """
  if check is None:
    return text
  try:
    bare = fenced[1] if (fenced := _FENCED.fullmatch(text)) else text
    mend = 'answer with JSON alone'
    value = check(parse_json(bare, 'the answer', object, error=DataError, mend=mend))
  except (MgjaxError, *WRONG) as wrong:
    raise Unfit(str(wrong) or type(wrong).__name__) from None
  if value is None:
    raise ConfigError('`check` returned None for an answer; return the value, or raise ValueError')
  return value


class Chat:
  """The requests of one call, from several threads; it alone knows the key."""

  def __init__(self, settings: EndpointSettings):
    self._settings = settings
    self._url = _split(settings.url)
    self._key = _read_key(settings.key_variable)
    self._end = time.monotonic() + settings.total_seconds
    self._stopped, self._why = threading.Event(), ''
    self._lock, self._next = threading.Lock(), 0.0

  def stop(self, reason: str) -> None:
    """Makes no more requests, and ends those that are under way."""
    self._why = self._why or reason
    self._stopped.set()

  def ask(self, question: Question, check: Check | None) -> tuple[str, Any]:
    """Returns the text of an answer, and what it is worth.

    Raises:
      Failed: there is none; the message is printable and does not have the key.
      ConfigError: `check` returns None.
    """
    self._check_goes_on()  # before pictures are made for nothing
    asked = _messages(question, self._settings.jpeg_quality)
    messages, problem = asked, ''
    for _ in range(self._settings.tries):
      text, whole = self._insist(messages)
      try:
        if not text.strip() or not whole:
          raise Unfit('it was cut short by max_tokens' if text.strip() else 'it is empty')
        return text, fit(text, check)
      except Unfit as unfit:
        problem = self._clean(str(unfit))
      messages = asked
      if text.strip():  # at temperature 0 the same question would have the same answer
        mend = f'This cannot be used: {problem}. Answer the question again.'
        messages = [*asked, _message('assistant', text[:_QUOTED]), _message('user', mend)]
    raise Failed(f'the last of {self._settings.tries} answers cannot be used: {problem}')

  def _insist(self, messages: list[dict[str, Any]]) -> tuple[str, bool]:
    """Returns the text of an answer, and whether it is all of it."""
    settings = self._settings
    body = json.dumps({**settings.options, 'model': settings.model, 'messages': messages}).encode()
    problem, pause = '', 0.0
    for attempt in range(settings.attempts):
      self._wait(pause, problem)
      self._take_turn()
      try:
        return self._request(body)
      except _Trouble as trouble:
        problem, asked = self._clean(str(trouble)), trouble.pause
      if asked > settings.longest_pause:
        raise Failed(f'{problem}; it asks for a pause of {asked:.0f} s, above longest_pause')
      most = min(settings.first_pause * 2.0**attempt, settings.longest_pause)
      pause = asked + random.uniform(0.5, 1.0) * most  # or all would come back at once
    raise Failed(f'the last of {settings.attempts} requests: {problem}')

  def _request(self, body: bytes) -> tuple[str, bool]:
    status, headers, reply = self._exchange(body)
    if status != 200:
      problem = f'the server answers {status}: {self._clean(_readable(reply))}'
      if 300 <= status < 400:  # which would take the key elsewhere
        raise Failed(self._clean(f'the server sends to {headers["Location"]!r}; give that as url'))
      if status < 500 and status not in _AGAIN:
        raise Failed(problem)
      pause = _pause(headers['Retry-After'])
      with self._lock:  # nobody else need try before
        if pause <= self._settings.longest_pause:
          self._next = max(self._next, time.monotonic() + pause)
      raise _Trouble(problem, pause)
    try:
      choice = json.loads(reply)['choices'][0]
      text, whole = choice['message']['content'] or '', choice.get('finish_reason') != 'length'
      if not isinstance(text, str):
        raise ValueError('the content is no text')
    except WRONG:
      raise _Trouble(f'no chat completion: {self._clean(_readable(reply))}') from None
    return text.replace(self._key, '[key]') if self._key else text, whole

  def _exchange(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Sends a request and returns status, headers and body of the reply."""
    url, end = self._url, min(time.monotonic() + self._settings.request_seconds, self._end)
    kind = {'http': http.client.HTTPConnection, 'https': http.client.HTTPSConnection}[url.scheme]
    headers = {'Content-Type': 'application/json', 'Connection': 'close'}
    if self._key:
      headers['Authorization'] = f'Bearer {self._key}'
    left = max(end - time.monotonic(), 0.001)
    with contextlib.closing(kind(url.hostname, url.port, timeout=left)) as connection:
      try:
        connection.request('POST', f'{url.path.rstrip("/")}/chat/completions', body, headers)
        reply = _Reply(connection.sock, end, self._settings.largest_answer, self._stopped)
        response = http.client.HTTPResponse(reply, method='POST')  # reads no more than it is given
        response.begin()
        # In pieces: what a header says of the length would otherwise be reserved at once.
        pieces = list(iter(lambda: response.read(1 << 16), b''))
      except TimeoutError:
        raise _Trouble('no whole reply in time: the server was silent or slow') from None
      except (OSError, http.client.HTTPException) as error:
        raise _Trouble(f'no answer: {type(error).__name__}: {error}') from None
      if response.length:
        raise _Trouble(f'the reply ends {response.length} bytes early')
      return response.status, response.headers, b''.join(pieces)

  def _take_turn(self) -> None:
    """Waits for the next moment at which a request may begin."""
    while True:
      with self._lock:
        now = time.monotonic()
        if self._next <= now:
          self._next = now + 60.0 / self._settings.requests_a_minute
          break
        left = self._next - now
      self._wait(left)
    self._check_goes_on()

  def _wait(self, seconds: float, problem: str = '') -> None:
    if time.monotonic() + seconds > self._end:
      self._time_is_up(problem)
    if seconds:
      self._stopped.wait(seconds)
    self._check_goes_on()

  def _check_goes_on(self) -> None:
    if self._stopped.is_set():
      raise Failed(f'given up: {self._why}')
    if time.monotonic() >= self._end:
      self._time_is_up()

  def _time_is_up(self, problem: str = '') -> None:
    after = f', after a request: {problem}' if problem else ''
    raise Failed(f'total_seconds = {self._settings.total_seconds} are over{after}')

  def _clean(self, text: str) -> str:
    """Returns the begin of a text for people, without the key, whoever may have put it there."""
    return printable((text.replace(self._key, '[key]') if self._key else text)[:_SHOWN])


class _Reply(io.RawIOBase):
  """What a server sends, to a time and a number of bytes; in place of a socket for http.client."""

  def __init__(self, sock: socket.socket, end: float, room: int, stopped: threading.Event):
    self._socket, self._end, self._room, self._stopped = sock, end, room, stopped

  def makefile(self, mode: str) -> io.BufferedReader:
    return io.BufferedReader(self)

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    while not self._stopped.is_set():
      if (left := self._end - time.monotonic()) <= 0:
        raise TimeoutError
      self._socket.settimeout(min(left, _POLL))
      try:
        count = self._socket.recv_into(buffer)
      except TimeoutError:
        continue
      self._room -= count
      if self._room < 0:
        raise Failed('the reply has more bytes than largest_answer')
      return count
    raise Failed('given up while the server answered')


def _message(role: str, content: Any) -> dict[str, Any]:
  return {'role': role, 'content': content}


def _messages(question: Question, jpeg_quality: int) -> list[dict[str, Any]]:
  content: Any = question.text
  if len(question.frames):
    urls = [_data_url(frame, jpeg_quality) for frame in question.frames]
    content = [{'type': 'image_url', 'image_url': {'url': url}} for url in urls]
    content.append({'type': 'text', 'text': question.text})
  before = [_message('system', question.system)] if question.system else []
  return [*before, _message('user', content)]


def _data_url(frame: UInt8[np.ndarray, 'h w 3'], jpeg_quality: int) -> str:
  kind, file = 'jpeg' if jpeg_quality else 'png', io.BytesIO()
  Image.fromarray(frame).save(file, kind, **({'quality': jpeg_quality} if jpeg_quality else {}))
  return f'data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}'


def _readable(reply: bytes) -> str:
  try:  # an escape could hide the key
    return json.dumps(json.loads(reply), ensure_ascii=False)
  except WRONG:
    return reply.decode(errors='replace')


def _pause(said: str | None) -> float:
  """Returns the seconds of a Retry-After, which is a number or a date."""
  try:
    seconds = float(said or 0)
  except ValueError:
    try:
      seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
    except (*WRONG, OSError):
      return 0.0
  return 0.0 if math.isnan(seconds) else max(seconds, 0.0)


def _split(url: str) -> urllib.parse.SplitResult:
  """Returns the parts of a server's address.

  Raises:
    ConfigError: it is none, or has more than an address; it is not shown, as it may have a key.
  """
  wanted = "expected one such as 'http://127.0.0.1:8000/v1', without key, query or spaces"
  try:
    parts = urllib.parse.urlsplit(url)
    right = parts.scheme in ('http', 'https') and parts.hostname and parts.port != 0
  except ValueError:
    raise ConfigError(f'url is no address of a server; {wanted}') from None
  more = '@' in parts.netloc or '?' in url or '#' in url
  if not right or more or not re.fullmatch('[!-~]+', url):
    raise ConfigError(f'url is no address of a server alone; {wanted}')
  return parts


def _read_key(variable: str) -> str:
  """Reads the key of a server; '' if it has none.

  Raises:
    ConfigError: the variable is missing, or holds what cannot be a key; which is not shown.
  """
  if not variable:
    return ''
  key = os.environ.get(variable, '').strip()
  if not key:
    raise ConfigError(
      'the environment variable that key_variable names is not set; set it to the key of the '
      "server, or give key_variable = '' for a server without one"
    )
  if len(key) < _SHORTEST_KEY or not re.fullmatch(r'[!#-\[\]-~]+', key):
    raise ConfigError(
      f'the key of the server is not {_SHORTEST_KEY} characters of ASCII or more, without spaces '
      'and quotes; set the environment variable that key_variable names to the whole key alone'
    )
  return key
