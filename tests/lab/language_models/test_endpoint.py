"""Of a server that misbehaves nothing is lost, nothing is asked twice, and no key is told."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.lab.language_models.endpoint import FAILED, Endpoint, Question
from tests.lab.language_models.chat_server import FAULTS, Server, failures, make, questions

FATAL = {
  'refused': 'too long a prompt',
  'moved': "sends to 'http://127.0.0.1:9/v1/chat/completions'",
  'huge': 'largest_answer',
  'huge_without_end': 'largest_answer',
  'busy_for_a_day': 'longest_pause',
}


def kept(folder):
  return sorted(folder.glob('??/*.json'))


def test_answers_are_in_order_and_asked_once(tmp_path):
  with Server() as server:
    requested = [*questions(20), Question('clip 3')]
    expected = [f'answer to {question.text}' for question in requested]
    assert make(server, tmp_path).ask_all(requested) == expected
    assert make(server, tmp_path).ask_all(requested) == expected
    assert [len(requests) for requests in server.requests.values()] == [1] * 20
  assert make(server, tmp_path).ask_all(requested) == expected  # there is no server any more
  assert not failures(tmp_path)
  assert make(server, tmp_path).ask_all([]) == []


def test_faults_that_pass_cost_no_answer(tmp_path):
  faults = [*FAULTS, 'huge_by_its_header', 'escaped_echo']
  with Server(faults=lambda fault: [fault, fault]) as server:
    endpoint = make(server, tmp_path, request_seconds=0.7, at_once=32)
    assert endpoint.ask_all([*map(Question, faults)]) == [f'answer to {text}' for text in faults]
    assert all(len(server.requests[text]) >= 3 for text in faults)


def test_faults_that_stay_are_listed_and_the_rest_goes_on(tmp_path):
  stay = [*FAULTS, *FATAL]
  requested = [Question(f'{word} {fault}') for fault in stay for word in ('bad', 'good')]
  passed = threading.Event()

  def faults(text):
    word, fault = text.split()
    return [fault] * 2 if word == 'bad' and not passed.is_set() else ()

  with Server(faults=faults) as server:
    changes = {'request_seconds': 0.7, 'attempts': 2, 'tries': 2, 'failures_in_a_row': 40}
    endpoint = make(server, tmp_path, at_once=50, **changes)
    answers = endpoint.ask_all([*requested, requested[0]])
    good = [f'answer to good {fault}' for fault in stay]
    assert answers[1::2] == good and set(answers[::2]) == {None}
    for fault in stay:
      assert len(server.requests[f'bad {fault}']) == (1 if fault in FATAL else 2), fault
    listed = {failure['text'].split()[1]: failure for failure in failures(tmp_path)}
    assert sorted(listed) == sorted(stay)
    for fault, failure in listed.items():
      assert failure['index'] == 2 * stay.index(fault)
      assert FATAL.get(fault, '') in failure['reason']
      assert failure['reason'].isprintable() and len(failure['reason']) < 600
    passed.set()
    assert None not in make(server, tmp_path).ask_all(requested)
    assert not failures(tmp_path)


def spoilt(text):
  """Faults of half of all questions, up to three each, ever the same."""
  dice = random.Random(text)
  return [dice.choice(FAULTS) for _ in range(dice.choice([0, 0, 0, 1, 2, 3]))]


CALL = """
import sys
from mgjax.lab.language_models.endpoint import Endpoint, EndpointSettings, Question
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


@pytest.mark.slow
def test_killed_calls_ask_only_what_is_missing(tmp_path):
  count, kills = 1000, 5
  with Server(faults=spoilt) as server:
    answered, before = set(), {}
    for number in range(kills):
      process = start(server, tmp_path, count)
      try:
        deadline = time.monotonic() + 120
        while len(kept(tmp_path)) < count * (number + 1) // (kills + 1):
          assert process.poll() is None, process.stderr.read()
          assert time.monotonic() < deadline
          time.sleep(0.002)
      finally:
        process.kill()
        process.communicate()
      time.sleep(0.2)  # the last requests of the dead
      assert again(server, before).isdisjoint(answered)
      answered = there_in(tmp_path)
      assert 0 < len(answered) < count
      before = {text: len(requests) for text, requests in server.requests.items()}
    process = start(server, tmp_path, count)
    output, log = process.communicate(timeout=300)
    assert output == 'all of them\n', log
    assert again(server, before) == {question.text for question in questions(count)} - answered
  assert len(kept(tmp_path)) == count
  assert not failures(tmp_path)
  assert f'question {count}/{count}' in log and 'ETA' in log


def there_in(folder):
  """The questions whose answers are on disk."""
  return {json.loads(path.read_bytes())['answer'].split(' to ')[1] for path in kept(folder)}


def again(server, before):
  return {text for text, requests in server.requests.items() if len(requests) > before.get(text, 0)}


