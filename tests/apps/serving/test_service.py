"""What /v1/videos answers: OpenAI's client, batches, previews, cancels, and hostile clients."""

import base64
import contextlib
import io
import json
import socket
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import mgjax
from mgjax.apps.serving.videos.schema import (
  BESIDE,
  ApiError,
  Limits,
  Offer,
  find_other,
  mismatch,
  parse_job,
  public,
)
from mgjax.apps.serving.videos.server import Access, Storage, serve_videos
from mgjax.core.errors import ConfigError
from mgjax.data.media.video import read_clip
from tests.apps.serving.tiny_service import Server
from tests.waiting import wait_for

for package in ('dbos', 'prometheus_client', 'python_multipart'):
  pytest.importorskip(package, reason='needs the extra serve')
TOKEN = 'a token of the tests'
MODELS = 'digits/video,digits/few_steps,digits/editing,digits/personalization'


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  folder = tmp_path_factory.mktemp('service')
  (folder / 'tokens.txt').write_text(f'another token, unused\n{TOKEN}\n')
  flags = ['--limits=rate=6000,queue=40,batch=2,days=0.002', f'--token_file={folder}/tokens.txt']
  server = Server(folder / 'out', *flags, model=MODELS, token=TOKEN).start()
  yield server
  assert server.end() == 0
  assert not (folder / 'out' / 'mgjax.lock').exists()


@pytest.fixture(scope='module')
def client(server):
  openai = pytest.importorskip('openai')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)
    yield openai.OpenAI(base_url=f'{server.url}/v1', api_key=TOKEN)


def png(size=(40, 30), kind='PNG'):
  buffer = io.BytesIO()
  Image.new('RGB', size, 'red').save(buffer, kind)
  return buffer.getvalue()


def test_the_client_of_openai_makes_lists_downloads_remixes_and_deletes(server, client):
  made = client.videos.create_and_poll(
    prompt='the red digit 7 bounces',
    model='digits/few_steps',
    seconds='2',
    size='32x32',
    poll_interval_ms=50,
  )
  assert (made.status, made.progress, made.seconds, made.size) == ('completed', 100, '2', '32x32')
  data = client.videos.download_content(made.id).read()
  assert data[4:8] == b'ftyp'
  assert client.videos.download_content(made.id, variant='thumbnail').read()[8:12] == b'WEBP'
  assert client.videos.download_content(made.id, variant='spritesheet').read()[:2] == b'\xff\xd8'
  edit = client.videos.remix(made.id, prompt='make the digit blue')
  assert server.wait(edit.id)['remixed_from_video_id'] == made.id
  picture = client.videos.create(
    prompt='the digit moves left',
    model='digits/personalization',
    input_reference=('../../x.png', png(), 'image/png'),
  )
  assert server.wait(picture.id)['status'] == 'completed'
  ids = [each.id for each in client.videos.list(limit=2)]  # in pages
  assert ids[:3] == [picture.id, edit.id, made.id]
  assert client.videos.delete(made.id).deleted
  with pytest.raises(Exception, match='no video of this id'):
    client.videos.retrieve(made.id)
  assert (
    len(client.images.generate(prompt='the red digit 7', model='digits/few_steps', n=2).data) == 2
  )
  assert 'digits/few_steps' in [each.id for each in client.models.list()]


def test_a_video_is_that_of_the_pipeline_whatever_is_in_its_batch(server):
  fields = {'model': 'digits/few_steps', 'prompt': 'the green digit 3 moves left'}
  with ThreadPoolExecutor(6) as pool:
    made = list(pool.map(lambda seed: server.make(**fields, seed=seed), range(6)))
  made += [server.make(**fields, seed=3), server.make(**fields, seed=3)]
  out = server.log.parent / 'out'
  shared, alone, again = (out / made[number]['id'] for number in (3, 6, 7))
  pixels = [json.loads((each / 'job.json').read_text())['pixels'] for each in (alone, again)]
  assert pixels[0] == pixels[1]
  wanted = mgjax.load('digits/few_steps').generate([fields['prompt']], seed=3)[0].astype(int)
  seen = [
    read_clip(each / 'video.mp4', frames=16, size=(32, 32), fps=8.0) for each in (alone, shared)
  ]
  assert np.abs(seen[0] - wanted).mean() < 4  # of the codec
  # A program for four rows rounds other than one for a single row on some processors: less than a
  # level, of which the codec makes a little more.
  assert np.abs(seen[0].astype(int) - seen[1]).mean() < 0.5


