"""A server of /v1/videos in a process of its own, on a free port that it keeps over restarts."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from tests import binaries

CHECKOUT = binaries.CHECKOUT
IMPORTED = [f'mgjax.apps.serving.videos.{name}' for name in ('app', 'jobs', 'models', 'results')]


class Server:
  """`launch.serve`, started, killed and asked."""

  def __init__(self, folder, *flags, model='digits/few_steps', token=''):
    with socket.create_server(('127.0.0.1', 0)) as listener:
      self.port = listener.getsockname()[1]
    self.url, self.token, self.log = f'http://127.0.0.1:{self.port}', token, folder.parent / 'log'
    self.flags = [
      f'--port={self.port}',
      f'--out={folder}',
      *flags,
      *(f'--model={name}' for name in model.split(',')),
    ]
    self.process = None

  def start(self, wait=True):
    self.process = binaries.Background('launch.serve', self.flags, self.log, IMPORTED)
    return self.until_ready() if wait else self

  def until_ready(self):
    end = time.monotonic() + 900
    while True:
      with contextlib.suppress(OSError):
        if self.ask('GET', '/ready')[0] == 200:
          return self
      assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-3000:]
      time.sleep(0.1)

  def end(self, number=signal.SIGTERM) -> int:
    self.process.send_signal(number)
    return self.process.wait(60)

  def ask(self, method, path, body=None, headers=(), timeout=60):
    """Status, headers and body; an object of JSON where it is one."""
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
    sent = {'Authorization': f'Bearer {self.token}'} if self.token else {}
    if isinstance(body, dict):
      body, sent['Content-Type'] = json.dumps(body), 'application/json'
    with contextlib.closing(connection):
      connection.request(method, path, body, {**sent, **dict(headers)})
      with connection.getresponse() as answer:  # its file keeps the socket open
        data = answer.read()
    is_json = answer.headers.get('content-type', '').startswith('application/json')
    return answer.status, answer.headers, json.loads(data) if is_json else data

  def make(self, **fields):
    """A job, as it ended."""
    status, _, video = self.ask('POST', '/v1/videos', {'prompt': 'the red digit 7', **fields})
    assert status == 200, video
    return self.wait(video['id'])

  def wait(self, id):
    end = time.monotonic() + 200
    while True:
      _, _, video = self.ask('GET', f'/v1/videos/{id}')
      if video.get('status') not in ('queued', 'in_progress'):
        return video
      assert time.monotonic() < end
      time.sleep(0.05)

  def memory(self) -> int:
    """Resident bytes."""
    fields = pathlib.Path(f'/proc/{self.process.pid}/statm').read_text().split()
    return int(fields[1]) * os.sysconf('SC_PAGE_SIZE')


@contextlib.contextmanager
def postgres():
  """The URL of a Postgres of one's own; skips a test where there is none."""
  found = shutil.which('postgres')
  if not found:
    pytest.skip('needs the server of Postgres, as Debian has it')
  tools = pathlib.Path(found).resolve().parent
  user = 'nobody' if os.getuid() == 0 else None  # it refuses to be root
  with socket.create_server(('127.0.0.1', 0)) as listener:
    port = listener.getsockname()[1]

  def run(name, *words):
    subprocess.run(
      [tools / name, *map(str, words)],
      check=True,
      user=user,
      cwd='/',
      env={'LC_ALL': 'C'},
      stdout=subprocess.DEVNULL,
    )

  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:  # which all users reach
    if user:
      shutil.chown(data, user)
    run('initdb', '-D', data, '-A', 'trust', '-U', 'jobs', '-E', 'UTF8')
    options = f'-c listen_addresses=127.0.0.1 -p {port} -k {data} -c max_connections=200'
    run('pg_ctl', '-D', data, '-o', options, '-l', f'{data}/log', '-w', 'start')
    run('createdb', '-h', '127.0.0.1', '-p', port, '-U', 'jobs', 'jobs')
    try:
      yield f'postgresql://jobs@127.0.0.1:{port}/jobs'
    finally:
      run('pg_ctl', '-D', data, '-m', 'immediate', 'stop')
