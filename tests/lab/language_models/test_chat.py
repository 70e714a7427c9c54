"""Requests keep to the pace that is set, carry pictures, and tell the key to nobody else."""

import base64
import io
import logging

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.lab.language_models.endpoint import Endpoint, EndpointSettings, Question
from tests.lab.language_models.chat_server import Server, failures, make, questions

KEY = 'sk-secret/0123456789-abcdef'


@pytest.mark.parametrize('quality', [0, 90])
def test_frames_are_sent_as_pictures(quality, tmp_path):
  frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
  with Server() as server:
    endpoint = make(server, tmp_path, jpeg_quality=quality, options={'temperature': 0.5})
    question = Question('what moves?', frames, system='be brief')
    assert endpoint.ask_all([question]) == ['answer to what moves?']
    ((_, body, _),) = server.requests['what moves?']
    assert (body['model'], body['temperature']) == ('tiny', 0.5)
    system, user = body['messages']
    assert system == {'role': 'system', 'content': 'be brief'}
    *pictures, text = user['content']
    assert text == {'type': 'text', 'text': 'what moves?'}
    for frame, part in zip(frames, pictures, strict=True):
      head, data = part['image_url']['url'].split(',')
      assert head == f'data:image/{"jpeg" if quality else "png"};base64'
      decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
      assert decoded.shape == frame.shape
      assert quality or (decoded == frame).all()


def test_a_server_that_asks_for_a_pause_gets_one(tmp_path):
  with Server(faults=lambda _: ['busy_a_second']) as server:
    assert make(server, tmp_path).ask_all([Question('hello')]) == ['answer to hello']
    (_, _, first), (_, _, second) = server.requests['hello']
    assert 1 <= second - first < 4


def test_pauses_grow(tmp_path):
  with Server(faults=lambda _: ['busy'] * 4) as server:
    make(server, tmp_path, first_pause=0.05).ask_all([Question('hello')])
    times = [time for _, _, time in server.requests['hello']]
    for number, pause in enumerate(np.diff(times)):
      assert pause >= 0.05 * 2**number / 2


def test_requests_a_minute_are_no_more(tmp_path):
  with Server(faults=lambda _: ['busy']) as server:
    make(server, tmp_path, requests_a_minute=1200).ask_all(questions(5))
    times = sorted(time for requests in server.requests.values() for _, _, time in requests)
    assert len(times) == 10
    assert times[-1] - times[0] > 9 * 0.05 - 0.04


def test_requests_at_once_are_no_more(tmp_path):
  with Server(faults=lambda _: ['late']) as server:
    make(server, tmp_path, at_once=3).ask_all(questions(12))
    assert server.most_at_once == 3


ECHOES = ('echo', 'escaped_echo', 'echo_in_headers', 'echo_as_status', 'broken')


def test_the_key_is_sent_and_told_nowhere(tmp_path, monkeypatch, caplog, capfd):
  monkeypatch.setenv('SERVER_KEY', KEY)
  caplog.set_level(logging.DEBUG)

  def check(value):
    raise ValueError(f'not {value}')

  questions = [Question(name) for name in ECHOES]
  with Server(lambda text: f'"the key is {KEY}"', lambda text: [text] * 2) as server:
    endpoint = make(server, tmp_path / 'a', key_variable='SERVER_KEY', attempts=2)
    assert endpoint.ask_all(questions) == [None] * len(ECHOES)
    assert endpoint.ask_all([Question('well')]) == ['"the key is [key]"']
    assert make(server, tmp_path / 'b', key_variable='SERVER_KEY').ask_all(
      [Question('well')], check
    ) == [None]
    for requests in server.requests.values():
      assert all(headers['Authorization'] == f'Bearer {KEY}' for headers, _, _ in requests)
  texts = [repr(endpoint), repr(endpoint.settings), repr(vars(endpoint)), caplog.text]
  texts += [*capfd.readouterr(), repr(failures(tmp_path / 'a')), repr(failures(tmp_path / 'b'))]
  files = [path.read_text() for path in tmp_path.rglob('*') if path.is_file()]
  assert len(files) == 3 and len(failures(tmp_path / 'a')) == len(ECHOES)
  for text in (*texts, *files):
    assert KEY not in text and KEY[:12] not in text


@pytest.mark.parametrize(
  'value', [None, '', 'short', f'{KEY}\nX-Header: 1', f'{KEY} twice', 'é' * 9]
)
def test_a_key_that_cannot_be_one_is_a_sentence_without_it(value, tmp_path, monkeypatch):
  monkeypatch.delenv('SERVER_KEY', raising=False)
  if value is not None:
    monkeypatch.setenv('SERVER_KEY', value)
  settings = EndpointSettings('tiny', key_variable='SERVER_KEY')
  with pytest.raises(ConfigError, match='key') as error:
    Endpoint(settings, tmp_path).ask_all(questions(1))
  assert not value or value not in str(error.value)