def test_progress_previews_and_a_cancel_follow_the_steps(server):
  fields = {'prompt': 'the red digit 7', 'model': 'digits/video', 'num_inference_steps': 100}
  _, _, video = server.ask('POST', '/v1/videos', fields)
  _, headers, text = server.ask('GET', f'/v1/videos/{video["id"]}/events')
  assert headers['content-type'].startswith('text/event-stream')
  told = [json.loads(each.partition(b'data: ')[2]) for each in text.split(b'\n\n') if each]
  progress = [each['progress'] for each in told]
  assert progress == sorted(progress) and len(set(progress)) > 3 and progress[-1] == 100
  assert told[-1]['status'] == 'completed'
  shown = next(each['preview'] for each in told if each['preview'])
  assert Image.open(io.BytesIO(base64.b64decode(shown))).n_frames == 4
  _, _, video = server.ask('POST', '/v1/videos', fields)
  while server.ask('GET', f'/v1/videos/{video["id"]}')[2]['progress'] == 0:
    time.sleep(0.01)
  assert server.ask('GET', f'/v1/videos/{video["id"]}/preview')[0] == 200
  assert server.ask('DELETE', f'/v1/videos/{video["id"]}')[2]['deleted']
  assert server.ask('GET', f'/v1/videos/{video["id"]}')[0] == 404
  wait_for(lambda: b'num_running_reqs 0.0' in server.ask('GET', '/metrics')[2], seconds=20)
  assert not (server.log.parent / 'out' / video['id']).exists()


def test_prometheus_reads_the_metrics_and_finds_no_prompt_and_no_id(server):
  from prometheus_client.parser import text_string_to_metric_families

  video = server.make(prompt='the secret digit 8', model='digits/few_steps')
  text = server.ask('GET', '/metrics')[2].decode()
  found = {each.name: each for each in text_string_to_metric_families(text)}
  assert {
    'mgjax:diffusion_num_queue_reqs',
    'mgjax:diffusion_num_running_reqs',
    'mgjax:diffusion_requests',
    'mgjax:diffusion_request_latency_seconds',
    'mgjax:diffusion_queue_time_seconds',
    'mgjax:diffusion_generation_batch_size',
    'mgjax:diffusion_stage_host_latency_seconds',
    'video_generation_duration_seconds',
    'video_step_duration_seconds',
    'video_realtime_factor',
    'video_output_bytes',
  } <= set(found)
  assert 'secret' not in text and video['id'] not in text
  assert 'secret' not in server.log.read_text() and video['id'] not in server.log.read_text()


def test_the_same_key_is_the_same_job(server):
  fields = {'prompt': 'the red digit 7', 'model': 'digits/few_steps', 'seed': 1}

  def send(_):
    return server.ask('POST', '/v1/videos', fields, {'Idempotency-Key': 'a'})[2]['id']

  with ThreadPoolExecutor(8) as pool:
    (id,) = set(pool.map(send, range(16)))
  assert server.wait(id)['status'] == 'completed' and send(0) == id


def test_what_is_made_expires(server):
  video = server.make(prompt='the red digit 7', model='digits/few_steps')
  assert 170 <= video['expires_at'] - video['completed_at'] <= 173


OFFERS = {
  'a': Offer('a', 'video', ((16, 32, 64), (8, 32, 64), (1, 32, 32)), 8.0, 4, '', ('style',)),
  'u': Offer('u', 'upsampler'),
}
EVIL = '../../../../tmp/evil'


