"""Of a server that misbehaves nothing is lost, nothing is asked twice, and no key is told."""

import base64
import io
import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.runtime.endpoint import FAILED, Endpoint, EndpointSettings, Question
from tests.runtime.chat_server import FAULTS, LARGE, Server

KEY = 'sk-secret/0123456789-abcdef'
SLOW = ('silent', 'drip', 'drip_headers')
FATAL = {
  'refused': 'too long a prompt',
  'moved': "sends to 'http://127.0.0.1:9/v1/chat/completions'",
  'huge': 'largest_answer',
  'huge_without_end': 'largest_answer',
  'busy_for_a_day': 'longest_pause',
}


def make(server, folder, **changes):
  settings = {
    'model': 'tiny',
    'url': server.url,
    'first_pause': 0.001,
    'request_seconds': 5.0,
    'largest_answer': LARGE,
  }
  return Endpoint(EndpointSettings(**(settings | changes)), folder)


def questions(count, word='clip'):
  return [Question(f'{word} {number}') for number in range(count)]


def failures(folder):
  path = folder / FAILED
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kept(folder):
  return sorted(folder.glob('??/*.json'))


def test_answers_are_in_order_and_asked_once(tmp_path):
  with Server() as server:
    asked = [*questions(20), Question('clip 3')]
    expected = [f'answer to {each.text}' for each in asked]
    assert make(server, tmp_path).ask_all(asked) == expected
    assert make(server, tmp_path).ask_all(asked) == expected
    assert [len(each) for each in server.asked.values()] == [1] * 20
  assert make(server, tmp_path).ask_all(asked) == expected  # there is no server any more
  assert not failures(tmp_path)
  assert make(server, tmp_path).ask_all([]) == []


@pytest.mark.parametrize('fault', [*FAULTS, 'huge_by_its_header', 'escaped_echo'])
def test_a_fault_that_passes_costs_no_answer(fault, tmp_path):
  seconds = 0.3 if fault in SLOW else 5.0
  with Server(faults=lambda _: [fault, fault]) as server:
    found = make(server, tmp_path, request_seconds=seconds).ask_all([Question('hello')])
    assert found == ['answer to hello']
    assert len(server.asked['hello']) == 3


@pytest.mark.parametrize('fault', [*FAULTS, *FATAL])
def test_a_fault_that_stays_is_listed_and_the_rest_goes_on(fault, tmp_path):
  seconds = 0.3 if fault in SLOW else 5.0
  faulty = {'clip 1': [fault] * 3}
  with Server(faults=lambda text: faulty.get(text, ())) as server:
    endpoint = make(server, tmp_path, request_seconds=seconds, attempts=2, tries=2)
    found = endpoint.ask_all([*questions(4), Question('clip 1')])
    assert found == ['answer to clip 0', None, 'answer to clip 2', 'answer to clip 3', None]
    assert len(server.asked['clip 1']) == (1 if fault in FATAL else 2)
    (failure,) = failures(tmp_path)
    assert (failure['index'], failure['text']) == (1, 'clip 1')
    assert FATAL.get(fault, '') in failure['reason']
    assert failure['reason'].isprintable() and len(failure['reason']) < 600
    faulty.clear()
    assert endpoint.ask_all(questions(4))[1] == 'answer to clip 1'
    assert not failures(tmp_path)


def spoilt(text):
  """Faults of half of all questions, up to three each, ever the same."""
  dice = random.Random(text)
  return [dice.choice(FAULTS) for _ in range(dice.choice([0, 0, 0, 1, 2, 3]))]


CALL = """
import sys
from mgjax.runtime.endpoint import Endpoint, EndpointSettings, Question
settings = EndpointSettings(
  'tiny', sys.argv[1], at_once=16, first_pause=0.01, request_seconds=0.5, tries=10
)
found = Endpoint(settings, sys.argv[2]).ask_all(
  [Question(f'clip {number}') for number in range(int(sys.argv[3]))]
)
assert found == [f'answer to clip {number}' for number in range(len(found))]
print('all of them')
"""


