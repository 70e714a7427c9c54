"""What the service answers to requests that are easily got wrong: each is done, or refused."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from mgjax.apps.serving.videos.results import Results
from mgjax.apps.serving.videos.schema import Limits
from mgjax.core.errors import ConfigError
from mgjax.data.media.faces.pictures import read_picture
from tests.apps.serving import bombs
from tests.apps.serving.browser import EXECUTABLE, browser
from tests.apps.serving.tiny_service import Server

for package in ('dbos', 'prometheus_client', 'python_multipart'):
  pytest.importorskip(package, reason='needs the extra serve')
MODELS = 'digits/few_steps,digits/personalization,digits/editing,digits/upsampler,digits/audio'
PERSON, MAKER = 'digits/personalization', 'digits/few_steps'
PROMPT = {'prompt': 'the red digit 7', 'model': MAKER}


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  folder = tmp_path_factory.mktemp('answers')
  down, up = (np.zeros(shape, np.float32) for shape in ((2, 256), (128, 2)))
  layer = 'base_model.model.step_size.into'  # which only models of few steps have
  adapters = {f'{layer}.lora_A.weight': down, f'{layer}.lora_B.weight': up}
  save_file(adapters, folder / 'style.safetensors')
  flags = ['--limits=rate=6000,batch=1', f'--lora=style={folder}/style.safetensors:0.8']
  server = Server(folder / 'out', *flags, model=MODELS).start()
  yield server
  said = server.log.read_text()
  assert server.end() == 0
  assert 'Traceback' not in said


def refused(server, fields, path='/v1/videos', kind='application/json'):
  """Status, field and sentence of a refusal."""
  body = fields if isinstance(fields, bytes) else json.dumps({**PROMPT, **fields}).encode()
  status, _, answer = server.ask('POST', path, body, {'Content-Type': kind})
  assert status != 200, answer
  return status, answer['error']['param'], answer['error']['message']


def post(server, body, kind='application/json'):
  status, _, video = server.ask('POST', '/v1/videos', body, {'Content-Type': kind})
  assert status == 200, video
  return server.wait(video['id'])


def test_a_picture_of_16_bits_is_read_as_the_command_line_reads_it(server, tmp_path):
  values = np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40)
  Image.fromarray(values).save(tmp_path / 'wide.png')
  video = post(server, bombs.body((tmp_path / 'wide.png').read_bytes(), model=PERSON))
  kept = np.asarray(Image.open(server.log.parent / 'out' / video['id'] / 'input.png'))
  assert np.array_equal(kept, read_picture(tmp_path / 'wide.png'))
  assert video['status'] == 'completed' and kept.min() == 0 and kept.max() == 255


def transparent(mode, hidden):
  """A dark bar over pixels that are transparent and of some grey, as a PNG; and the bar."""
  bar = np.zeros((30, 40), np.uint8)
  bar[5:25, 12:18] = 1
  options = {}
  if mode == 'P':
    picture = Image.fromarray(bar)
    picture.putpalette([*[hidden] * 3, *[50] * 3])
    options['transparency'] = 0
  else:
    picture = Image.fromarray(np.where(bar, 50, hidden).astype(np.uint8)).convert(mode)
    picture.putalpha(Image.fromarray(255 * bar))
  picture.save(buffer := io.BytesIO(), 'PNG', **options)
  return buffer.getvalue(), bar


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_pixels_are_white_whatever_colour_they_hide(server, mode):
  for hidden in (0, 128, 255):
    data, bar = transparent(mode, hidden)
    video = post(server, bombs.body(data, model=PERSON))
    kept = np.asarray(Image.open(server.log.parent / 'out' / video['id'] / 'input.png'))
    assert np.array_equal(kept, np.where(bar, 50, 255)[..., None].repeat(3, -1))


def test_a_form_may_begin_with_a_preamble(server):
  for preamble in (b'a preamble\r\n', b'--y\r\nwith --x in a line\r\n', b'\r\n'):
    assert post(server, preamble + form() + b'and an epilogue', FORM)['status'] == 'completed'


def test_a_picture_with_much_text_is_refused_for_its_text(server):
  status, param, said = refused(server, json.loads(bombs.body(bombs.text_bomb(), model=PERSON)))
  assert (status, param, 'too much text' in said) == (400, 'input_reference', True)


FRAME = {**PROMPT, 'num_frames': 1}


def test_a_video_of_one_frame_is_a_picture(server):
  video = server.make(**FRAME)
  status, headers, data = server.ask('GET', f'/v1/videos/{video["id"]}/content')
  assert (status, headers['content-type'], video['num_frames']) == (200, 'image/png', 1)
  assert Image.open(io.BytesIO(data)).size == (32, 32)
  for variant in ('thumbnail', 'spritesheet'):
    assert server.ask('GET', f'/v1/videos/{video["id"]}/content?variant={variant}')[0] == 200
  status, headers, data = server.ask(
    'GET', f'/v1/videos/{server.make(**FRAME, upscale=True)["id"]}/content'
  )
  assert (status, Image.open(io.BytesIO(data)).size) == (200, (64, 64))
  status, param, said = refused(server, {**FRAME, 'soundtrack': True})
  assert (status, param, 'one frame has no sound' in said) == (400, 'soundtrack', True)


@pytest.mark.skipif(EXECUTABLE is None, reason='no chromium is installed; apt install chromium')
def test_the_page_shows_a_picture_and_a_video(server):
  names = [f'{server.make(**FRAME)["id"]}.png', f'{server.make(**PROMPT)["id"]}.mp4']
  with browser() as opened:
    page = opened.open(server.url)
    picture, video = (f'document.querySelector(\'a[download="{name}"]\')' for name in names)
    assert page.wait(f"{picture}?.closest('li').querySelector('img').naturalWidth") == 32
    assert page.wait(f"{video}?.closest('li').querySelector('video').videoWidth") == 32
    told = [page.evaluate(f"{each}.closest('li').innerText") for each in (picture, video)]
    assert ['Edit' in each for each in told] == [False, True]


def test_what_cannot_be_remixed_is_refused_at_once(server):
  edit = json.dumps({'prompt': 'make it blue'}).encode()
  path = f'/v1/videos/{server.make(**FRAME)["id"]}/remix'
  status, param, said = refused(server, edit, path)
  assert (status, param, 'edits no videos of 1 frames' in said) == (400, 'video_id', True)
  gone = server.make(**PROMPT)['id']
  shutil.rmtree(server.log.parent / 'out' / gone)
  status, param, said = refused(server, edit, f'/v1/videos/{gone}/remix')
  assert (status, param, 'is gone' in said) == (409, 'video_id', True)


def test_the_content_of_a_failed_job_says_why_it_will_not_come(server):
  video = post(server, bombs.body(bombs.png_bomb(16), model=PERSON))
  assert (video['status'], 'is all black' in video['error']['message']) == ('failed', True)
  status, _, answer = server.ask('GET', f'/v1/videos/{video["id"]}/content')
  said = answer['error']['message']
  assert (status, 'failed' in said, 'wait' in said) == (400, True, False)
  assert video['error']['message'] in said


def test_adapters_are_offered_with_the_models_that_they_fit(server):
  models = server.ask('GET', '/v1/models')[2]['data']
  assert {each['id']: each['loras'] for each in models if each['loras']} == {MAKER: ['style']}
  for path in ('/v1/videos', '/v1/images/generations'):
    status, param, _ = refused(server, {'model': PERSON, 'lora': 'style'}, path)
    assert (status, param) == (400, 'lora')
  assert server.make(**PROMPT, lora='style')['status'] == 'completed'


@pytest.mark.parametrize(
  ('fields', 'param'),
  [
    ({'num_frames': 1}, 'num_frames'),
    ({'seconds': 2}, 'seconds'),
    ({'fps': 8}, 'fps'),
    ({'soundtrack': True}, 'soundtrack'),
    ({'style': 'vivid'}, 'style'),
    ({'output_format': 'webp'}, 'output_format'),
    ({'quality': 'hd'}, 'quality'),
    ({'nothing': 1}, 'nothing'),
  ],
)
def test_a_picture_ignores_no_field(server, fields, param):
  status, found, said = refused(server, fields, '/v1/images/generations')
  assert (status, found, param in said) == (400, param, True)


def test_a_picture_may_be_asked_for_as_png(server):
  fields = {**PROMPT, 'output_format': 'png', 'quality': 'auto', 'user': 'a'}
  status, _, made = server.ask('POST', '/v1/images/generations', fields)
  assert (status, len(made['data'])) == (200, 1)


@pytest.mark.parametrize(
  ('fields', 'param', 'words'),
  [
    ({'seconds': 1, 'num_frames': 16}, 'seconds', 'is not 16 frames'),
    ({'prompt': 3}, 'prompt', 'expected text, given 3'),
    ({'negative_prompt': True}, 'negative_prompt', 'expected text, given True'),
    ({'prompt': 'a\0b'}, 'prompt', "control character '\\x00'"),
    ({'negative_prompt': '\x1b[1m'}, 'negative_prompt', "control character '\\x1b'"),
    ({'model': 'digits/editing'}, 'model', 'it serves remix'),
    ({'model': 'digits/audio'}, 'model', 'it serves soundtrack'),
  ],
)
def test_a_refusal_says_what_was_expected(server, fields, param, words):
  status, found, said = refused(server, fields)
  assert (status, found, words in said) == (400, param, True), said


def test_seconds_and_frames_that_agree_are_taken(server):
  assert server.make(**PROMPT, seconds='2', num_frames=16)['num_frames'] == 16


@pytest.mark.parametrize(
  ('path', 'methods'),
  [
    ('/v1/videos', {'GET', 'HEAD', 'POST'}),
    ('/v1/videos/video_' + '0' * 32, {'GET', 'HEAD', 'DELETE'}),
    ('/v1/images/generations', {'POST'}),
  ],
)
def test_all_methods_of_a_path_are_listed(server, path, methods):
  status, headers, answer = server.ask('PATCH', path)
  assert (status, set(headers['allow'].split(', '))) == (405, methods)
  assert all(each in answer['error']['message'] for each in methods)


FORM = 'multipart/form-data; boundary=x'


def form(end=b'--x--\r\n', **fields) -> bytes:
  """A form of text."""
  head = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
  given = {**PROMPT, **fields}.items()
  values = [(name, value if isinstance(value, bytes) else value.encode()) for name, value in given]
  return b''.join(head % (name.encode(), value) for name, value in values) + end


@pytest.mark.parametrize('switch', ['False', 'false', '0', ''])
def test_a_form_switches_off_as_clients_of_python_write_it(server, switch):
  video = post(server, form(soundtrack=switch, upscale=switch), FORM)
  assert (video['status'], video['size']) == ('completed', '32x32')


def test_a_form_switches_on_as_clients_of_python_write_it(server):
  assert post(server, form(upscale='True'), FORM)['size'] == '64x64'


def test_an_input_without_a_file_is_not_given(server):
  part = b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="%b"\r\n'
  part += b'Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n'
  assert post(server, form(part % b''), FORM)['status'] == 'completed'
  status, param, _ = refused(server, form(part % b'a.png', model=PERSON), kind=FORM)
  assert (status, param) == (400, 'input_reference')


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (form(b''), 'cut off before its closing boundary'),
    (form()[:60], 'cut off before its closing boundary'),
    (form(prompt='der Ziffer fünf'.encode('latin-1')), "'prompt' is not text in utf-8"),
  ],
)
def test_a_form_that_is_cut_or_of_another_encoding_is_refused(server, data, words):
  status, _, said = refused(server, data, kind=FORM)
  assert (status, words in said) == (400, True), said


@pytest.mark.parametrize('place', ['nowhere.safetensors', 'other.safetensors'])
def test_adapters_that_fit_no_model_are_said_at_once(tmp_path, place):
  from mgjax.apps.serving.videos.models import Models  # which needs the extra

  tensors = {f'x.lora_{each}.weight': np.zeros((2, 2), np.float32) for each in 'AB'}
  save_file(tensors, tmp_path / 'other.safetensors')
  with pytest.raises(ConfigError, match=f'--lora=style=.*{place}'):
    Models([MAKER], {'style': str(tmp_path / place)}, Limits()).warm()
  with pytest.raises(ConfigError, match=f'--expert_lora=style=.*{place}: .* without an expert'):
    Models([MAKER], {}, Limits(), {'style': str(tmp_path / place)}).warm()


def test_a_result_of_no_bytes_is_none(tmp_path):
  results = Results(str(tmp_path / 'out'), tmp_path)
  results.put('video_1', 'video.mp4', b'x')
  assert results.path('video_1', 'video.mp4').read_bytes() == b'x'
  (tmp_path / 'out' / 'video_1' / 'video.mp4').write_bytes(b'')
  assert results.path('video_1', 'video.mp4') is None