@pytest.mark.parametrize(
  ('fields', 'param'),
  [
    ({}, 'prompt'),
    ({'prompt': 7}, 'prompt'),
    ({'prompt': '\x00\x1b\u202e'}, 'prompt'),
    ({'prompt': 'x' * 1_000_000}, 'prompt'),
    ({'model': EVIL}, 'model'),
    ({'model': 'u'}, 'model'),
    ({'size': EVIL}, 'size'),
    ({'size': '32x64'}, 'size'),
    ({'size': ['64x32']}, 'size'),
    ({'seconds': 'nan'}, 'seconds'),
    ({'seconds': '1e999'}, 'seconds'),
    ({'seconds': 4}, 'seconds'),
    ({'seconds': EVIL}, 'seconds'),
    ({'num_frames': 9}, 'num_frames'),
    ({'num_frames': True}, 'num_frames'),
    ({'fps': 0}, 'fps'),
    ({'seed': -2}, 'seed'),
    ({'seed': 2**63}, 'seed'),
    ({'width': 64}, 'height'),
    ({'width': 64, 'height': 64}, 'width'),
    ({'width': 64, 'height': 32, 'size': '32x32'}, 'size'),
    ({'prompt': 'FPS-24 x', 'fps': 8}, 'fps'),
    ({'lora': [[]]}, 'lora'),
    ({'seed': 1.5}, 'seed'),
    ({'seed': 10**40}, 'seed'),
    ({'seed': {}}, 'seed'),
    ({'num_inference_steps': 101}, 'num_inference_steps'),
    ({'guidance_scale': float('inf')}, 'guidance_scale'),
    ({'lora': EVIL}, 'lora'),
    ({'soundtrack': True}, 'soundtrack'),
    ({'upscale': EVIL}, 'upscale'),
    ({'input_reference': True}, 'input_reference'),
    ({EVIL: 1}, EVIL),
    ({'negative_prompt': 7}, 'negative_prompt'),
    *(({name: 0}, name) for name in ('model', 'lora', 'negative_prompt', 'size')),
    *(
      ({name: False}, name)
      for name in ('model', 'lora', 'negative_prompt', 'size', 'seed', 'seconds', 'fps')
    ),
    *(({name: value}, name) for name in ('soundtrack', 'upscale') for value in (0, 0.0, 1)),
    *(
      ({name: value}, name)
      for name in ('seed', 'num_inference_steps', 'guidance_scale', 'seconds', 'width')
      for value in ('1_0', '\u0661', ' 1', '1\n', '0x1', '1' * 5000)
    ),
    ({'negative_prompt': 'a\x07b'}, 'negative_prompt'),
    ({'seconds': 1, 'num_frames': 16}, 'seconds'),
  ],
)
def test_a_wrong_field_is_named_and_what_to_do(fields, param):
  with pytest.raises(ApiError) as caught:
    parse_job({} if not fields else {'prompt': 'x', **fields}, OFFERS, Limits())
  assert caught.value.param == param and len(str(caught.value)) < 400


@pytest.mark.parametrize('value', [0, False, 'url'])
def test_a_picture_in_another_form_is_refused(value):
  with pytest.raises(ApiError) as caught:
    parse_job({'prompt': 'x', 'response_format': value}, OFFERS, Limits(), image=True)
  assert caught.value.param == 'response_format'


def test_a_job_has_what_was_asked_for():
  fields = {'prompt': ' a\t b ', 'seconds': '1', 'size': '64x32', 'upscale': 'true', 'seed': '3'}
  job = parse_job({**fields, 'lora': 'style', 'guidance_scale': 2}, OFFERS, Limits())
  assert (job['prompt'], job['frames'], job['height'], job['width']) == ('a b', 8, 32, 64)
  assert (job['upscale'], job['seed'], job['lora'], job['guidance']) == ('u', 3, 'style', 2)


@pytest.mark.parametrize('blank', ['', ' ', '\t\n  ', None])
def test_a_negative_prompt_of_blanks_is_none(blank):
  job = parse_job({'prompt': 'x', 'negative_prompt': blank}, OFFERS, Limits())
  assert job['negative'] == ''


def bomb(side):
  def chunk(name, data):
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

  rows = zlib.compressobj(9)
  data = b''.join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
  header = side.to_bytes(4) + side.to_bytes(4) + b'\x08\x00\x00\x00\x00'
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


@pytest.mark.parametrize(
  'picture',
  [
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    b'',
    b'GIF89a',
    b'<html><script>alert(1)</script></html>',
    png()[:60],
    png()[:40],
    bomb(12_000),
    b'\x89PNG\r\n\x1a\n' + bytes(1000),
  ],
  ids=['svg', 'empty', 'gif', 'html', 'cut', 'header', 'bomb', 'zeros'],
)
def test_what_is_no_picture_is_refused(server, picture):
  url = 'data:image/png;base64,' + base64.b64encode(picture).decode()
  fields = {'prompt': 'x', 'model': 'digits/personalization', 'input_reference': {'image_url': url}}
  status, _, told = server.ask('POST', '/v1/videos', fields)
  assert (status, told['error']['param']) == (400, 'input_reference'), told
  fields['input_reference'] = 'http://127.0.0.1/x.png'  # nothing is fetched for anybody
  assert server.ask('POST', '/v1/videos', fields)[0] == 400


