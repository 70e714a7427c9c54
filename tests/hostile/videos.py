"""Tries of the service of videos: bodies, pictures, headers of proxies, full disks, two owners."""

import atexit
import base64
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from tests.apps.serving import bombs
from tests.apps.serving.tiny_service import Server
from tests.hostile import damage, kinds
from tests.hostile.driver import Chance
from tests.hostile.services import exchange
from tests.tiny import CHECKOUT

MODELS = 'digits/few_steps', 'digits/personalization'
_FINE = 503, 507  # refusals of a server that is busy, or whose disk is full
_PATHS = re.compile(rb'(?<![\w.])/(root|home|tmp|work|usr|var|proc|etc)/')
_BOUND = 'x' * 10


class Site:
  """A service without tokens, on a small disk where there can be one, and a video of it."""

  def __init__(self):
    folder = pathlib.Path(tempfile.mkdtemp())
    self.disk = folder / 'disk'
    self.disk.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', self.disk]
    self.small = not os.getuid() and not subprocess.run(command, capture_output=True).returncode
    flags = ['--limits=rate=1e6,queue=100,batch=2', '--cors_origin=https://example.org']
    self.server = Server(self.disk / 'out', *flags, model=','.join(MODELS))
    self.server.log = folder / 'log'
    atexit.register(self.close, folder)
    self.server.start()
    self.video = self.server.make(seed=3)['id']

  def close(self, folder: pathlib.Path) -> None:
    """Ends it."""
    self.server.end(signal.SIGKILL)
    if self.small:
      subprocess.run(['umount', '-l', self.disk], check=False)
    shutil.rmtree(folder, ignore_errors=True)

  def fill(self, full: bool) -> None:
    """Fills the disk, or makes room."""
    filler = self.disk / 'filler'
    filler.unlink(missing_ok=True)
    if full and self.small:
      with contextlib.suppress(OSError):
        filler.write_bytes(bytes(50_000_000))

  def lives(self) -> str:
    """What is wrong with it, or ''."""
    began = time.monotonic()
    for path in ('/health', f'/v1/videos/{self.video}'):
      status, _, found = self.server.ask('GET', path)
      if status != 200:
        return f'{path} is {status}: {found}'
    seconds = time.monotonic() - began
    return f'its health took {seconds:.1f} s' if seconds > 5 else ''


site = functools.cache(Site)  # started once


class Sent(NamedTuple):
  """Bytes that somebody sends to the service."""

  seed: int
  full: bool
  words: tuple[str, ...]
  about: str = ''
  conditions: Any = None

  def perform(self, _: pathlib.Path, __: pathlib.Path) -> tuple[str, str]:
    """Sends them, and says what came of it."""
    it = site()
    chance = Chance(self.seed)
    it.fill(self.full)
    log = it.server.log
    begun = log.stat().st_size
    data, slowly = _request(it, chance)
    status, said = exchange(it.server.port, data, slowly)
    it.fill(False)
    errors = log.read_bytes()[begun:]
    if b'Traceback' in errors or (status >= 500 and status not in _FINE):
      return 'traceback', f'{status} {data[:500]!a} {said[-500:]!a} {errors[-1500:]!a}'
    if status < 0:
      return 'hang', f'{data[:500]!a}'
    if wrong := it.lives():
      return 'crash', f'{data[:500]!a}: {wrong}'
    if status >= 400 and _PATHS.search(said):
      return 'silent wrong', f'{data[:500]!a}: {said!a} tells a path'
    return ('refused' if status >= 400 or not status else 'done'), f'{status} {said[:200]!a}'


def _picture(chance: Chance) -> bytes:
  """A picture, damaged or a bomb."""
  name = chance.pick(('PNG', 'JPEG', 'WEBP', 'GIF', 'TIFF', 'BMP', 'ICO', 'MPO', 'bomb'))
  if name == 'bomb':
    return bombs.PICTURES[chance.pick(('fewer scans', 'text of a png', 'multi-picture'))]()
  data = bombs.encoded(name)
  by = {'PNG': kinds.MEDIA['png'], 'WEBP': kinds.MEDIA['webp'], 'JPEG': kinds.MEDIA['jpg']}
  harm = by[name].damage if name in by else damage.damage_bytes
  return harm(data, chance) if chance.number(5) else data


