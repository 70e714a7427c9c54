"""What the service answers to requests that are easily got wrong: each is done, or refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mgjax.data.media.faces.pictures import read_picture
from tests.apps.serving import bombs
from tests.apps.serving.tiny_service import Server

for package in ('dbos', 'prometheus_client', 'python_multipart'):
  pytest.importorskip(package, reason='needs the extra serve')
MODELS = 'digits/few_steps,digits/personalization,digits/editing,digits/upsampler,digits/audio'
PERSON, MAKER = 'digits/personalization', 'digits/few_steps'
PROMPT = {'prompt': 'the red digit 7', 'model': MAKER}


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  folder = tmp_path_factory.mktemp('answers')
  server = Server(folder / 'out', '--limits=rate=6000,batch=1', model=MODELS).start()
  yield server
  said = server.log.read_text()
  assert server.end() == 0
  assert 'Traceback' not in said


def refused(server, fields, path='/v1/videos', kind='application/json'):
  """Status, field and sentence of a refusal."""
  body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
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


def test_a_picture_with_much_text_is_refused_for_its_text(server):
  status, param, said = refused(server, json.loads(bombs.body(bombs.text_bomb(), model=PERSON)))
  assert (status, param, 'too much text' in said) == (400, 'input_reference', True)