@pytest.mark.parametrize('length', [True, False])
def test_a_body_of_a_gigabyte_is_cut(server, length):
  before, sent = server.memory(), 0
  head = f'Content-Length: {10**9}' if length else 'Transfer-Encoding: chunked'
  with socket.create_connection(('127.0.0.1', server.port), timeout=20) as connection:
    kind = 'Content-Type: application/json'
    head = f'Host: x\r\nAuthorization: Bearer {TOKEN}\r\n{kind}\r\n{head}\r\n\r\n'
    connection.sendall(f'POST /v1/videos HTTP/1.1\r\n{head}'.encode())
    with contextlib.suppress(OSError):
      while sent < 10**9:
        block = bytes(65_536)
        connection.sendall(block if length else b'10000\r\n' + block + b'\r\n')
        sent += len(block)
    assert sent < 2e8
  assert server.memory() - before < 3e8
  assert server.ask('GET', '/v1/models')[0] == 200


@pytest.mark.parametrize(
  'path',
  [
    '/v1/videos/' + '../' * 8 + 'etc/passwd',
    '/v1/videos/..%2f..%2fetc%2fpasswd',
    '/v1/videos/video_',
    '/v1/videos/video_' + 'g' * 32,
    '/v1/videos/VIDEO_' + '0' * 32,
    '/v1/videos/' + 'a' * 9000,
    '/v1/videos/jobs.sqlite/content',
    '/v1/videos/video_' + '0' * 32 + '/content?variant=' + EVIL,
    '/v1/videos?after=' + EVIL,
    '/v1/videos?limit=-1',
    '/v1/videos?limit=999',
    '/v1/videos?order=x',
    '/../page.html',
    '/v1/videos/image_' + '0' * 32,
  ],
)
def test_paths_and_forged_ids_lead_nowhere(server, path):
  status, _, told = server.ask('GET', path)
  assert status in (400, 404) and 'root:' not in str(told)


def test_one_range_is_answered_and_a_thousand_are_not(server):
  video = server.make(prompt='the red digit 7', model='digits/few_steps')
  path = f'/v1/videos/{video["id"]}/content'
  status, headers, data = server.ask('GET', path, headers={'Range': 'bytes=4-7'})
  assert (status, data) == (206, b'ftyp') and headers['content-range'].startswith('bytes 4-7/')
  many = 'bytes=' + ','.join(f'{each}-{each}' for each in range(1000))
  status, _, whole = server.ask('GET', path, headers={'Range': many})
  assert status == 200 and whole[4:8] == b'ftyp'


def test_guesses_of_tokens_end_and_others_are_served(server):
  def guess(number):
    return server.ask('GET', '/v1/videos', headers={'Authorization': f'Bearer {number:020}'})[0]

  with ThreadPoolExecutor(8) as pool:
    told = list(pool.map(guess, range(60)))
  assert set(told) == {401, 429} and told.count(401) <= 32
  assert server.ask('GET', '/v1/videos')[0] == 200


def test_a_full_queue_says_when_to_come_back(server):
  fields = {'prompt': 'the red digit 7', 'num_inference_steps': 100}
  with ThreadPoolExecutor(16) as pool:
    told = list(pool.map(lambda _: server.ask('POST', '/v1/videos', fields), range(120)))
  made = [video['id'] for status, _, video in told if status == 200]
  refused = [headers for status, headers, _ in told if status == 429]
  assert len(made) + len(refused) == 120 and len(refused) >= 60
  assert all(int(headers['retry-after']) >= 1 for headers in refused)
  with ThreadPoolExecutor(8) as pool:
    assert {server.ask('DELETE', f'/v1/videos/{id}')[0] for id in made} <= {200, 404}
  assert server.make(prompt='the red digit 7', model='digits/few_steps')['status'] == 'completed'


