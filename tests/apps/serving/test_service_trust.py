"""One bad client does not stop the service: large bodies, pictures, other sites, a full disk."""

import contextlib
import gzip
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.apps.serving import bombs
from tests.apps.serving.tiny_service import Server
from tests.waiting import wait_for

for package in ('dbos', 'prometheus_client', 'python_multipart'):
  pytest.importorskip(package, reason='needs the extra serve')
MODELS = 'digits/few_steps,digits/personalization,digits/video'
FORM = 'multipart/form-data; boundary=x'
SITE = 'https://example.org'
PERSON = 'digits/personalization'
PATIENT = 1.0  # seconds in which 99 of 100 polls are answered
HELD = 700e6  # bytes that bodies and pictures may take beside the models


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  flags = ['--limits=rate=6000,queue=200,batch=2', f'--cors_origin={SITE}']
  server = Server(tmp_path_factory.mktemp('trust') / 'out', *flags, model=MODELS).start()
  yield server
  said = server.log.read_text()
  assert server.end() == 0
  assert 'Traceback' not in said and 'training never showed' not in said


def post(server, data, kind='application/json', path='/v1/videos', **headers):
  """Status and answer of a body; a server that hangs up early has answered before."""
  connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
  with contextlib.closing(connection):
    with contextlib.suppress(ConnectionError):
      connection.request('POST', path, data, {'Content-Type': kind, **headers})
    with connection.getresponse() as answer:
      assert answer.status not in (429, 503) or int(answer.headers['retry-after']) >= 1
      return answer.status, json.loads(answer.read())


class Polls:
  """Asks for the health and a video all the while, and notes how long that took."""

  def __init__(self, server, video):
    self.server, self.paths = server, ('/health', f'/v1/videos/{video}')
    self.seconds = {path: [] for path in self.paths}
    self.before = self.peak = server.memory()
    self.ended = threading.Event()

  def poll(self, path):
    while not self.ended.wait(0.01):
      began = time.monotonic()
      assert self.server.ask('GET', path, timeout=60)[0] == 200
      self.seconds[path].append(time.monotonic() - began)
      self.peak = max(self.peak, self.server.memory())

  def __enter__(self):
    self.pool = ThreadPoolExecutor(2)
    self.asking = [self.pool.submit(self.poll, path) for path in self.paths]
    return self

  def __exit__(self, *_):
    self.ended.set()
    for each in self.asking:
      each.result()
    self.pool.shutdown()

  def check(self):
    found = {path: np.quantile(each, 0.99) for path, each in self.seconds.items()}
    told = {path[:11]: (len(self.seconds[path]), round(float(found[path]), 3)) for path in found}
    print(told, f'{(self.peak - self.before) / 1e6:.0f} MB')
    assert max(found.values()) < PATIENT and min(map(len, self.seconds.values())) > 20
    assert self.peak - self.before < HELD


@pytest.fixture(scope='module')
def video(server):
  return server.make(model='digits/few_steps')['id']


def test_polls_are_answered_while_pictures_of_much_work_are_decoded(server, video):
  data = [bombs.body(bombs.progressive_jpeg(scans), model=PERSON) for scans in (400, 100)]
  with Polls(server, video) as polls, ThreadPoolExecutor(45) as pool:
    told = list(pool.map(lambda number: post(server, data[number % 2]), range(45)))
  polls.check()
  assert {status for status, _ in told} <= {200, 400, 503}
  assert sum(status == 503 for status, _ in told) > 0
  for status, answer in told:
    if status == 400:
      assert answer['error']['param'] == 'input_reference'
  status, answer = post(server, bombs.body(bombs.encoded('PNG'), model=PERSON))
  assert status == 200, answer


@pytest.mark.parametrize('name', bombs.PICTURES)
def test_a_picture_of_any_format_costs_little(server, name):
  began = time.monotonic()
  status, answer = post(server, bombs.body(bombs.PICTURES[name](), model=PERSON))
  assert status in (200, 400), answer
  assert time.monotonic() - began < 20