def start(server, folder, count):
  command = [sys.executable, '-c', CALL, server.url, str(folder), str(count)]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_and_resume(folder, count, kills):
  """Kills a call some times; the one after them asks all that has no answer and nothing else."""
  with Server(faults=spoilt) as server:
    there, before = set(), {}
    for number in range(kills):
      process = start(server, folder, count)
      try:
        deadline = time.monotonic() + 120
        while len(kept(folder)) < count * (number + 1) // (kills + 1):
          assert process.poll() is None, process.stderr.read()
          assert time.monotonic() < deadline
          time.sleep(0.002)
      finally:
        process.kill()
        process.communicate()
      time.sleep(0.2)  # the last requests of the dead
      assert again(server, before).isdisjoint(there)
      there = {json.loads(path.read_bytes())['answer'].split(' to ')[1] for path in kept(folder)}
      assert 0 < len(there) < count
      before = {text: len(asked) for text, asked in server.asked.items()}
    process = start(server, folder, count)
    output, told = process.communicate(timeout=300)
    assert output == 'all of them\n', told
    assert again(server, before) == {each.text for each in questions(count)} - there
  assert len(kept(folder)) == count
  assert not failures(folder)
  assert f'question {count}/{count}' in told and 'ETA' in told


def again(server, before):
  return {text for text, asked in server.asked.items() if len(asked) > before.get(text, 0)}


def test_a_killed_call_asks_only_what_is_missing(tmp_path):
  kill_and_resume(tmp_path, count=100, kills=1)


@pytest.mark.slow
def test_a_thousand_questions_outlive_five_kills(tmp_path):
  kill_and_resume(tmp_path, count=1000, kills=5)


def test_a_damaged_answer_is_asked_again(tmp_path):
  with Server() as server:
    make(server, tmp_path).ask_all(questions(3))
    first, second, _ = kept(tmp_path)
    first.write_bytes(first.read_bytes()[:10])
    second.write_text('{"answer": 7}')
    (tmp_path / FAILED).write_text('{"question": "../../x"}\nnonsense\n{"question": "')
    found = make(server, tmp_path).ask_all(questions(3))
    assert found == [f'answer to clip {number}' for number in range(3)]
    assert sorted(len(asked) for asked in server.asked.values()) == [1, 2, 2]
    assert not failures(tmp_path)


def caption(value):
  if not isinstance(value['caption'], str):
    raise ValueError('caption must be text')
  return value['caption']


WRONG_ANSWERS = ('no JSON', '{"caption": 3}', '{"digit": "3"}', '[1', '7', 'null', '[' * 3000)


@pytest.mark.parametrize('wrong', WRONG_ANSWERS)
def test_wrong_json_is_told_to_the_model_and_asked_again(wrong, tmp_path):
  said = iter([wrong, '```json\n{"caption": "a red 3"}\n```'])
  with Server(lambda _: next(said)) as server:
    endpoint = make(server, tmp_path)
    assert endpoint.ask_all([Question('hello')], caption) == ['a red 3']
    (_, first, _), (_, second, _) = server.asked['hello']
    assert second['messages'][:1] == first['messages']
    assert [each['role'] for each in second['messages']] == ['user', 'assistant', 'user']
    assert second['messages'][1]['content'] == wrong
    assert 'cannot be used' in second['messages'][2]['content']
    assert endpoint.ask_all([Question('hello')], caption) == ['a red 3']
    assert len(server.asked['hello']) == 2


@pytest.mark.parametrize('wrong', WRONG_ANSWERS)
def test_json_that_stays_wrong_is_listed(wrong, tmp_path):
  answer = lambda text: wrong if text == 'clip 0' else '{"caption": "well"}'  # noqa: E731
  with Server(answer) as server:
    endpoint = make(server, tmp_path, tries=4)
    assert endpoint.ask_all(questions(2), caption) == [None, 'well']
    assert len(server.asked['clip 0']) == 4
    assert 'the last of 4 answers cannot be used' in failures(tmp_path)[0]['reason']


def test_a_stricter_check_asks_again_what_it_does_not_take(tmp_path):
  answers = iter(['"3"', '{"caption": "a red 3"}'])
  with Server(lambda _: next(answers)) as server:
    endpoint = make(server, tmp_path)
    assert endpoint.ask_all([Question('hello')], str) == ['3']
    assert endpoint.ask_all([Question('hello')], caption) == ['a red 3']


def test_a_check_that_returns_nothing_is_told_at_once(tmp_path):
  with Server(lambda _: '{}') as server, pytest.raises(ConfigError, match='returned None'):
    make(server, tmp_path).ask_all(questions(50), lambda _: None)
  assert len(server.asked) < 50


