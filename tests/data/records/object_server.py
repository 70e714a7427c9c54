"""A stand-in for Google Cloud Storage and S3, over HTTP, as far as records need them."""

import contextlib
import email.utils
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from xml.sax import saxutils

import pytest

from tests.servers import serving

PAGE = 20  # names in one answer, so that listings have several


class ObjectServer(http.server.ThreadingHTTPServer):
  """Serves objects, whatever the bucket is called.

  Attributes:
    objects: name -> bytes.
    requests: (method, name or 'list', bytes sent) of every request that was answered.
    failures: how many requests are answered with 503 before the next is served.
    forbidden: whether all requests are refused.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.objects: dict[str, bytes] = {}
    self.requests: list[tuple[str, str, int]] = []
    self.failures = 0
    self.forbidden = False
    self.lock = threading.Lock()


@contextlib.contextmanager
def object_server():
  """Yields a server that runs in threads of this process, to which variables lead all clients."""
  with serving(ObjectServer()) as server, pytest.MonkeyPatch.context() as patch:
    url = f'http://127.0.0.1:{server.server_port}'
    for name, value in {
      'TENSORSTORE_GCS_HTTP_URL': url,
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'token',
      'AWS_ENDPOINT_URL': url,
      'AWS_ACCESS_KEY_ID': 'key',
      'AWS_SECRET_ACCESS_KEY': 'secret',
    }.items():
      patch.setenv(name, value)
    yield server


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  wbufsize = 1 << 16  # head and body of an answer in one packet
  server: ObjectServer

  def log_message(self, *_):
    pass

  def _handle(self):
    body = self.rfile.read(int(self.headers.get('content-length') or 0))
    path, _, query = self.path.partition('?')
    query = dict(urllib.parse.parse_qsl(query))
    with self.server.lock:
      if self.server.failures:
        self.server.failures -= 1
        return self._answer(503, b'try again')
      if self.server.forbidden or not self.headers.get('authorization'):
        return self._answer(403, b'no')
      if match := re.fullmatch(r'(/upload)?/storage/v1/b/[^/]+/o(/.*)?', path):
        name = urllib.parse.unquote(match[2][1:]) if match[2] else query.get('name')
        return self._google(name, query, body)
      name = urllib.parse.unquote(re.sub('^/[^/]+/?', '', path))
      return self._amazon(name, query, body)

  do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

  def _google(self, name, query, body):
    objects = self.server.objects
    if self.command == 'POST':
      wanted = query.get('ifGenerationMatch')
      if wanted is not None and wanted != _generation(objects.get(name)):
        return self._answer(412, b'changed', name)
      objects[name] = body
      answer = {'name': name, 'generation': _generation(body), 'size': str(len(body))}
      return self._answer(200, json.dumps(answer).encode(), name)
    if self.command == 'GET' and name is None:
      names, more = self._page(query.get('startOffset', ''), query.get('endOffset'), query)
      answer = {'items': [{'name': each} for each in names]}
      if more:
        answer['nextPageToken'] = more
      return self._answer(200, json.dumps(answer).encode(), 'list')
    return self._read_or_delete(name)

  def _amazon(self, name, query, body):
    objects = self.server.objects
    if self.command == 'PUT':
      if self.headers.get('if-none-match') == '*' and name in objects:
        return self._answer(412, b'exists', name)
      objects[name] = body
      return self._answer(200, b'', name, body)
    if 'list-type' in query:
      prefix = query.get('prefix', '')
      names, more = self._page(prefix, prefix + '\U0010ffff', query)
      found = ''.join(
        f'<Contents><Key>{saxutils.escape(each)}</Key><Size>{len(objects[each])}</Size></Contents>'
        for each in names
      )
      token = f'<NextContinuationToken>{more}</NextContinuationToken>' if more else ''
      truncated = str(bool(more)).lower()
      text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f'<KeyCount>{len(names)}</KeyCount><IsTruncated>{truncated}</IsTruncated>{token}{found}'
        '</ListBucketResult>'
      )
      return self._answer(200, text.encode(), 'list')
    return self._read_or_delete(name)

  def _page(self, begin, end, query):
    after = bytes.fromhex(query.get('pageToken') or query.get('continuation-token') or '').decode()
    names = [name for name in sorted(self.server.objects) if name >= begin and name > after]
    names = [name for name in names if not end or name < end]
    return names[:PAGE], names[PAGE - 1].encode().hex() if len(names) > PAGE else ''

  def _read_or_delete(self, name):
    data = self.server.objects.get(name)
    if data is None:
      return self._answer(404, b'gone', name)
    if self.command == 'DELETE':
      del self.server.objects[name]
      return self._answer(204, b'', name)
    wanted = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('range', ''))
    if not wanted:
      return self._answer(200, data, name, data)
    begin, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
    if begin >= len(data):
      return self._answer(416, b'', name)
    place = f'bytes {begin}-{end - 1}/{len(data)}'
    return self._answer(206, data[begin:end], name, data, place)

  def _answer(self, code, data, name='', stored=None, place=''):
    self.server.requests.append((self.command, name, len(data)))
    self.send_response(code)
    self.send_header('date', email.utils.formatdate(usegmt=True))
    self.send_header('content-length', str(len(data)))
    if place:
      self.send_header('content-range', place)
    if stored is not None:
      self.send_header('x-goog-generation', _generation(stored))
      self.send_header('etag', f'"{hashlib.md5(stored).hexdigest()}"')
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data)


def _generation(data: bytes | None) -> str:
  """0 stands for no object."""
  return '0' if data is None else str(int(hashlib.sha256(data).hexdigest()[:12], 16) + 1)
