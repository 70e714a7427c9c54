"""Prompts are rewritten by a server's model, kept where it fails, and pairs become a student's."""

import json

import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.language_models import rewriting
from tests import binaries
from tests.lab.language_models.chat_server import Server

LONG = {
  'a dog runs': 'A brown dog runs over a green lawn. The sun is low and the light is warm.',
  'two cats and "HELLO"': 'Two cats sit by a sign. The camera does not move.',  # the text is lost
  'the sea': 'Certainly! Here is a prompt.',
}


def answer(text):
  return json.dumps({'prompt': LONG[text]})


def settings_of(server, **changes):
  endpoint = {'model': 'tiny', 'url': server.url, 'first_pause': 0.001, 'attempts': 1, 'tries': 1}
  return rewriting.RewriteSettings(endpoint, **changes)


def test_prompts_are_rewritten_and_their_frame_rates_stay(tmp_path):
  with Server(answer) as server:
    settings = settings_of(server)
    prompts = ['a dog runs', 'FPS-16 a dog runs']
    rewritten = rewriting.rewrite_prompts(prompts, settings, tmp_path)
    assert rewritten == [LONG['a dog runs'], f'FPS-16 {LONG["a dog runs"]}']
    (request,) = server.requests['a dog runs']  # once for both
    system, user = request[1]['messages']
    assert rewriting.EXAMPLES[0][1] in system['content'] and user['content'] == 'a dog runs'
    assert rewriting.rewrite_prompts(prompts, settings, tmp_path) == rewritten
    assert len(server.requests['a dog runs']) == 1  # answers are kept


def test_a_prompt_that_is_not_rewritten_well_is_used_as_it_is(tmp_path, caplog):
  with Server(answer, lambda text: ['broken'] if text == 'a dog runs' else []) as server:
    prompts = list(LONG)
    assert rewriting.rewrite_prompts(prompts, settings_of(server), tmp_path) == prompts
  log = caplog.text
  assert "'HELLO' is missing" in log and 'there is no answer' in log and 'begins with' in log


@pytest.mark.parametrize(
  ('prompt', 'rewritten', 'fault'),
  [
    ('a dog runs', 'A dog is running on a lawn.', ''),
    ('a dog runs', 'A  dog runs', 'the prompt itself'),
    ('407 ducks', 'Many ducks swim.', "'407' is missing"),
    ('a dog runs', 'word ' * 300, 'at most 250'),
    ('glass marbles falling slowly', 'A calm beach with soft evening light.', '0 of 4 longer'),
    ('the camera pans over a city', 'I will write it for you: a city', 'begins with'),
  ],
)
def test_faults_of_rewritten_prompts_are_told(prompt, rewritten, fault):
  reason = rewriting.fault_of(prompt, rewritten, rewriting.RewriteSettings({'model': 'tiny'}))
  assert fault in reason and bool(fault) == bool(reason)


def test_pairs_of_a_teacher_that_people_leave_become_the_file_of_a_student(tmp_path):
  pairs, out = tmp_path / 'pairs.jsonl', tmp_path / 'student.jsonl'
  with Server(answer) as server:
    settings = settings_of(server)
    assert rewriting.teach(list(LONG), settings, tmp_path / 'answers', pairs) == {
      'kept': 1,
      'dropped': 2,
    }
    with pytest.raises(ConfigError, match='exists'):
      rewriting.teach(list(LONG), settings, tmp_path / 'answers', pairs)
  rows = [json.loads(line) for line in pairs.read_text().splitlines()]
  assert [row['keep'] for row in rows] == [True, False, False]
  assert [bool(row['reason']) for row in rows] == [False, True, True]
  rows[1] |= {'keep': True, 'rewritten': 'Two cats sit by a sign that says "HELLO".'}  # mended
  rows[0]['keep'] = False
  pairs.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  assert rewriting.write_student_file(pairs, out, settings) == 1
  (chat,) = [json.loads(line) for line in out.read_text().splitlines()]
  system, user, assistant = chat['messages']
  assert [message['role'] for message in chat['messages']] == ['system', 'user', 'assistant']
  assert user['content'] == rows[1]['prompt']
  assert json.loads(assistant['content']) == {'prompt': rows[1]['rewritten']}
  # A student is asked as it was taught.
  student = rewriting.RewriteSettings(settings.endpoint, examples=())
  assert system['content'] == student.system and rewriting.EXAMPLES[0][0] not in student.system
  pairs.write_text(json.dumps(rows[0]) + '\n')
  with pytest.raises(DataError, match='no pair'):
    rewriting.write_student_file(pairs, out, settings)


def test_a_rewriter_is_named_by_model_and_address_or_a_file(tmp_path):
  settings = rewriting.read_rewriter('meta/llama@http://127.0.0.1:8000/v1')
  assert settings.endpoint == {'model': 'meta/llama', 'url': 'http://127.0.0.1:8000/v1'}
  path = tmp_path / 'rewriter.json'
  path.write_text('{"endpoint": {"model": "a@b"}, "words": 80, "examples": []}')
  assert rewriting.read_rewriter(str(path)).words == 80
  path.write_text('{"endpoint": {"model": "a", "urll": "http://x"}}')
  for wrong in ('llama', '@http://x/v1', str(path), 'llama@http://u:secret@x/v1'):
    with pytest.raises(ConfigError) as refused:
      rewriting.read_rewriter(wrong)
    assert wrong != 'llama@http://u:secret@x/v1' or 'secret' not in str(refused.value)


def test_the_command_teaches_and_writes_the_file_of_a_student(tmp_path):
  prompts, pairs = tmp_path / 'prompts.txt', tmp_path / 'runs' / 'pairs.jsonl'
  prompts.write_text('\n'.join(LONG))
  with Server(answer) as server:
    words = f'--input={prompts}', f'--teacher=tiny@{server.url}', f'--output={pairs}'
    taught = binaries.finish('data', 'teach', *words)
    again = binaries.run('data', 'teach', *words)
    assert again.returncode == 2 and 'exists' in again.stderr  # what people changed would be lost
  assert taught.stdout == f'1 pairs, and 2 dropped, in {pairs}\n'
  process = binaries.run(
    'data', 'student', f'--input={pairs}', f'--output={pairs.parent}/student.jsonl'
  )
  assert process.stdout == f'1 chats in {pairs.parent / "student.jsonl"}\n', process.stderr
  (line,) = (pairs.parent / 'student.jsonl').read_text().splitlines()
  assert json.loads(line)['messages'][1]['content'] == 'a dog runs'