@pytest.mark.parametrize('quality', [0, 90])
def test_frames_are_sent_as_pictures(quality, tmp_path):
  frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
  with Server() as server:
    endpoint = make(server, tmp_path, jpeg_quality=quality, options={'temperature': 0.5})
    question = Question('what moves?', frames, system='be brief')
    assert endpoint.ask_all([question]) == ['answer to what moves?']
    ((_, body, _),) = server.asked['what moves?']
    assert (body['model'], body['temperature']) == ('tiny', 0.5)
    told, user = body['messages']
    assert told == {'role': 'system', 'content': 'be brief'}
    *pictures, text = user['content']
    assert text == {'type': 'text', 'text': 'what moves?'}
    for frame, part in zip(frames, pictures, strict=True):
      head, data = part['image_url']['url'].split(',')
      assert head == f'data:image/{"jpeg" if quality else "png"};base64'
      shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
      assert shown.shape == frame.shape
      assert quality or (shown == frame).all()


def test_an_answer_belongs_to_all_that_it_depends_on(tmp_path):
  frames = np.zeros((1, 4, 4, 3), np.uint8)
  others = [
    (Question('hello'), {}),
    (Question('hello', frames), {}),
    (Question('hello', frames + np.uint8(1)), {}),
    (Question('hello', frames.reshape(1, 2, 8, 3)), {}),
    (Question('hello', frames), {'jpeg_quality': 90}),
    (Question('hello', system='be brief'), {}),
    (Question('hello'), {'model': 'large'}),
    (Question('hello'), {'options': {'seed': 1}}),
  ]
  with Server() as server:
    for _ in range(2):
      for question, changes in others:
        make(server, tmp_path, **changes).ask_all([question])
    assert len(server.asked['hello']) == len(others) == len(kept(tmp_path))


def test_frames_are_read_when_their_turn_comes(tmp_path):
  class Clips(Sequence):
    def __len__(self):
      return 12

    def __getitem__(self, index):
      if sys._getframe(1).f_globals.get('__name__') == Endpoint.__module__:  # or types are checked
        seen.append((index, len(server.asked)))
      return Question(f'clip {index}', np.zeros((1, 2, 2, 3), np.uint8))

  seen = []
  with Server() as server:
    assert None not in make(server, tmp_path, at_once=2).ask_all(Clips())
  assert [index for index, _ in seen] == list(range(12))
  assert all(asked >= index - 3 for index, asked in seen)


def test_a_server_that_asks_for_a_pause_gets_one(tmp_path):
  with Server(faults=lambda _: ['busy_a_second']) as server:
    assert make(server, tmp_path).ask_all([Question('hello')]) == ['answer to hello']
    (_, _, first), (_, _, second) = server.asked['hello']
    assert 1 <= second - first < 4


def test_pauses_grow(tmp_path):
  with Server(faults=lambda _: ['busy'] * 4) as server:
    make(server, tmp_path, first_pause=0.05).ask_all([Question('hello')])
    times = [time for _, _, time in server.asked['hello']]
    for number, pause in enumerate(np.diff(times)):
      assert pause >= 0.05 * 2**number / 2


def test_requests_a_minute_are_no_more(tmp_path):
  with Server(faults=lambda _: ['busy']) as server:
    make(server, tmp_path, requests_a_minute=1200).ask_all(questions(5))
    times = sorted(time for asked in server.asked.values() for _, _, time in asked)
    assert len(times) == 10
    assert times[-1] - times[0] > 9 * 0.05 - 0.04


def test_requests_at_once_are_no_more(tmp_path):
  with Server(faults=lambda _: ['late']) as server:
    make(server, tmp_path, at_once=3).ask_all(questions(12))
    assert server.most_at_once == 3


def test_time_is_bounded(tmp_path):
  with Server(faults=lambda text: ['silent'] * 9 if text != 'clip 0' else ()) as server:
    endpoint = make(server, tmp_path, at_once=2, total_seconds=0.7, request_seconds=60.0)
    began = time.monotonic()
    assert endpoint.ask_all(questions(6)) == ['answer to clip 0', *[None] * 5]
    assert time.monotonic() - began < 10
    assert sorted(each['index'] for each in failures(tmp_path)) == [1, 2, 3, 4, 5]
    assert all('total_seconds' in each['reason'] for each in failures(tmp_path))


def test_a_server_that_is_gone_is_not_asked_for_ever(tmp_path, caplog):
  with Server() as server:
    endpoint = make(server, tmp_path, attempts=2, failures_in_a_row=5, at_once=1)
    endpoint.ask_all(questions(2))
  caplog.clear()
  assert endpoint.ask_all(questions(50)) == ['answer to clip 0', 'answer to clip 1', *[None] * 48]
  assert len(failures(tmp_path)) == 48
  assert '5 questions in a row' in failures(tmp_path)[-1]['reason']
  assert '48 of 50 questions have no answer' in caplog.text and FAILED in caplog.text