def test_a_damaged_answer_is_asked_again(tmp_path):
  with Server() as server:
    make(server, tmp_path).ask_all(questions(3))
    first, second, _ = kept(tmp_path)
    first.write_bytes(first.read_bytes()[:10])
    second.write_text('{"answer": 7}')
    (tmp_path / FAILED).write_text('{"question": "../../x"}\nnonsense\n{"question": "')
    answers = make(server, tmp_path).ask_all(questions(3))
    assert answers == [f'answer to clip {number}' for number in range(3)]
    assert sorted(len(requests) for requests in server.requests.values()) == [1, 2, 2]
    assert not failures(tmp_path)


def caption(value):
  if not isinstance(value['caption'], str):
    raise ValueError('caption must be text')
  return value['caption']


WRONG_ANSWERS = ('no JSON', '{"caption": 3}', '{"digit": "3"}', '[1', '7', 'null', '[' * 3000)


@pytest.mark.parametrize('wrong', WRONG_ANSWERS)
def test_wrong_json_is_told_to_the_model_and_asked_again(wrong, tmp_path):
  replies = iter([wrong, '```json\n{"caption": "a red 3"}\n```'])
  with Server(lambda _: next(replies)) as server:
    endpoint = make(server, tmp_path)
    assert endpoint.ask_all([Question('hello')], caption) == ['a red 3']
    (_, first, _), (_, second, _) = server.requests['hello']
    assert second['messages'][:1] == first['messages']
    assert [message['role'] for message in second['messages']] == ['user', 'assistant', 'user']
    assert second['messages'][1]['content'] == wrong
    assert 'cannot be used' in second['messages'][2]['content']
    assert endpoint.ask_all([Question('hello')], caption) == ['a red 3']
    assert len(server.requests['hello']) == 2


def test_json_that_stays_wrong_is_listed(tmp_path):
  answer = lambda text: 'no JSON' if text == 'clip 0' else '{"caption": "well"}'  # noqa: E731
  with Server(answer) as server:
    endpoint = make(server, tmp_path, tries=4)
    assert endpoint.ask_all(questions(2), caption) == [None, 'well']
    assert len(server.requests['clip 0']) == 4
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
  assert len(server.requests) < 50


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
    assert len(server.requests['hello']) == len(others) == len(kept(tmp_path))


def test_frames_are_read_when_their_turn_comes(tmp_path):
  class Clips(Sequence):
    def __len__(self):
      return 12

    def __getitem__(self, index):
      if sys._getframe(1).f_globals.get('__name__') == Endpoint.__module__:  # or types are checked
        seen.append((index, len(server.requests)))
      return Question(f'clip {index}', np.zeros((1, 2, 2, 3), np.uint8))

  seen = []
  with Server() as server:
    assert None not in make(server, tmp_path, at_once=2).ask_all(Clips())
  assert [index for index, _ in seen] == list(range(12))
  assert all(num_requests >= index - 3 for index, num_requests in seen)


def test_time_is_bounded(tmp_path):
  with Server(faults=lambda text: ['silent'] * 9 if text != 'clip 0' else ()) as server:
    endpoint = make(server, tmp_path, at_once=2, total_seconds=0.7, request_seconds=60.0)
    began = time.monotonic()
    assert endpoint.ask_all(questions(6)) == ['answer to clip 0', *[None] * 5]
    assert time.monotonic() - began < 10
    assert sorted(failure['index'] for failure in failures(tmp_path)) == [1, 2, 3, 4, 5]
    assert all('total_seconds' in failure['reason'] for failure in failures(tmp_path))


def test_a_server_that_is_gone_is_not_asked_for_ever(tmp_path, caplog):
  with Server() as server:
    endpoint = make(server, tmp_path, attempts=2, failures_in_a_row=5, at_once=1)
    endpoint.ask_all(questions(2))
  caplog.clear()
  assert endpoint.ask_all(questions(50)) == ['answer to clip 0', 'answer to clip 1', *[None] * 48]
  assert len(failures(tmp_path)) == 48
  assert '5 questions in a row' in failures(tmp_path)[-1]['reason']
  assert '48 of 50 questions have no answer' in caplog.text and FAILED in caplog.text


# Python may leave a file that it just opened to its count of references, if Ctrl-C comes there.
@pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning')
def test_a_call_that_is_interrupted_ends_at_once_and_goes_on(tmp_path, signals_as_in_a_new_process):
  def interrupt(text):
    if text != 'clip 9' or len(server.requests[text]) > 1:
      return ()
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return ['silent']

  began = time.monotonic()
  with Server(faults=interrupt) as server:
    endpoint = make(server, tmp_path, request_seconds=60.0, at_once=2)
    with pytest.raises(KeyboardInterrupt):
      endpoint.ask_all(questions(30))
    assert time.monotonic() - began < 10
    answered = there_in(tmp_path)
    assert 'clip 0' in answered and 'clip 9' not in answered
    before = {text: len(requests) for text, requests in server.requests.items()}
    assert None not in endpoint.ask_all(questions(30))
    assert again(server, before) == {question.text for question in questions(30)} - answered


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
