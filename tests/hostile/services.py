"""Tries of what talks over the network: pages of votes and reviews."""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from mgjax.core.errors import MgjaxError
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.lab.curation.review.candidates import write_candidates
from mgjax.lab.curation.review.decisions import read_decisions
from mgjax.lab.evaluation.human.votes import read_votes
from tests.apps.serving.tiny_pages import Client, row
from tests.hostile import damage, ground
from tests.hostile.driver import Chance
from tests.tiny import CHECKOUT

_SECONDS = 15.0  # in which a page answers, or hangs up
_READERS = {
  'votes': ('votes/votes.jsonl', read_votes),
  'review': ('curated/review/decisions.jsonl', read_decisions),
}


class Site:
  """`launch.serve` on a copy of the ground, and one person of it."""

  def __init__(self, kind: str, source: pathlib.Path):
    self.folder = ground.copied(source, pathlib.Path(tempfile.mkdtemp(), 'site'))
    words = ['votes', '--out=votes']
    if kind == 'review':
      words = ['review', '--input=clips', '--output=curated', '--people=ann,ben']
      rows = [row(place, 0.0, 0.6) for place in range(3)]
      inputs = open_inputs(self.folder / 'clips')
      write_candidates(self.folder / 'curated/review', rows, inputs, (0.1, 16.0))
    self.errors = (self.folder / 'stderr').open('w+')
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'launch.serve', *words, '--port=0'],
      cwd=self.folder,
      env={**os.environ, 'PYTHONPATH': str(CHECKOUT)},
      stdout=subprocess.PIPE,
      stderr=self.errors,
      text=True,
    )
    atexit.register(self.close)
    assert self.process.stdout is not None
    said = [self.process.stdout.readline() for _ in range(2)]
    self.operator = re.search(r'/o/(\w+)', said[1])[1]
    self.port = int(re.search(r':(\d+)/o/', said[1])[1])
    name, self.read = _READERS[kind]
    self.log = self.folder / name
    invited = next(self.folder.glob('**/invitations.txt')).read_text()
    self.token = re.search(r'/r/(\w+)', invited)[1]

  def close(self) -> None:
    """Ends it."""
    self.process.kill()
    self.process.wait()
    shutil.rmtree(self.folder.parent, ignore_errors=True)

  def logged(self) -> bytes:
    """What people have answered."""
    return self.log.read_bytes() if self.log.exists() else b''

  def lives(self) -> str:
    """What is wrong with it, or ''."""
    if self.process.poll() is not None:
      return f'the server ended with {self.process.returncode}'
    with contextlib.closing(Client(self.port, self.token)) as person:
      status, _, found = person.ask(f'{person.path}/next')
    return '' if status == 200 else f'the next thing to see is {status}: {found}'


site = functools.cache(Site)  # the server of a kind, started once


class Sent(NamedTuple):
  """Bytes that somebody sends to a page; `{token}` and the like are filled in."""

  kind: str
  seed: int
  words: tuple[str, ...]
  about: str = ''
  conditions: Any = None

  def perform(self, source: pathlib.Path, _: pathlib.Path) -> tuple[str, str]:
    """Sends them, and says what came of it."""
    server = site(self.kind, source)
    before, chance = server.logged(), Chance(self.seed)
    begun = server.errors.tell()
    data, slowly = _request(server, chance)
    status, said = exchange(server.port, data, slowly)
    server.errors.seek(begun)
    errors = server.errors.read()
    after = server.logged()
    if 'Traceback' in errors or (status >= 500 and status != 507):
      return 'traceback', f'{status} {data[:500]!a} {errors[-1500:]}'
    if status < 0:
      return 'hang', f'{data[:500]!a}'
    if not after.startswith(before):
      return 'data lost', f'{data[:500]!a}'
    try:
      server.read(server.log)
    except MgjaxError as wrong:
      return 'silent wrong', f'{data[:500]!a}: the log has {wrong}'
    if wrong := server.lives():
      return 'crash', f'{data[:500]!a}: {wrong}'
    return ('refused' if status >= 400 or not status else 'done'), f'{status} {said[:200]!a}'


