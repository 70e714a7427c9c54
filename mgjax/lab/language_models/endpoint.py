"""Client of a language model server: questions of text and images in, text or checked JSON out.

The server speaks OpenAI's chat completions protocol, as vLLM and llama.cpp do. Answers are cached
on disk, one file a question, named by a hash of model, options, text and pixels. If a call is
killed, the next one asks only the missing questions. `failed.jsonl` in the same folder lists the
questions without an answer, with the reason; the next call asks them again.

The client does not trust the server. It limits the size of a reply and the time until it is
complete, and no message repeats the key, even if the server does. (huggingface_hub's client has no
such limits: a server that sends one byte a second blocks it forever, and an endless reply fills
memory.)
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import logging
import math
import os
import pathlib
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

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, MgjaxError, printable
from mgjax.core.files import WRONG, parse_json, read_json_lines, read_optional_json, write_bytes
from mgjax.core.settings import Positive, Range, check
from mgjax.core.typing import UInt8
from mgjax.training.monitoring.progress import Progress
from mgjax.training.monitoring.workdir_lock import hold

FAILED = 'failed.jsonl'
_OURS = ('model', 'messages', 'stream', 'n')  # fields of a request that options cannot set
_AGAIN = (408, 409, 425, 429)  # 4xx statuses to retry, besides all 5xx
_SHORTEST_KEY = 8  # characters; a shorter key may occur in a text by chance
_SHOWN = 200  # characters of a server's reply or of a question that messages quote
_QUOTED = 4000  # characters of a wrong answer that are sent back to the model
_FENCED = re.compile(r'\s*```\w*\n(.*)\n```\s*', re.DOTALL)  # JSON in a Markdown code fence

_log = logging.getLogger(__name__)

Seconds = Annotated[float, Range(above=0, most=86400)]
Check = Callable[[Any], Any]
Message = JSON


@dataclasses.dataclass(frozen=True)
class EndpointSettings:
  """Which model answers, and the limits on requests.

  Attributes:
    model: its name on the server.
    url: of the server, up to and with /v1.
    key_variable: the environment variable that holds the server's key; '' sends none.
    options: of every request, such as temperature, max_tokens, seed or response_format.
    jpeg_quality: of the images that are sent; 0 sends PNG.
    at_once: concurrent requests.
    requests_a_minute: rate limit, retries included.
    attempts: requests for one answer, while the server is busy, broken or silent.
    first_pause: approximate seconds before the second attempt; each later pause is twice as long.
    longest_pause: seconds, the limit of pauses; if the server asks for a longer one, the question
      fails.
    tries: answers to a question, if earlier ones were cut short or did not pass the check.
    request_seconds: for one request.
    total_seconds: for all questions of a call.
    largest_answer: bytes of a reply, with everything around the answer.
    failures_in_a_row: failed questions in a row after which no more are asked.
  """

  model: str
  url: str = 'http://127.0.0.1:8000/v1'
  key_variable: str = ''
  options: Fields = dataclasses.field(default_factory=dict)
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
    """Raises ConfigError for a field out of its range; no message shows a possible key."""
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
  """A question to the model: a text, frames of any sizes before it, and a system message or ''."""

  text: str
  frames: Sequence[UInt8[np.ndarray, '_ _ 3']] | UInt8[np.ndarray, 't h w 3'] = ()
  system: str = ''


class Endpoint:
  """Asks the model of a server, and caches its answers in a folder.

  Only one call or process can use a folder at a time.
  """

  def __init__(self, settings: EndpointSettings, folder: str | os.PathLike[str]):
    self.settings = settings
    self.folder = pathlib.Path(folder)

  def ask_all(self, questions: Sequence[Question], check: Check | None = None) -> list[Any]:
    """Returns the answers in order, None for a failed question; failed.jsonl has the reasons.

    Args:
      questions: a sequence, which may read frames from disk lazily: each item is read once, in
        order, right before its request.
      check: converts an answer's JSON to the returned value. If it raises ValueError or a
        MgjaxError, the model gets the error and is asked again. Without `check` the text of an
        answer is returned.

    Raises:
      ConfigError: there is no key, the folder is in use, or `check` returns None.
    """
    settings = self.settings
    chat = _Chat(self.settings)
    answers: list[Any] = [None] * len(questions)
    indices: dict[str, list[int]] = {}  # key of a question of this call -> its indices
    failed: dict[str, dict[str, Any]] = {}  # in the order of failure
    under_way: dict[concurrent.futures.Future, tuple[str, str]] = {}  # key and text
    in_a_row = 0

    def settle() -> None:
      """Waits for one answer or more, and stores them."""
      nonlocal in_a_row
      for future in concurrent.futures.wait(under_way, return_when='FIRST_COMPLETED').done:
        key, text = under_way.pop(future)
        try:
          answer, value = future.result()
        except _Failed as reason:
          failed[key] = {
            'question': key,
            'index': indices[key][0],
            'text': text[:_SHOWN],
            'reason': str(reason),
          }
          in_a_row += 1
          if in_a_row == settings.failures_in_a_row:
            chat.stop(f'{in_a_row} questions in a row had no answer, the last: {reason}')
          continue
        in_a_row = 0
        record = {'model': settings.model, 'answer': answer}
        write_bytes(self._path(key), json.dumps(record).encode())
        for index in indices[key]:
          answers[index] = value

    with hold(self.folder), contextlib.ExitStack() as stack:
      progress = stack.enter_context(contextlib.closing(Progress(len(questions), unit='question')))
      stack.callback(lambda: self._list_failed(failed))
      pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(settings.at_once))
      stack.callback(chat.stop, 'the call ended')
      for index in range(len(questions)):
        question = questions[index]
        key = self._key(question)
        if key in indices:  # the same as an earlier one
          indices[key].append(index)
          answers[index] = answers[indices[key][0]]
        elif (cached := self._cached(key, check)) is not None:
          answers[index] = cached
        else:
          while len(under_way) >= settings.at_once:
            settle()
          indices[key] = [index]
          under_way[pool.submit(chat.ask, question, check)] = key, question.text
        progress.report(index + 1 - len(under_way))
      while under_way:
        settle()
        progress.report(len(questions) - len(under_way))
    if failed:
      _log.warning(
        '%d of %d questions have no answer, the first of them: %s; %r lists them, and the same '
        'call asks them again',
        sum(len(indices[key]) for key in failed),
        len(answers),
        next(iter(failed.values()))['reason'],
        os.fspath(self.folder / FAILED),
      )
    return answers

  def _key(self, question: Question) -> str:
    """Returns the hash of everything that the answer to a question depends on."""
    identity = {
      'model': self.settings.model,
      'options': self.settings.options,
      'system': question.system,
      'text': question.text,
      'frames': [
        [*frame.shape, hashlib.sha256(np.ascontiguousarray(frame)).hexdigest()]
        for frame in question.frames
      ],
      'jpeg_quality': self.settings.jpeg_quality if len(question.frames) else 0,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

  def _cached(self, key: str, check: Check | None) -> Any:
    """Returns the cached answer; None if there is none that `check` accepts."""
    record = read_optional_json(self._path(key), lambda entry: isinstance(entry['answer'], str))
    try:
      return None if record is None else _worth(record['answer'], check)
    except _Unfit:
      return None

  def _path(self, key: str) -> pathlib.Path:
    return self.folder / key[:2] / f'{key}.json'

  def _list_failed(self, failed: Mapping[str, Any]) -> None:
    """Writes the questions of this and earlier calls that have no answer yet."""
    path = self.folder / FAILED
    lines = {}
    if path.exists():
      lines = {key: line for key, line in read_json_lines(path, _key_of) if line.endswith(b'\n')}
    lines |= {key: json.dumps(row).encode() + b'\n' for key, row in failed.items()}
    lines = [line for key, line in lines.items() if not self._path(key).exists()]
    if lines or path.exists():
      write_bytes(path, b''.join(lines))


class _Failed(Exception):
  """A question failed for good in this call."""


class _Unfit(Exception):
  """An answer does not pass the check."""


class _Trouble(Exception):
  """A request failed and can be retried; `pause` is the Retry-After of the server in seconds."""

  def __init__(self, reason: str, pause: float = 0.0):
    super().__init__(reason)
    self.pause = pause


class _Chat:
  """The requests of one call, from several threads; no other object holds the key."""

  def __init__(self, settings: EndpointSettings):
    self._settings = settings
    self._url = _split(settings.url)
    self._key = _read_key(settings.key_variable)
    self._end = time.monotonic() + settings.total_seconds
    self._stopped = threading.Event()
    self._why = ''
    self._lock = threading.Lock()
    self._next = 0.0
    self._sockets: set[socket.socket] = set()

  def stop(self, reason: str) -> None:
    """Starts no more requests, and aborts those in flight."""
    with self._lock:
      self._why = self._why or reason
      self._stopped.set()
      for sock in self._sockets:
        _hang_up(sock)

  def ask(self, question: Question, check: Check | None) -> tuple[str, Any]:
    """Returns the text of an answer, and the value that `check` returns for it.

    Raises:
      _Failed: there is no answer; the message is printable and does not contain the key.
      ConfigError: `check` returns None.
    """
    self._wait(0.0)  # raises before it encodes images in vain
    initial = _messages(question, self._settings.jpeg_quality)
    messages = initial
    problem = ''
    for _ in range(self._settings.tries):
      text, complete = self._insist(messages)
      try:
        if not text.strip() or not complete:
          raise _Unfit('it was cut short by max_tokens' if text.strip() else 'it is empty')
        return text, _worth(text, check)
      except _Unfit as unfit:
        problem = self._clean(str(unfit))
      messages = initial
      if text.strip():  # at temperature 0 the same question gets the same answer
        mend = f'This cannot be used: {problem}. Answer the question again.'
        messages = [*initial, _message('assistant', text[:_QUOTED]), _message('user', mend)]
    raise _Failed(f'the last of {self._settings.tries} answers cannot be used: {problem}')

  def _insist(self, messages: list[Message]) -> tuple[str, bool]:
    """Returns the text of an answer and whether it is complete, with retries."""
    settings = self._settings
    body = json.dumps({**settings.options, 'model': settings.model, 'messages': messages}).encode()
    problem = ''
    pause = 0.0
    for attempt in range(settings.attempts):
      self._wait(pause, problem)
      self._take_turn()
      try:
        return self._request(body)
      except _Trouble as trouble:
        problem = self._clean(str(trouble))
        requested_pause = trouble.pause
      if requested_pause > settings.longest_pause:
        raise _Failed(
          f'{problem}; it asks for a pause of {requested_pause:.0f} s, above longest_pause'
        )
      most = min(settings.first_pause * 2.0**attempt, settings.longest_pause)
      # Jitter keeps requests from returning all at once.
      pause = requested_pause + random.uniform(0.5, 1.0) * most
    raise _Failed(f'the last of {settings.attempts} requests: {problem}')

  def _request(self, body: bytes) -> tuple[str, bool]:
    status, headers, reply = self._exchange(body)
    if status != 200:
      problem = f'the server answers {status}: {self._clean(_readable(reply))}'
      if 300 <= status < 400:  # a redirect would send the key to another server
        raise _Failed(self._clean(f'the server sends to {headers["Location"]!r}; give that as url'))
      if status < 500 and status not in _AGAIN:
        raise _Failed(problem)
      pause = _pause(headers['Retry-After'])
      with self._lock:  # the pause holds for all requests
        if pause <= self._settings.longest_pause:
          self._next = max(self._next, time.monotonic() + pause)
      raise _Trouble(problem, pause)
    try:
      choice = json.loads(reply)['choices'][0]
      text = choice['message']['content'] or ''
      complete = choice.get('finish_reason') != 'length'
      if not isinstance(text, str):
        raise ValueError('the content is no text')
    except WRONG:
      raise _Trouble(f'no chat completion: {self._clean(_readable(reply))}') from None
    return text.replace(self._key, '[key]') if self._key else text, complete

  def _exchange(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Sends a request and returns status, headers and body of the reply."""
    url = self._url
    most = self._settings.largest_answer
    end = min(time.monotonic() + self._settings.request_seconds, self._end)
    kind = {'http': http.client.HTTPConnection, 'https': http.client.HTTPSConnection}[url.scheme]
    headers = {'Content-Type': 'application/json', 'Connection': 'close'}
    if self._key:
      headers['Authorization'] = f'Bearer {self._key}'
    remaining = max(end - time.monotonic(), 0.001)
    with contextlib.closing(kind(url.hostname, url.port, timeout=remaining)) as connection:
      try:
        connection.connect()
        with self._open_until(connection.sock, end):
          connection.request('POST', f'{url.path.rstrip("/")}/chat/completions', body, headers)
          with connection.getresponse() as response:  # its file keeps the socket open
            reply = response.read(most + 1)
            missing = response.length
        if time.monotonic() >= end:  # a timeout looks like the end of the reply
          raise TimeoutError
      except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= end or isinstance(error, TimeoutError):
          raise _Trouble('no whole reply in time: the server was silent or slow') from None
        raise _Trouble(f'no answer: {type(error).__name__}: {error}') from None
      if len(reply) > most:
        raise _Failed('the reply has more bytes than largest_answer')
      if missing:
        raise _Trouble(f'the reply ends {missing} bytes early')
      return response.status, response.headers, reply

  @contextlib.contextmanager
  def _open_until(self, sock: socket.socket, end: float):
    """Closes the connection at the time `end`, or when the call ends."""
    timer = threading.Timer(max(end - time.monotonic(), 0.0), _hang_up, [sock])
    timer.daemon = True
    timer.start()
    with self._lock:
      self._sockets.add(sock)
      if self._stopped.is_set():
        _hang_up(sock)
    try:
      yield
    finally:
      timer.cancel()
      with self._lock:
        self._sockets.discard(sock)

  def _take_turn(self) -> None:
    """Waits until the rate limit allows the next request."""
    while True:
      with self._lock:
        now = time.monotonic()
        if self._next <= now:
          self._next = now + 60.0 / self._settings.requests_a_minute
          return
        remaining = self._next - now
      self._wait(remaining)

  def _wait(self, seconds: float, problem: str = '') -> None:
    """Waits; raises _Failed if the call has ended or would end before."""
    if time.monotonic() + seconds >= self._end:
      after = f', after a request: {problem}' if problem else ''
      raise _Failed(f'total_seconds = {self._settings.total_seconds} are over{after}')
    if self._stopped.wait(seconds):
      raise _Failed(f'given up: {self._why}')

  def _clean(self, text: str) -> str:
    """Returns the start of a text as printable characters, without the key."""
    return printable((text.replace(self._key, '[key]') if self._key else text)[:_SHOWN])