def _fields(chance: Chance) -> dict[str, Any]:
  """Fields of a request, of which some are wrong."""
  fields = {
    'prompt': 'the red digit 7',
    'model': chance.pick(MODELS),
    'seed': chance.pick((3, -1, None, 2**63 - 1, 2**63, '7', 1.5)),
    'size': chance.pick(('32x32', 'auto', '64x64', '', None, '32x32 ')),
    'seconds': chance.pick(('2', 2, 2.0, '2.0', 1e-9, '-2')),
    'num_inference_steps': chance.pick((None, 1, 4, 7)),
    'guidance_scale': chance.pick((None, 1, 3, 'x')),
    'negative_prompt': chance.pick(('', '', 'blue')),
    'soundtrack': chance.pick((False, True, 'digits/audio')),
    'upscale': chance.pick((False, False, 'true')),
    'width': chance.pick((None, None, 32)),
    'height': chance.pick((None, None, 32)),
  }
  return damage.change(fields, chance) if chance.number(3) else fields


def _form(fields: Any, picture: bytes | None) -> bytes:
  parts = []
  for name, value in fields.items() if isinstance(fields, dict) else ():
    told = value if isinstance(value, str) else json.dumps(value)
    head = f'Content-Disposition: form-data; name="{name}"'
    parts.append(f'--{_BOUND}\r\n{head}\r\n\r\n{told}\r\n'.encode('utf-8', 'surrogatepass'))
  if picture is not None:
    head = 'Content-Disposition: form-data; name="input_reference"; filename="../../x.png"'
    parts.append(f'--{_BOUND}\r\n{head}\r\n\r\n'.encode() + picture + b'\r\n')
  return b''.join(parts) + f'--{_BOUND}--\r\n'.encode()


def _body(chance: Chance) -> tuple[str, bytes]:
  """A content type and a body."""
  fields = _fields(chance)
  picture = None if chance.number(3) else _picture(chance)
  match chance.pick(('json', 'json', 'json', 'form', 'form', 'large', 'odd')):
    case 'json':
      kind = 'application/json'
      if picture is not None and isinstance(fields, dict):
        url = 'data:image/png;base64,' + base64.b64encode(picture).decode()
        fields['input_reference'] = chance.pick((url, {'image_url': url}, [url], url[:-3], {}))
      body = json.dumps(fields).encode()
      body = body if chance.number(4) else damage.damage_json(body, chance)
    case 'form':
      kind = f'multipart/form-data; boundary={_BOUND}'
      body = _form(fields, picture)
      body = body if chance.number(3) else damage.damage_bytes(body, chance)
    case 'large':
      large = bombs.large_bodies(chance.pick((1000, 130_000, 3_000_000, 22_000_000)))
      kind, body = large[chance.pick(sorted(large))]
    case _:
      kind, body = '', chance.bytes(2000)
  wrong = ('text/plain', 'application/json; charset=utf-16', 'multipart/form-data', 'x' * 3000, '')
  return (kind if chance.number(8) else chance.pick(wrong)), body


def _headers(chance: Chance, body: bytes) -> list[str]:
  port = chance.pick(('', ':8000', ':x', ':99999'))
  here = chance.pick(('localhost', '127.0.0.1', '[::1]'))
  host = chance.pick(
    (here,) * 30 + (f'{here}{port}', 'evil.example', '', 'a' * 4000, '[::1', 'x y')
  )
  headers = [f'Host: {host}']
  length = chance.pick((len(body),) * 40 + (0, -1, len(body) + 9, 10**12, 10**400, '1, 2'))
  if body or not chance.number(5):
    headers.append(f'Content-Length: {length}')
  more = (
    f'Origin: http://{host}',
    'Origin: https://example.org',
    'Origin: http://evil.example',
    'Origin: null',
    'X-Forwarded-For: 1.1.1.1, ' + '2.2.2.2, ' * 300,
    'X-Forwarded-Host: evil.example',
    'X-Forwarded-Proto: javascript',
    'Forwarded: for=1.1.1.1;host=evil.example',
    'X-HTTP-Method-Override: DELETE',
    'Idempotency-Key: a',
    'Idempotency-Key: ' + 'k' * 3000,
    'Authorization: Bearer x',
    'Authorization: ' + 'y' * 5000,
    'Content-Encoding: gzip',
    'Transfer-Encoding: chunked',
    'Expect: 100-continue',
    'Connection: close',
    'Accept: text/html',
    'Access-Control-Request-Method: POST',
    'Range: bytes=4-7',
    'Range: bytes=7-4',
    'Range: lines=1-2',
    'Range: bytes=' + ','.join(f'{each}-{each}' for each in range(1000)),
    'If-Range: "x"',
    'If-Range: Wed, 21 Oct 2015 07:28:00 GMT',
    'If-None-Match: *',
  )
  return headers + [chance.pick(more) for _ in range(chance.number(4))]