OFTEN = ('numbers', 'quoted', 'lines', 'fields')  # the others take a minute


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow)
    for name in bombs.large_bodies(0)
  ],
)
def test_polls_are_answered_while_large_bodies_arrive(server, video, name):
  kind, data = bombs.large_bodies()[name]
  with Polls(server, video) as polls, ThreadPoolExecutor(6) as pool:
    told = list(pool.map(lambda _: post(server, data, kind), range(6)))
    time.sleep(0.5)
  polls.check()
  assert {status for status, _ in told} <= {400, 413, 503}, told


def chunked(server, size, data=b'x', path='/v1/videos'):
  """Sends a body in chunks until the server hangs up; returns what it said."""
  block = (f'{size:x}\r\n'.encode() + data * size + b'\r\n') * (1 + 65_536 // (size + 5))
  head = f'POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
  with socket.create_connection(('127.0.0.1', server.port), timeout=30) as connection:
    connection.sendall(f'{head}Transfer-Encoding: chunked\r\n\r\n'.encode())
    with contextlib.suppress(OSError):
      for _ in range(2000):
        connection.sendall(block)
    with contextlib.suppress(OSError):
      return connection.recv(1000)
  return b''


@pytest.mark.parametrize('size', [1, 60_000])
def test_polls_are_answered_while_bodies_of_no_length_arrive_in_chunks(server, video, size):
  with Polls(server, video) as polls, ThreadPoolExecutor(6) as pool:
    list(pool.map(lambda _: chunked(server, size), range(6)))
    time.sleep(1)
  polls.check()


@pytest.mark.parametrize('more', [b'\0\r\n\r\n', b'x' * 20_000, b'GET / HTTP/9\r\n\r\n'])
@pytest.mark.parametrize('path', ['/v1/models', '/nothing', '/v1/videos'])
def test_what_is_no_request_may_follow_one(server, path, more):
  for method in ('GET', 'POST'):
    head = f'{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n'
    with socket.create_connection(('127.0.0.1', server.port), timeout=30) as connection:
      connection.sendall(f'{head}Content-Type: application/json\r\n\r\n{{}}'.encode() + more)
      with contextlib.suppress(ConnectionError):
        while connection.recv(1000):
          pass
  assert server.ask('GET', '/health')[0] == 200  # and its log has no traceback, see above


@pytest.mark.parametrize(
  ('path', 'most'),
  [('/v1/videos', 22_528_000), ('/v1/images/generations', 22_528_000), ('remix', 128_000)],
)
def test_each_route_has_a_limit_of_its_body(server, video, path, most):
  path = f'/v1/videos/{video}/remix' if path == 'remix' else path
  for length in (most + 1, 10**15, 10**19):
    status, answer = post(server, b'', path=path, **{'Content-Length': str(length)})
    assert (status, str(most) in answer['error']['message']) == (413, True)
  if most > 128_000:  # a form has no base64
    status, answer = post(server, b'', FORM, path, **{'Content-Length': '16128001'})
    assert (status, '16128000' in answer['error']['message']) == (413, True)
  text = b'{"prompt": "%b"}' % (b'x' * 128_001)
  status, answer = post(server, text, path=path)
  assert (status, '128000' in answer['error']['message']) == (413, True)


@pytest.mark.parametrize('more', [-1, 0, 1, 100_000])
def test_a_picture_has_16_mb_at_most_in_json_and_in_a_form(server, more):
  picture = bombs.encoded('PNG')
  picture += bytes(16_000_000 + more - len(picture))
  end = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--x\r\n'
  end += b'Content-Disposition: form-data; name="model"\r\n\r\n%b\r\n--x--' % PERSON.encode()
  file = b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="a"\r\n\r\n'
  for answer in (
    post(server, bombs.body(picture, model=PERSON)),
    post(server, file + picture + b'\r\n' + end, FORM),
  ):
    assert answer[0] == (413 if more > 0 else 200), answer
    if more > 0:
      assert f'has {16_000_000 + more} bytes; expected at most 16000000' in str(answer[1])


@pytest.mark.parametrize(
  ('data', 'said'),
  [
    (b'', 'no readable JSON'),
    (b'[' * 100_000, 'nested too deep'),
    (b'{"seed": ' + b'[' * 900 + b']' * 900 + b', "prompt": "x"}', 'seed is a list'),
    (b'{"prompt": "x", "seed": ' + b'9' * 5000 + b'}', 'no readable JSON'),
    (b'{"prompt": "x", "seed": ' + b'9' * 4000 + b'}', 'from 0 to 9223372036854775807'),
    (b'{"prompt": "x", "seed": 1, "seed": 2}', 'comes twice'),
    (b'{"prompt": "x", "guidance_scale": NaN}', 'no readable JSON'),
    (b'{"prompt": "x", "guidance_scale": 1e999}', 'from 0 to 100'),
    (b'{"prompt": "\\ud800"}', 'no readable JSON'),
    (b'\xff\xfe{', 'no readable JSON'),
    (b'"prompt"', 'no object of JSON'),
    (b'{"prompt": "x", "model": {"a": 1}}', 'model is a list or an object'),
    (b'{"prompt": "x", "upscale": 7}', 'upscale'),
    (b'{"prompt": "x", "input_reference": {"image_url": [1]}}', 'expected a file'),
    *(
      (b'{"prompt": "x", "input_reference": %b}' % given, 'input_reference is no picture; expected')
      for given in (
        *(b'[1]', b'{}', b'{"a": 1}', b'{"file_id": "file-abc"}', b'{"image_url": null}', b'0'),
        *(b'{"image_url": ""}', b'{"image_url": 0}', b'false', b'{"image_url": {"url": "x"}}'),
        b'{"image_url": "data:image/png;base64,AAAA", "file_id": "file-abc"}',
      )
    ),
  ],
)
def test_what_is_no_request_is_refused_with_the_sentence_that_belongs(server, data, said):
  for path in ('/v1/videos', '/v1/images/generations'):
    status, answer = post(server, data, path=path)
    assert (status, said in answer['error']['message']) == (400, True), answer


@pytest.mark.parametrize(
  ('kind', 'data', 'status', 'said'),
  [
    ('multipart/form-data', b'', 400, 'Missing boundary'),
    (FORM, b'--y\r\n', 400, 'Invalid multipart data'),
    (FORM, b'--x\r\n\r\nx\r\n--x--\r\n', 400, '"name" must be provided'),
    (FORM, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--x--', 400, 'unknown'),
    (
      FORM,
      b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nx\r\n--x--',
      400,
      'another field than input_reference',
    ),
    (
      FORM,
      b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n' * 2 + b'--x--',
      400,
      'comes twice',
    ),
    ('', b'{"prompt": "x"}', 415, 'expected application/json or multipart/form-data'),
    ('text/plain', b'{"prompt": "x"}', 415, "Content-Type: 'text/plain'"),
    ('application/x-www-form-urlencoded', b'prompt=x', 415, 'expected application/json'),
  ],
)
def test_a_form_or_a_type_that_cannot_be_read_is_named(server, kind, data, status, said):
  found, answer = post(server, data, kind)
  assert (found, said in answer['error']['message']) == (status, True), answer


@pytest.mark.parametrize('coding', ['gzip', 'br', 'deflate, gzip'])
def test_a_compressed_body_is_called_so(server, coding):
  sent = {'Content-Type': 'application/json', 'Content-Encoding': coding}
  status, _, answer = server.ask('POST', '/v1/videos', gzip.compress(b'{"prompt": "x"}'), sent)
  assert (status, f"Content-Encoding: '{coding}'" in answer['error']['message']) == (415, True)
  plain = b'{"prompt": "the digit 3 moves left", "seed": 3}'
  assert server.ask('POST', '/v1/videos', plain, {**sent, 'Content-Encoding': 'Identity'})[0] == 200


def test_a_remix_is_json_alone(server, video):
  status, answer = post(server, b'', FORM, f'/v1/videos/{video}/remix')
  assert (status, 'expected application/json' in answer['error']['message']) == (415, True)


def test_another_method_is_named(server):
  status, headers, answer = server.ask('PUT', '/v1/videos')
  assert (status, set(headers['allow'].split(', '))) == (405, {'GET', 'HEAD', 'POST'})
  assert 'This path takes' in answer['error']['message']


@pytest.mark.parametrize(
  'headers',
  [
    {'Host': 'evil.example'},
    {'Host': 'evil.example:8000'},
    {'Host': 'localhost.evil.example'},
    {'Host': 'localhost@evil.example'},
    {'Host': '127.0.0.1.evil.example'},
    {'Host': ''},
    {'Origin': 'http://evil.example'},
    {'Origin': 'null'},
    {'Origin': 'http://localhost:1'},
    {'Origin': ''},
    {'Host': 'evil.example', 'X-Forwarded-Host': 'localhost'},
    {'Origin': 'http://evil.example', 'X-Forwarded-Host': 'evil.example'},
  ],
)
def test_pages_of_other_sites_are_refused_where_no_token_is_asked_for(server, headers):
  requests = [('GET', '/v1/models'), ('GET', '/'), ('GET', '/metrics'), ('GET', '/health')]
  requests += [('POST', '/v1/videos'), ('POST', '/v1/images/generations'), ('GET', '/v1/videos')]
  requests += [('DELETE', '/v1/videos/video_' + '0' * 32)]
  for method, path in requests:
    body = {'prompt': 'x'} if method == 'POST' else None
    status, _, answer = server.ask(method, path, body, headers)
    assert status in (400, 403), (method, path, answer)


@pytest.mark.parametrize('host', ['localhost', 'LOCALHOST:80', '127.0.0.1:1', '[::1]', '[::1]:9'])
def test_all_names_of_this_machine_are_served(server, host):
  headers = {'Host': host, 'Origin': f'http://{host}'}
  assert server.ask('GET', '/v1/models', headers=headers)[0] == 200
  del headers['Origin']
  assert server.ask('GET', '/v1/models', headers=headers)[0] == 200


def test_pages_of_a_site_that_is_let_in_are_served(server):
  headers = {'Origin': SITE, 'Access-Control-Request-Method': 'POST'}
  headers['Access-Control-Request-Headers'] = 'content-type,idempotency-key'
  status, found, _ = server.ask('OPTIONS', '/v1/videos', headers=headers)
  assert (status, found['access-control-allow-origin']) == (200, SITE)
  status, found, _ = server.ask('GET', '/v1/models', headers={'Origin': SITE})
  assert (status, found['access-control-allow-origin']) == (200, SITE)
  headers['Origin'] = 'http://evil.example'
  status, found, _ = server.ask('OPTIONS', '/v1/videos', headers=headers)
  assert status == 400 and 'access-control-allow-origin' not in found


def test_a_range_follows_rfc_9110(server, video):
  path = f'/v1/videos/{video}/content'
  _, headers, whole = server.ask('GET', path)
  etag = headers['etag']
  for asked, found in {
    ('bytes=4-7', None): (206, b'ftyp'),
    ('bytes=4-7', etag): (206, b'ftyp'),
    ('Bytes=4-7', None): (206, b'ftyp'),
    ('BYTES=-4', None): (206, whole[-4:]),
    ('bytes=4-7', f'W/{etag}'): (200, whole),  # a weak one never fits
    ('bytes=4-7', '"other"'): (200, whole),
    ('bytes=4-7', 'Wed, 21 Oct 2015 07:28:00 GMT'): (200, whole),
    ('bytes=4-7', 'x'): (200, whole),
    ('lines=4-7', None): (200, whole),
    ('bytes=7-4', None): (200, whole),
    ('bytes=٣-', None): (200, whole),
    ('bytes=x', None): (200, whole),
    ('bytes=0-' + '9' * 400, None): (200, whole),
    ('bytes=-4', None): (206, whole[-4:]),
    ('bytes=4-', etag): (206, whole[4:]),
    ('bytes=99999999-', None): (416, b''),
  }.items():
    headers = {'Range': asked[0].encode(), **({'If-Range': asked[1]} if asked[1] else {})}
    status, _, data = server.ask('GET', path, headers=headers)
    assert (status, data) == found, asked


def test_an_idempotency_key_is_of_one_request(server):
  fields, key = {'prompt': 'the red digit 7', 'model': 'digits/few_steps'}, {'Idempotency-Key': 'k'}
  status, _, made = server.ask('POST', '/v1/videos', fields, key)
  again = server.ask('POST', '/v1/videos', dict(reversed(fields.items())), key)
  assert (status, again[0], again[2]['id']) == (200, 200, made['id'])  # without a seed, too
  for other in ({**fields, 'seed': 5}, {**fields, 'prompt': 'the blue digit 7'}):
    status, _, answer = server.ask('POST', '/v1/videos', other, key)
    assert (status, 'came with another request' in answer['error']['message']) == (409, True)
  image = {'prompt': 'the red digit 7', 'model': 'digits/few_steps'}
  assert server.ask('POST', '/v1/images/generations', image, key)[0] == 409
  picture = bombs.body(bombs.encoded('PNG'), model=PERSON)
  other = bombs.body(bombs.encoded('PNG', (41, 30)), model=PERSON)
  assert [post(server, each, **{'Idempotency-Key': 'p'})[0] for each in (picture, other)] == [
    200,
    409,
  ]


def test_the_key_of_a_deleted_video_makes_it_anew(server):
  fields, key = {'prompt': 'the red digit 7', 'model': 'digits/few_steps'}, {'Idempotency-Key': 'd'}
  ids = set()
  for _ in range(2):
    made = server.wait(server.ask('POST', '/v1/videos', fields, key)[2]['id'])
    assert server.ask('GET', f'/v1/videos/{made["id"]}/content')[0] == 200
    assert server.ask('DELETE', f'/v1/videos/{made["id"]}')[0] == 200
    ids.add(made['id'])
  assert len(ids) == 1


def test_the_key_of_a_cancelled_job_is_refused(server):
  fields = {'prompt': 'the red digit 7', 'model': 'digits/video', 'num_inference_steps': 100}
  key = {'Idempotency-Key': 'cancelled'}
  made = server.ask('POST', '/v1/videos', fields, key)[2]
  assert server.ask('DELETE', f'/v1/videos/{made["id"]}')[2]['deleted']
  status, _, answer = server.ask('POST', '/v1/videos', fields, key)
  assert (status, 'was cancelled' in answer['error']['message']) == (409, True)


@pytest.mark.parametrize(
  ('fields', 'param'),
  [
    ({'num_inference_steps': 7}, 'num_inference_steps'),
    ({'guidance_scale': 1.1}, 'guidance_scale'),
    ({'guidance_scale': 0}, 'guidance_scale'),
    ({'negative_prompt': 'blue'}, 'negative_prompt'),
    ({'negative_prompt': 'blue', 'guidance_scale': 1, 'model': 'digits/video'}, 'negative_prompt'),
    ({'prompt': 'FPS-24 the red digit 7', 'fps': 8}, 'fps'),
    ({'prompt': 'FPS-900 the red digit 7'}, 'fps'),
    ({'input_reference': 'data:image/png;base64,AAAA'}, 'input_reference'),
    ({'soundtrack': True}, 'soundtrack'),
    ({'upscale': 'digits/upsampler'}, 'upscale'),
  ],
)
def test_what_a_model_cannot_do_is_refused_at_once(server, fields, param):
  given = {'prompt': 'the red digit 7', 'model': 'digits/few_steps', **fields}
  status, _, answer = server.ask('POST', '/v1/videos', given)
  assert (status, answer['error']['param']) == (400, param), answer


def test_what_a_model_can_do_is_done(server):
  fields = {'model': 'digits/few_steps', 'num_inference_steps': 8, 'guidance_scale': 1}
  assert server.make(**fields)['status'] == 'completed'
  fields = {'model': 'digits/video', 'negative_prompt': 'blue', 'num_inference_steps': 2}
  assert server.make(**fields)['status'] == 'completed'


def test_warnings_say_what_the_model_does_not_read(server):
  fields = {'model': 'digits/few_steps', 'prompt': 'the red digit 7 ' + 'hovers aloft ' * 180}
  video = server.make(**fields)
  assert video['warnings'][0].endswith("training never showed 'hovers', 'aloft'")
  assert 'is cut after 39 bytes' in video['warnings'][1]
  words = ' '.join(f'w{chr(97 + each // 26)}{chr(97 + each % 26)}' for each in range(600))
  assert server.make(model='digits/few_steps', prompt=words)['warnings'][0].endswith('more')
  assert server.make(model='digits/few_steps')['warnings'] == []


def test_a_seed_is_drawn_or_any_of_63_bits(server):
  fields = {'model': 'digits/few_steps'}
  for seed in (2**31, 2**63 - 1, str(2**63 - 1)):
    assert server.make(**fields, seed=seed)['seed'] == int(seed)
  drawn = {server.make(**fields, seed=seed)['seed'] for seed in (-1, '-1', None, '')}
  assert len(drawn) == 4 and all(0 <= seed < 2**31 for seed in drawn)
  status, _, answer = server.ask('POST', '/v1/videos', {'prompt': 'x', 'seed': 2**63})
  assert (status, answer['error']['param']) == (400, 'seed')


def test_width_and_height_are_a_size_and_a_model_has_a_page(server):
  video = server.make(model='digits/few_steps', width=32, height='32')
  assert video['size'] == '32x32'
  status, _, model = server.ask('GET', '/v1/models/digits/few_steps')
  assert (status, model['id'], model['datasets']) == (200, 'digits/few_steps', ['digits'])
  assert server.ask('GET', '/v1/models/digits%2Ffew_steps')[2] == model
  assert 'seven' not in model['words'] and 'bounces' in model['words']
  assert server.ask('GET', '/v1/models/digits')[0] == 404


def test_the_rate_is_spent_before_any_work(tmp_path):
  server = Server(tmp_path / 'out', '--limits=rate=5,batch=1').start()
  try:
    told = [post(server, b'x' * 100_000)[0] for _ in range(7)]
    assert told == [400] * 5 + [429] * 2
  finally:
    server.end(signal.SIGKILL)


def test_no_error_tells_where_things_lie(tmp_path):
  place = tmp_path / 'of the server' / 'model'
  shutil.copytree(pathlib.Path('mgjax/weights/digits/few_steps'), place)
  server = Server(tmp_path / 'out', model=str(place)).start()
  try:
    models = server.ask('GET', '/v1/models')[2]['data']
    assert [each['id'] for each in models] == ['model']
    video = server.make(model='model')
    shutil.rmtree(tmp_path / 'out' / video['id'])
    told = [
      server.ask('POST', '/v1/videos', {'prompt': 'x', 'model': str(place)})[2],
      server.ask('GET', f'/v1/videos/{video["id"]}/content')[2],
      server.ask('GET', f'/v1/videos/{video["id"]}')[2],
      server.ask('GET', '/nothing')[2],
      models,
    ]
    assert '"/' not in json.dumps(told[1:]) and 'of the server' not in json.dumps(told[1:])
  finally:
    server.end(signal.SIGKILL)


def test_a_store_has_one_owner(tmp_path):
  database = tmp_path / 'jobs.sqlite'
  one = two = Server(tmp_path / 'a', f'--database=sqlite:///{database}').start()
  (tmp_path / 'link').symlink_to(database)
  try:
    for name in (database, tmp_path / 'link', tmp_path / 'a' / '..' / 'jobs.sqlite'):
      two = Server(tmp_path / 'two' / 'b', f'--database=sqlite:///{name}')
      two.log.parent.mkdir(exist_ok=True)
      two.start(wait=False)
      assert two.process.wait(100) == 2
      assert 'is in use by process' in two.log.read_text().splitlines()[-1]
      two.log.unlink()
    video = one.make()
    assert one.ask('GET', f'/v1/videos/{video["id"]}/content')[0] == 200
    one.end(signal.SIGKILL)
    two = Server(tmp_path / 'a', f'--database=sqlite:///{database}').start()  # as the dead one was
    assert two.ask('GET', f'/v1/videos/{video["id"]}')[2] == video
    assert two.end() == 0
  finally:
    for each in (one, two):
      each.end(signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of some videos: a database and 30 of them are 1.2 MB."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', folder]
  if os.getuid() or subprocess.run(command, capture_output=True).returncode:
    pytest.skip('needs to mount a tmpfs')
  yield folder
  subprocess.run(['umount', '-l', folder], check=True)


def test_jobs_end_on_a_full_disk_and_deletes_make_room(small_disk):
  server = Server(
    small_disk / 'out', '--limits=rate=6000,queue=200,batch=4', model='digits/few_steps'
  )
  server.log = small_disk.parent / 'log'
  server.start()
  filler = small_disk / 'filler'
  try:

    def send(seed):
      return server.ask('POST', '/v1/videos', {'prompt': 'the red digit 7', 'seed': seed})

    def send_all(count):
      with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(send, range(count)))
      assert {status for status, _, _ in told} <= {200, 507}
      return [answer['id'] for status, _, answer in told if status == 200]

    ids = send_all(70)  # they fill the disk
    ended = [server.wait(id) for id in ids]
    assert {each['status'] for each in ended} == {'completed', 'failed'}
    assert send(100)[0] == 507
    assert {server.ask('DELETE', f'/v1/videos/{id}')[0] for id in ids} == {200}
    ids = send_all(25)
    with contextlib.suppress(OSError):  # while jobs are made, somebody else fills what is left
      filler.write_bytes(bytes(4_000_000))
    status, _, answer = send(100)
    assert (status, 'disk of this server is full' in answer['error']['message']) == (507, True)

    def states():
      found = [server.ask('GET', f'/v1/videos/{id}')[2] for id in ids]
      return [each.get('status', 'deleted') for each in found]

    wait_for(lambda: 'in_progress' not in states(), seconds=60)  # though nothing can be written
    assert server.ask('DELETE', f'/v1/videos/{ids[0]}')[0] in (200, 507)
    filler.unlink(missing_ok=True)
    ended = [server.wait(id) for id in ids[1:]]
    assert {each['status'] for each in ended} <= {'completed', 'failed'}
    for each in ended:
      if each['error']:
        assert 'disk of this server is full' in each['error']['message']
      else:
        assert server.ask('GET', f'/v1/videos/{each["id"]}/content')[0] == 200
    for id in ids:
      assert server.ask('DELETE', f'/v1/videos/{id}')[0] in (200, 404)
    wait_for(lambda: server.make()['status'] == 'completed', seconds=30)
    assert 'Traceback' not in server.log.read_text()
    assert server.end() == 0
    server.start()  # what it notes at the end is what it finds
    listed = server.ask('GET', '/v1/videos')[2]['data']
    assert {each['status'] for each in listed} == {'completed'}
  finally:
    server.end(signal.SIGKILL)