def test_slow_and_many_connections_leave_room(server):
  before, waiting = server.memory(), []
  for number in range(1000):
    waiting.append(socket.create_connection(('127.0.0.1', server.port), timeout=30))
    if number % 2:
      waiting[-1].sendall(b'POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX: ')
  began = time.monotonic()
  assert server.make(prompt='the red digit 7', model='digits/few_steps')['status'] == 'completed'
  assert server.ask('GET', '/health')[0] == 200
  for each in waiting:
    with each, contextlib.suppress(OSError):
      assert each.recv(10) == b''  # hung up, without having arrived in ten seconds
  assert time.monotonic() - began < 40
  assert server.memory() - before < 3e8


@pytest.mark.parametrize(
  ('given', 'said'),
  [
    ({'names': ['digits/codec']}, 'expected one of video'),
    ({'names': ['digits/audio']}, 'none of them makes videos'),
    ({'names': ['digits/video'], 'access': Access(host='0.0.0.0')}, 'lets everybody in'),
    ({'names': ['digits/video'], 'access': Access(token_file='/nowhere')}, 'token_file'),
    ({'names': ['digits/video'], 'storage': Storage('memory://x')}, 'is no folder'),
    ({'names': ['digits/video'], 'storage': Storage('nothing://x')}, 'give a folder'),
    ({'names': ['digits/video'], 'storage': Storage(worker=EVIL)}, 'expected letters'),
    (
      {'names': ['digits/video'], 'storage': Storage(database='postgresql://x@127.0.0.1:1/x')},
      '--database',
    ),
  ],
)
def test_what_cannot_be_served_is_said_at_once(given, said, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match=said):
    serve_videos(**given)


def test_models_are_paired_by_what_they_were_trained_on():
  from mgjax.apps.serving.videos.models import Models  # which needs the extra

  names = ['few_steps', 'upsampler', 'audio', 'editing']
  sizes = {'digits': (32, 32), 'solids': (64, 64)}
  places = [f'{world}/{name}' for name in names for world in sizes]
  offers = Models(places, {}, Limits()).offers
  for world, size in sizes.items():
    maker = offers[f'{world}/few_steps']
    for component in BESIDE:
      assert find_other(component, offers, maker, size).name.startswith(world)
  solids = offers['solids/few_steps']
  for name in ('digits/audio', 'digits/upsampler', 'digits/editing'):
    with pytest.raises(ApiError, match='was trained on digits, solids/few_steps on solids'):
      find_other(offers[name].component, offers, solids, (64, 64), name)
  digits = {name: each for name, each in offers.items() if name.startswith('digits')}
  with pytest.raises(ApiError, match='serve one of the same') as caught:
    find_other('editing', digits, solids, (64, 64))
  assert caught.value.param == 'remix'


@pytest.mark.parametrize(
  ('component', 'size', 'fits'),
  [
    ('editing', (32, 32), True),
    ('editing', (64, 64), False),
    ('upsampler', (16, 16), True),  # which it makes 32x32
    ('upsampler', (64, 64), True),
    ('upsampler', (8, 16), False),
    ('audio', (64, 64), True),
  ],
)
def test_models_are_paired_by_size(component, size, fits):
  shapes = () if component == 'audio' else ((16, 32, 32),)
  other = Offer('o', component, shapes, datasets=('clips',))
  maker = Offer('a', 'video', ((16, *size),), datasets=('clips',))
  assert (mismatch(maker, other, size) == '') == fits


@pytest.mark.parametrize(
  ('said', 'told'),
  [
    ("'/srv/my runs/x/config.json' cannot be read", "'config.json' cannot be read"),
    ('/home/a/x.safetensors: 3 tensors; see /tmp/b', 'x.safetensors: 3 tensors; see b'),
    ("[Errno 2] No such file or directory: '/srv/out/video.mp4'", "directory: 'video.mp4'"),
    ('--lora=style=/data/style.safetensors:0.8: expected', '--lora=style=style.safetensors:0.8'),
    ("file:///srv/models/a is gone, and 'file:///srv/b c/d'", "a is gone, and 'd'"),
    ('a' * 300 + '; expected /tmp/b', 'a; expected b'),
    ('7 steps/second of digits/few_steps; 1/2 of it', '7 steps/second of digits/few_steps; 1/2'),
  ],
)
def test_an_error_loses_the_folders_of_this_machine(said, told):
  assert told in public(ConfigError(said))