def _worth(text: str, check: Check | None) -> Any:
  """Returns the text of an answer, or the value of `check` for its JSON; raises _Unfit."""
  if check is None:
    return text
  try:
    bare = fenced[1] if (fenced := _FENCED.fullmatch(text)) else text
    mend = 'answer with JSON alone'
    value = check(parse_json(bare, 'the answer', object, error=DataError, mend=mend))
  except (MgjaxError, *WRONG) as wrong:
    raise _Unfit(str(wrong) or type(wrong).__name__) from None
  if value is None:
    raise ConfigError('`check` returned None for an answer; return the value, or raise ValueError')
  return value


def _message(role: str, content: object) -> Message:
  return {'role': role, 'content': content}


def _messages(question: Question, jpeg_quality: int) -> list[Message]:
  content: Any = question.text
  if len(question.frames):
    urls = [_data_url(frame, jpeg_quality) for frame in question.frames]
    content = [{'type': 'image_url', 'image_url': {'url': url}} for url in urls]
    content.append({'type': 'text', 'text': question.text})
  before = [_message('system', question.system)] if question.system else []
  return [*before, _message('user', content)]


def _data_url(frame: UInt8[np.ndarray, 'h w 3'], jpeg_quality: int) -> str:
  kind = 'jpeg' if jpeg_quality else 'png'
  file = io.BytesIO()
  Image.fromarray(frame).save(file, kind, **({'quality': jpeg_quality} if jpeg_quality else {}))
  return f'data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}'


