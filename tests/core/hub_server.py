"""A server that speaks the calls of the Hub which huggingface_hub makes for mgjax, with faults."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import time


class Hub:
  """Repositories in memory: commits of files, and branches that point to them.

  `faults` are what happens to the next answers with a file: file -> kinds, of which each is used
  up: 'cut', 'wrong', 'slow', or a status; a kind that ends with '!' stays.
  """

  def __init__(self):
    self.commits, self.refs, self.stored, self.faults, self.asked = {}, {}, {}, {}, []

  def commit(self, repository, branch, files):
    files = self.commits.get(self.refs.get((repository, branch)), {}) | files
    about = json.dumps(
      [repository, sorted((n, hashlib.sha256(d).hexdigest()) for n, d in files.items())]
    )
    name = hashlib.sha1(about.encode()).hexdigest()
    self.commits[name], self.refs[repository, branch] = files, name
    return name

  def file(self, repository, revision, name):
    commit = self.refs.get((repository, revision), revision)
    return commit, self.commits.get(commit, {}).get(name)

  def fault(self, name):
    kinds = self.faults.get(name, [])
    kind = kinds[0] if kinds else ''
    if kinds and not str(kind).endswith('!'):
      kinds.pop(0)
    return str(kind).removesuffix('!')


@contextlib.contextmanager
def serving():
  """Yields a `Hub` and its address."""
  hub = Hub()

  class Handler(http.server.BaseHTTPRequestHandler):
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
      match = re.fullmatch(r'/(\w+/[\w-]+)/resolve/([^/]+)/(.*)', self.path)
      if match is None:
        return self.answer(404)
      commit, data = hub.file(*match.groups())
      name, part = match[3], self.headers.get('Range')
      hub.asked.append((self.command, name, part))
      if data is None:
        missing = 'RevisionNotFound' if commit not in hub.commits else 'EntryNotFound'
        return self.answer(404, X_Error_Code=missing, X_Repo_Commit=commit)
      begin = int(re.search(r'\d+', part)[0]) if part else 0
      more = {'ETag': f'"{hashlib.sha256(data).hexdigest()}"', 'X-Repo-Commit': commit}
      kind = hub.fault(name) if self.command == 'GET' else ''
      if kind.isdigit():
        return self.answer(int(kind))
      if kind == 'slow':
        time.sleep(1.5)
      if kind == 'wrong':
        data = data[:-1] + bytes([data[-1] ^ 1])
      if kind == 'cut':
        self.send_response(200 if part is None else 206)
        self.send_header('Content-Length', str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : (begin + len(data)) // 2])
        self.close_connection = True
        return None
      return self.answer(200 if part is None else 206, data[begin:], **more)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self):
      data = self.rfile.read(int(self.headers['Content-Length']))
      hub.stored[hashlib.sha256(data).hexdigest()] = data
      self.answer()

    def do_POST(self):
      data = self.rfile.read(int(self.headers.get('Content-Length', 0)))
      asked = json.loads(data) if data and '/commit/' not in self.path else {}
      hub.asked.append(('POST', self.path, None))
      if self.path == '/api/repos/create':
        return self.answer(
          body={'url': f'{address}/{asked.get("organization", "me")}/{asked["name"]}'}
        )
      if '/preupload/' in self.path:
        files = [
          {'path': each['path'], 'shouldIgnore': False,
           'uploadMode': 'lfs' if each['path'].endswith('.safetensors') else 'regular'}
          for each in asked['files']
        ]  # fmt: skip
        return self.answer(body={'files': files})
      if self.path.endswith('/info/lfs/objects/batch'):
        objects = [
          {**each, **({} if each['oid'] in hub.stored else
                      {'actions': {'upload': {'href': f'{address}/lfs/{each["oid"]}'}}})}
          for each in asked['objects']
        ]  # fmt: skip
        return self.answer(body={'transfer': 'basic', 'objects': objects})
      if match := re.fullmatch(r'/api/models/(\w+/[\w-]+)/commit/([^/]+)', self.path):
        files = {}
        for line in map(json.loads, data.splitlines()):
          value = line['value']
          if line['key'] == 'file':
            files[value['path']] = base64.b64decode(value['content'])
          elif line['key'] == 'lfsFile':
            files[value['path']] = hub.stored[value['oid']]
        name = hub.commit(*match.groups(), files)
        where = f'{address}/{match[1]}/commit/{name}'
        return self.answer(body={'commitUrl': where, 'commitOid': name, 'hookOutput': ''})
      return self.answer(body={'errors': [], 'warnings': []})

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  address = f'http://127.0.0.1:{server.server_address[1]}'
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield hub, address
  finally:
    server.shutdown()
    server.server_close()