def test_a_call_that_is_interrupted_ends_at_once(tmp_path):
  def interrupt(text):
    if text == 'clip 1':
      signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return ['silent']

  began = time.monotonic()
  with Server(faults=interrupt) as server, pytest.raises(KeyboardInterrupt):
    make(server, tmp_path, request_seconds=60.0).ask_all(questions(30))
  assert time.monotonic() - began < 10


ECHOES = ('echo', 'escaped_echo', 'echo_in_headers', 'echo_as_status', 'broken')


def test_the_key_is_sent_and_told_nowhere(tmp_path, monkeypatch, caplog, capfd):
  monkeypatch.setenv('SERVER_KEY', KEY)
  caplog.set_level(logging.DEBUG)

  def check(value):
    raise ValueError(f'not {value}')

  asked = [Question(name) for name in ECHOES]
  with Server(lambda text: f'"the key is {KEY}"', lambda text: [text] * 2) as server:
    endpoint = make(server, tmp_path / 'a', key_variable='SERVER_KEY', attempts=2)
    assert endpoint.ask_all(asked) == [None] * len(ECHOES)
    assert endpoint.ask_all([Question('well')]) == ['"the key is [key]"']
    assert make(server, tmp_path / 'b', key_variable='SERVER_KEY').ask_all(
      [Question('well')], check
    ) == [None]
    for requests in server.asked.values():
      assert all(headers['Authorization'] == f'Bearer {KEY}' for headers, _, _ in requests)
  told = [repr(endpoint), repr(endpoint.settings), repr(vars(endpoint)), caplog.text]
  told += [*capfd.readouterr(), repr(failures(tmp_path / 'a')), repr(failures(tmp_path / 'b'))]
  files = [path.read_text() for path in tmp_path.rglob('*') if path.is_file()]
  assert len(files) == 3 and len(failures(tmp_path / 'a')) == len(ECHOES)
  for text in (*told, *files):
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


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'key_variable': KEY}, 'never the key itself'),
    ({'key_variable': 'hf_AbCdEf'}, 'never the key itself'),
    ({'url': f'http://user:{KEY}@127.0.0.1/v1'}, 'url'),
    ({'url': f'http://127.0.0.1/v1?key={KEY}'}, 'url'),
    ({'url': 'ftp://127.0.0.1/v1'}, 'url'),
    ({'url': 'http://[::1/v1'}, 'url'),
    ({'url': 'http://127.0.0.1:99999/v1'}, 'url'),
    ({'url': 'http://127.0.0.1/v 1'}, 'url'),
    ({'url': '127.0.0.1:8000'}, 'url'),
    ({'options': {'messages': []}}, 'options.messages'),
    ({'options': {'stream': True}}, 'options.stream'),
    ({'options': {'temperature': float('nan')}}, 'not JSON'),
    ({'at_once': 0}, 'at_once'),
    ({'attempts': 0}, 'attempts'),
    ({'tries': 0}, 'tries'),
    ({'requests_a_minute': 0}, 'requests_a_minute'),
    ({'request_seconds': float('inf')}, 'request_seconds'),
    ({'total_seconds': -1.0}, 'total_seconds'),
    ({'largest_answer': 10**12}, 'largest_answer'),
    ({'jpeg_quality': 100}, 'jpeg_quality'),
    ({'modle': 'x'}, 'modle'),
  ],
)
def test_settings_out_of_range_are_a_sentence(changes, message):
  with pytest.raises(ConfigError, match=message) as error:
    unpack(EndpointSettings, {'model': 'tiny', **changes}, 'endpoint')
  assert KEY not in str(error.value)


def test_a_folder_in_use_is_refused(tmp_path):
  inside, leave = threading.Event(), threading.Event()

  def wait(_):
    inside.set()
    leave.wait(20)
    return 'done'

  with Server(wait) as server:
    endpoint = make(server, tmp_path, request_seconds=30.0)
    other = threading.Thread(target=endpoint.ask_all, args=([Question('hello')],))
    other.start()
    inside.wait(20)
    with pytest.raises(ConfigError, match='in use'):
      endpoint.ask_all([Question('hello')])
    leave.set()
    other.join()