def _hang_up(sock: socket.socket) -> None:
  with contextlib.suppress(OSError):
    sock.shutdown(socket.SHUT_RDWR)


def _readable(reply: bytes) -> str:
  try:  # decoded, because an escape could hide the key
    return json.dumps(json.loads(reply), ensure_ascii=False)
  except WRONG:
    return reply.decode(errors='replace')


def _pause(header: str | None) -> float:
  """Returns the seconds of a Retry-After header; 0 if it is missing or a date."""
  try:
    return max(0.0, float(header or 0))
  except ValueError:
    return 0.0


def _key_of(row: Any) -> str:
  if not re.fullmatch('[0-9a-f]{64}', row['question']):
    raise ValueError('it names no question')
  return row['question']


def _split(url: str) -> urllib.parse.SplitResult:
  """Returns the parts of a server's URL; the ConfigError omits the URL, which may hold a key."""
  try:
    parts = urllib.parse.urlsplit(url)
    right = parts.scheme in ('http', 'https') and parts.hostname and parts.port != 0
  except ValueError:
    right = False
  if not right or not re.fullmatch('[!-~]+', url) or re.search('[@?#]', url):
    raise ConfigError(
      "url is no address of a server alone; expected one such as 'http://127.0.0.1:8000/v1', "
      'without key, query or spaces'
    )
  return parts


def _read_key(variable: str) -> str:
  """Reads the key of a server, '' if it has none; the ConfigError does not show the key."""
  if not variable:
    return ''
  key = os.environ.get(variable, '').strip()
  if len(key) < _SHORTEST_KEY or not re.fullmatch(r'[!#-\[\]-~]+', key):
    raise ConfigError(
      'the environment variable that key_variable names holds no key: '
      + (
        f'expected {_SHORTEST_KEY} characters of ASCII or more, without spaces and quotes'
        if key
        else 'it is not set'
      )
      + "; set it to the server's key, or give key_variable = '' for a server without one"
    )
  return key