def _request(it: Site, chance: Chance) -> tuple[bytes, bool]:
  """A request, and whether it is sent in drips."""
  video = f'/v1/videos/{it.video}'
  posts = ('/v1/videos',) * 4 + ('/v1/images/generations', f'{video}/remix')
  gets = (
    video,
    f'{video}/content',
    f'{video}/content?variant=../../etc/passwd',
    f'{video}/preview',
    f'{video}/events',
    '/v1/videos?limit=' + '9' * 5000,
    '/v1/videos?limit=5&after=' + it.video,
    '/v1/models',
    '/v1/models/digits/few_steps',
    '/v1/models/%2e%2e/%2e%2e/etc/passwd',
    '/v1/models/\x00',
    '/v1/videos/video_' + '0' * 32,
    '/metrics',
    '/ready',
    '/',
    '/v1/videos/%00',
    '//v1//videos',
  )
  if chance.number(3):
    path, method = chance.pick(posts), 'POST'
    kind, body = _body(chance)
  else:
    path, method, kind, body = chance.pick(gets), 'GET', '', b''
  method = chance.pick((method,) * 40 + ('HEAD', 'PUT', 'PATCH', 'OPTIONS', 'TRACE', 'G' * 3000))
  headers = [*_headers(chance, body), *([f'Content-Type: {kind}'] if kind else [])]
  head = '\r\n'.join([f'{method} {path} HTTP/1.1', *headers, '', ''])
  whole = head.encode('utf-8', 'surrogatepass') + body
  if not chance.number(25):
    whole = damage.damage_bytes(whole[:100_000], chance)
  few = len(whole) < 2000
  return whole * (1 if chance.number(15) or not few else 20), few and not chance.number(40)


class Second(NamedTuple):
  """A second server on the store of the first one."""

  words: tuple[str, ...]
  about: str = ''
  conditions: Any = None

  def perform(self, _: pathlib.Path, folder: pathlib.Path) -> tuple[str, str]:
    """Starts it, which has to be refused with a sentence."""
    it = site()
    out, link = it.disk / 'out', it.disk / 'link'
    with contextlib.suppress(FileExistsError):
      link.symlink_to(out)
    folder.mkdir(parents=True, exist_ok=True)
    words = [each.format(out=out, link=link, mine=folder) for each in self.words]
    command = [sys.executable, '-m', 'launch.serve', '--port=0', *words]
    try:
      done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=CHECKOUT)
    except subprocess.TimeoutExpired:
      return 'silent wrong', 'two servers have one store'
    said = done.stderr.strip()
    if 'Traceback' in said:
      return 'traceback', said
    if done.returncode != 2 or 'in use by process' not in said:
      return 'silent wrong', f'{done.returncode}: {said[-500:]}'
    wrong = it.lives()
    return ('crash', wrong) if wrong else ('refused', said.splitlines()[-1])


def draw_video(full: bool, chance: Chance) -> Sent:
  """A request to the service, on a full disk or not."""
  seed = chance.number(1 << 30)
  return Sent(seed, full, ('serve', 'videos'), f'request {seed}')


def draw_second(chance: Chance) -> Second:
  """Another server for the same store, by any of its names."""
  names = ('{out}/jobs.sqlite', '{link}/jobs.sqlite', '{out}/../out/./jobs.sqlite')
  database = f'--database=sqlite:///{chance.pick(names)}'
  out = chance.pick(('{out}', '{link}', '{mine}/out'))
  model = f'--model={chance.pick(MODELS)}'
  if out != '{mine}/out' and chance.number(2):
    return Second((model, f'--out={out}'), str(chance.number(1 << 30)))
  return Second((model, database, f'--out={out}'), str(chance.number(1 << 30)))
