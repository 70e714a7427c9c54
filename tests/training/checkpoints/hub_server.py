"""A server that speaks the calls of the Hub which huggingface_hub makes for mgjax, with faults."""

import base64
import collections
import contextlib
import hashlib
import http.server
import json
import re
import time

from tests.servers import serving

FILE = re.compile(r'/(\w+/[\w-]+)/resolve/([^/]+)/(.*)')
COMMIT = re.compile(r'/api/models/(\w+/[\w-]+)/commit/([^/]+)')


class Hub:
  """Repositories in memory: commits of files, and branches that point to them.

  `faults` are what happens to the next answers with a file: file -> kinds, of which each is used
  up: 'cut', 'wrong', 'slow', or a status; one that ends with '!' stays. `asked` are method, file
  and range of what was asked for.
  """

  def __init__(self):
    self.commits, self.refs, self.stored, self.asked = {}, {}, {}, []
    self.faults = collections.defaultdict(list)

  def commit(self, repository, branch, files):
    files = self.commits.get(self.refs.get((repository, branch)), {}) | files
    name = hashlib.sha1(repr([repository, sorted(files.items())]).encode()).hexdigest()
    self.commits[name], self.refs[repository, branch] = files, name
    return name

  def fault(self, name):
    kinds = self.faults[name]
    kind = kinds.pop(0) if kinds else ''
    if kind.endswith('!'):
      kinds.insert(0, kind)
    return kind.removesuffix('!')


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers for the `hub` of its server."""

  protocol_version = 'HTTP/1.1'

  def log_message(self, *arguments):
    pass

  def answer(self, status=200, body=b'', **headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    self.send_response(status)
    for key, value in {'Content-Length': len(body), **headers}.items():
      self.send_header(key.replace('_', '-'), str(value))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(body)

  def do_GET(self):
    hub, match = self.server.hub, FILE.fullmatch(self.path)
    if match is None:
      return self.answer(404)
    repository, revision, name = match.groups()
    commit, part = hub.refs.get((repository, revision), revision), self.headers.get('Range')
    data = hub.commits.get(commit, {}).get(name)
    hub.asked.append((self.command, name, part))
    if data is None:
      missing = 'EntryNotFound' if commit in hub.commits else 'RevisionNotFound'
      return self.answer(404, X_Error_Code=missing, X_Repo_Commit=commit)
    kind = hub.fault(name) if self.command == 'GET' else ''
    if kind.isdigit():
      return self.answer(int(kind))
    more = {'ETag': f'"{hashlib.sha256(data).hexdigest()}"', 'X-Repo-Commit': commit}
    status, data = (206, data[int(part[6:-1]) :]) if part else (200, data)
    time.sleep(1.5 * (kind == 'slow'))
    if kind == 'wrong':
      data = data[:-1] + bytes([data[-1] ^ 1])
    if kind == 'cut':
      more['Content-Length'], data = len(data), data[: len(data) // 2]
      self.close_connection = True
    return self.answer(status, data, **more)

  do_HEAD = do_GET  # noqa: N815

  def do_PUT(self):
    data = self.rfile.read(int(self.headers['Content-Length']))
    self.server.hub.stored[hashlib.sha256(data).hexdigest()] = data
    self.answer()

  def do_POST(self):
    data = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    hub, address = self.server.hub, self.server.address
    if match := COMMIT.fullmatch(self.path):
      rows = [json.loads(line) for line in data.splitlines()]
      files = {
        row['value']['path']: base64.b64decode(row['value']['content'])
        if row['key'] == 'file'
        else hub.stored[row['value']['oid']]
        for row in rows[1:]
      }
      name = hub.commit(*match.groups(), files)
      where = f'{address}/{match[1]}/commit/{name}'
      return self.answer(body={'commitUrl': where, 'commitOid': name, 'hookOutput': ''})
    asked, large = json.loads(data or '{}'), '.safetensors'
    body = {'url': f'{address}/me/{asked.get("name")}', 'errors': [], 'warnings': []}
    body['files'] = [
      each | {'shouldIgnore': False, 'uploadMode': 'lfs' if large in each['path'] else 'regular'}
      for each in asked.get('files', ())
    ]
    body['objects'] = [
      each | {'actions': {'upload': {'href': f'{address}/lfs/{each["oid"]}'}}}
      for each in asked.get('objects', ())
    ]
    return self.answer(body=body)


@contextlib.contextmanager
def serving_hub():
  """Yields a `Hub` and its address."""
  with serving(http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)) as server:
    server.hub, server.address = Hub(), f'http://127.0.0.1:{server.server_address[1]}'
    yield server.hub, server.address