def _request(server: Site, chance: Chance) -> tuple[bytes, bool]:
  """A request, and whether it is sent in drips."""
  with contextlib.closing(Client(server.port, server.token)) as person:
    found, _, answer = person.next()
  task = found['task'] or {'media': {'x': '0' * 32}}
  media = next(iter(task['media'].values()))
  person = f'/r/{server.token}'
  path = chance.pick(
    (
      f'{person}/answers',
      f'{person}/answers',
      f'{person}/answers',
      f'{person}/skip',
      f'{person}/next',
      person,
      f'{person}/{media}',
      f'{person}/{media}',
      f'/o/{server.operator}/state',
      f'/r/{"0" * 32}',
      '/',
      f'{person}/..%2f..%2fstudy.json',
      f'{person}/%00',
      f'{person}/next?back=9999999999',
      f'{person}/next?back=-1',
      f'{person}/next?back=٣',
      f'{person}/next?more&back=1',
      f'{person}/' + 'a' * 5000,
      f'{person}//next',
      '*',
      f'{person}/next?' + 'a=b&' * 500,
      f'http://x{person}/next',
      f'{person}/../../votes/study.json',
    )
  )
  method = 'POST' if path.endswith(('/answers', '/skip')) else 'GET'
  method = chance.pick(
    (method,) * 8 + ('HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'get', 'G' * 3000, '')
  )
  body = b''
  if method == 'POST':
    value = answer if answer and 'answers' in path else {'id': (answer or {}).get('id', 'x')}
    value = damage.change(value, chance) if chance.number(6) else value
    body = json.dumps(value).encode()
    body = body if chance.number(8) else damage.damage_json(body, chance)
    body = body if chance.number(12) else b'{"id": ' * 3000
  headers = [f'Host: {chance.pick(("x", "", "a" * 4000, "127.0.0.1"))}']
  length = chance.pick((len(body),) * 12 + (0, -1, len(body) + 9, 10**12, 'x', '1, 2', 10**400))
  if method == 'POST' or not chance.number(5):
    headers.append(f'Content-Length: {length}')
  if not chance.number(6):
    headers.append(
      chance.pick(
        (
          'Transfer-Encoding: chunked',
          'Transfer-Encoding: gzip, chunked',
          'Expect: 100-continue',
          'Upgrade: websocket',
          'Connection: close',
          'Accept: text/html',
          'Cookie: ' + 'x' * 15000,
          'X: ' + 'y' * 40000,
          'X: a\x00b',
          'X: a\r b',
          'Content-Encoding: gzip',
          'X-Forwarded-For: 1.1.1.1',
          'Content-Length: 3',
          '\x80: x',
          'a' * 100,
          '\r\n'.join(f'X{number}: y' for number in range(300)),
        )
      )
    )
  if path.endswith(media):
    headers.append(
      'Range: '
      + chance.pick(
        (
          'bytes=0-',
          'bytes=5-2',
          'bytes=-1',
          'bytes=-0',
          'bytes=0-0',
          'bytes=99999999-',
          'bytes=0-' + '9' * 50,
          'bytes=x-y',
          'bytes=' + ','.join(f'{number}-{number}' for number in range(2000)),
          'lines=1-2',
          'bytes=',
          'bytes=--1',
          'bytes=1-2,3',
          'bytes=0-1,0-1,0-1',
          'bytes=٣-',
          'bytes=0-9999,' * 400,
        )
      )
    )
  version = chance.pick(
    ('HTTP/1.1',) * 10 + ('HTTP/1.0', 'HTTP/0.9', 'HTTP/2', 'HTTP/9.9', 'x', '')
  )
  whole = (
    '\r\n'.join([f'{method} {path} {version}', *headers, '', '']).encode('utf-8', 'surrogatepass')
    + body
  )
  if not chance.number(10):
    whole = damage.damage_bytes(whole, chance)
  return whole * (1 if chance.number(15) else 20), not chance.number(40)


def exchange(port: int, data: bytes, slowly: bool) -> tuple[int, bytes]:
  """Returns the status of the answer, 0 where the server hangs up and -1 where it does not."""
  found, begun = b'', time.monotonic()
  with socket.create_connection(('127.0.0.1', port), timeout=_SECONDS) as connection:
    with contextlib.suppress(OSError):
      pieces = [data[at : at + 1] for at in range(len(data))] if slowly else [data]
      for piece in pieces:
        connection.sendall(piece)
        if slowly:
          time.sleep(0.05)
        if select.select([connection], [], [], 0)[0]:
          break
    with contextlib.suppress(ConnectionError):
      while time.monotonic() < begun + _SECONDS:
        if not select.select([connection], [], [], 0.5)[0]:
          if found:
            break
          continue
        if not (piece := connection.recv(1 << 16)):
          break
        found += piece
      else:
        return -1, found
  match = re.match(rb'HTTP/1\.[01] (\d+)', found)
  return int(match[1]) if match else 0, found


def draw_page(kind: str, chance: Chance) -> Sent:
  """A request to a page."""
  seed = chance.number(1 << 30)
  return Sent(kind, seed, ('serve', kind), f'request {seed}')
