"""What the server of the page gives away and takes: sockets, real files, hostile clients."""

import json
import re
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from mgjax.core.errors import ConfigError
from mgjax.evaluation.human import study as studies
from mgjax.evaluation.human.server import serve
from mgjax.evaluation.human.votes import read_votes
from mgjax.runtime import page_server
from tests.tiny_study import Client, make_videos, served

pytest.importorskip('uvicorn', reason='needs the extra compare')
SECRET = 'nobody may read this'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  make_videos(folder, 2)
  return folder


@pytest.fixture
def study(folder, tmp_path):
  """A study of two pairs, two questions and two raters; beside it a file that is none of theirs."""
  (tmp_path / 'secret.txt').write_text(SECRET)
  models = {name: str(folder / name) for name in 'ab'}
  return studies.begin(
    tmp_path / 'votes', models, str(folder / 'prompts.txt'), 'video:overall,text_subject',
    ('ann', 'ben'), each=2, repeats=0,
  )  # fmt: skip


@pytest.fixture
def site(study, tmp_path):
  """Desk, client and the tokens of two raters."""
  with served(tmp_path / 'votes') as (desk, port):
    client = Client(port)
    yield desk, client, [*desk.raters]
    client.close()


def lines(tmp_path):
  return (tmp_path / 'votes' / 'votes.jsonl').read_bytes().splitlines()


def test_a_vote_is_on_the_disk_when_it_is_acknowledged_and_sent_again_changes_nothing(
  site, tmp_path
):
  _, client, (ann, _) = site
  found, _, vote = client.next(ann)
  for _ in range(3):
    assert client.vote(ann, vote)[0] == 200
    assert [each.id for each in read_votes(tmp_path / 'votes')] == [vote['id']]
  assert client.vote(ann, vote | {'choice': 'right'})[0] == 200
  (kept,) = read_votes(tmp_path / 'votes')
  assert (kept.choice, kept.rater, len(lines(tmp_path))) == ('left', 'ann', 1)
  assert client.next(ann)[0]['done'] == found['done'] + 1


def test_what_was_chosen_is_the_model_that_was_shown_there(site, folder, tmp_path):
  _, client, (ann, ben) = site
  for token, choice in ((ann, 'left'), (ben, 'right')):
    found, videos, vote = client.next(token)
    while found['task']:
      assert client.vote(token, vote | {'choice': choice})[0] == 200
      kept = read_votes(tmp_path / 'votes')[-1]
      for side in ('left', 'right'):
        shown = folder / getattr(kept, side) / f'{kept.prompt:05d}.mp4'
        assert videos[side] == shown.read_bytes()
      assert kept.winner == getattr(kept, choice)
      found, videos, vote = client.next(token)
  votes = read_votes(tmp_path / 'votes')
  assert len(votes) == 2 * 2 * 2
  assert {each.left for each in votes} == {'a', 'b'}


def test_a_vote_before_both_videos_were_there_is_refused(site, tmp_path):
  _, client, (ann, _) = site
  _, videos, vote = client.next(ann)
  for side, video in videos.items():
    for got in (b'', video[:-1]):
      status, _, answer = client.vote(ann, vote | {side: zlib.crc32(got)})
      assert status == 409 and side in answer['error']
  swapped = vote | {'left': vote['right'], 'right': vote['left']}
  assert client.vote(ann, swapped)[0] == 409
  assert not lines(tmp_path)


def test_a_rater_cannot_vote_for_another_nor_see_what_another_sees(site, tmp_path):
  _, client, (ann, ben) = site
  found, _, vote = client.next(ann)
  client.next(ben)
  assert client.vote(ben, vote)[0] == 409
  assert client.ask(f'/r/{ben}/{found["task"]["left"]}')[0] == 404
  assert client.vote(ann, vote)[0] == 200
  assert client.vote(ben, vote)[0] == 409
  assert [each.rater for each in read_votes(tmp_path / 'votes')] == ['ann']


def test_without_an_invitation_there_is_nothing(site):
  desk, client, (ann, _) = site
  for token in ('', 'x', '0' * 32, 'ann', '..', '%2e%2e', "'--"):
    for path in (f'/r/{token}', f'/r/{token}/next', f'/o/{token}', f'/o/{token}/state', '/', '/r/'):
      assert client.ask(path)[0] == 404, path
  assert client.ask(f'/o/{ann}/state')[0] == 404
  assert client.ask(f'/r/{desk.operator}/next')[0] == 404


TRAVERSALS = (
  '../secret.txt', '..%2fsecret.txt', '%2e%2e/secret.txt', '%2e%2e%2fsecret.txt',
  '..%5csecret.txt', '....//secret.txt', '%252e%252e%252fsecret.txt', 'study.json', 'votes.jsonl',
  'invitations.txt', '00000.mp4', 'a/00000.mp4', '%00', '/etc/passwd', '%2fetc%2fpasswd',
  'file:///etc/passwd', '..%c0%afsecret.txt',
)  # fmt: skip


def test_no_path_reaches_a_file(site):
  _, client, (ann, _) = site
  client.next(ann)
  for path in TRAVERSALS:
    for start in ('/', '/r/', f'/r/{ann}/', f'/r/{ann}/../', f'/o/{ann}/'):
      status, _, answer = client.ask(start + path)
      assert status == 404 and answer == {'error': answer['error']}, start + path


def test_a_link_out_of_a_folder_is_refused_before_and_after_the_study_began(
  site, folder, tmp_path, monkeypatch
):
  desk, client, (ann, _) = site
  (tmp_path / 'own').mkdir()
  (tmp_path / 'own' / '00000.mp4').symlink_to(tmp_path / 'secret.txt')
  with pytest.raises(Exception, match='leads out of'):
    studies.videos_of(tmp_path / 'own')
  found, _, _ = client.next(ann)
  name = found['task']['left']
  monkeypatch.setitem(desk._shown, ('ann', name), (tmp_path / 'own/00000.mp4', tmp_path / 'own'))
  status, _, answer = client.ask(f'/r/{ann}/{name}')
  assert status == 404 and SECRET not in str(answer)


BAD_VOTES = (
  b'', b'{', b'[]', b'null', b'"x"', b'\xff\xfe', b'{}', b'[' * 2000, b'1' * 2000,
  {'choice': 'both'}, {'choice': None}, {'milliseconds': -1}, {'milliseconds': 2**70},
  {'milliseconds': 1.5}, {'milliseconds': True}, {'id': 7}, {'id': {'a': 1}}, {'left': 'x'},
  {'rater': 'ben'}, {'time': 'now'}, {'gold': ''},
)  # fmt: skip


def test_a_malformed_vote_gets_a_sentence_and_leaves_nothing(site, tmp_path):
  _, client, (ann, _) = site
  _, _, vote = client.next(ann)
  for bad in BAD_VOTES:
    status, _, answer = client.vote(ann, bad if isinstance(bad, bytes) else vote | bad)
    assert status == 400 and answer['error'], bad
    assert not lines(tmp_path), bad
  assert client.vote(ann, vote)[0] == 200


def test_an_oversized_vote_is_refused_before_it_is_read(site, tmp_path):
  _, client, (ann, _) = site
  _, _, vote = client.next(ann)
  status, _, _ = client.vote(ann, json.dumps(vote | {'choice': 'x' * 5000}).encode())
  assert status == 413 and not lines(tmp_path)
  with socket.create_connection(('127.0.0.1', client._connection.port), timeout=5) as raw:
    raw.sendall(
      f'POST /r/{ann}/votes HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n'.encode()
    )
    raw.sendall(b'x' * 4096)
    assert b' 413 ' in raw.recv(4096)


def test_neither_page_nor_answers_nor_headers_say_which_model_is_where(site, folder):
  desk, client, (ann, _) = site
  pages = [client.ask(f'/r/{token}')[2] for token in desk.raters]
  assert pages[0] == pages[1]  # one text for all: nothing of a pair can be in it
  found, _, _ = client.next(ann)
  assert set(found['task']) == {
    'id', 'prompt', 'question', 'help', 'sound', 'frame', 'left', 'right'
  }  # fmt: skip
  names = [found['task'][side] for side in ('left', 'right')] + found['ahead']
  assert all(re.fullmatch('[0-9a-f]{32}', name) for name in names) and len({*names}) == len(names)
  _, headers, _ = client.ask(f'/r/{ann}/{names[0]}')
  told = {'content-type', 'content-length', 'accept-ranges', 'date'}
  assert set(headers) == told | {name.lower() for name in page_server.HEADERS}
  assert headers['cache-control'] == 'no-store'
  assert str(folder) not in json.dumps([found, headers])


def test_names_of_videos_are_others_for_each_rater_and_in_each_study(folder, tmp_path):
  names = []
  for each in ('one', 'two'):
    models = {name: str(folder / name) for name in 'ab'}
    studies.begin(
      tmp_path / each, models, str(folder / 'prompts.txt'), 'video:overall', ('ann', 'ben'), each=2
    )
    with served(tmp_path / each) as (desk, port):
      client = Client(port)
      for token in desk.raters:
        found = client.next(token)[0]
        names += [found['task']['left'], found['task']['right'], *found['ahead']]
      client.close()
  assert len({*names}) == len(names)


def test_a_part_of_a_video_can_be_had(site):
  _, client, (ann, _) = site
  found, videos, _ = client.next(ann)
  path = f'/r/{ann}/{found["task"]["left"]}'
  status, headers, part = client.ask(path, Range='bytes=10-19')
  assert status == 206 and part == videos['left'][10:20]
  assert headers['content-range'] == f'bytes 10-19/{len(videos["left"])}'
  assert client.ask(path, Range=f'bytes={10**9}-')[0] == 416
  assert client.ask(path, Range='bytes=' + '0-1,' * 400)[0] in (200, 400, 416)


def test_the_pages_policy_lets_its_own_script_run_and_loads_nothing(site):
  desk, client, (ann, _) = site
  for path in (f'/r/{ann}', f'/o/{desk.operator}'):
    _, headers, page = client.ask(path)
    policy = headers['content-security-policy']
    assert "default-src 'none'" in policy and len(re.findall('sha256-', policy)) == 1
    assert not re.search(rb'(src|href)="(?!data:,)', page)


@pytest.mark.usefixtures('study')
def test_a_server_that_is_started_again_goes_on(tmp_path):
  with served(tmp_path / 'votes') as (desk, port):
    client, (ann, _) = Client(port), [*desk.raters]
    _, _, vote = client.next(ann)
    client.vote(ann, vote)
    second, _, later = client.next(ann)
    client.close()
  with (tmp_path / 'votes' / 'votes.jsonl').open('ab') as file:
    file.write(b'{"id": "cut by a cr')
  with served(tmp_path / 'votes') as (_, port):
    client = Client(port)
    assert client.vote(ann, vote)[0] == 200  # it was saved; the answer to it may have been lost
    assert client.vote(ann, later)[0] == 409  # it has to be asked first what this was about
    assert client.next(ann)[0] == second
    assert client.vote(ann, later)[0] == 200
    client.close()
  assert [each.id for each in read_votes(tmp_path / 'votes')] == [vote['id'], later['id']]


def test_a_full_disk_is_told_and_the_vote_may_come_again(site, tmp_path, monkeypatch):
  _, client, (ann, _) = site
  _, _, vote = client.next(ann)

  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patched:
    patched.setattr('mgjax.evaluation.human.desk.append_vote', full)
    status, _, answer = client.vote(ann, vote)
    assert status == 507 and 'No space left' in answer['error']
  assert client.vote(ann, vote)[0] == 200 and len(lines(tmp_path)) == 1


def test_the_same_vote_from_many_connections_counts_once(site, tmp_path):
  _, client, (ann, _) = site
  _, _, vote = client.next(ann)

  def send(_):
    own = Client(client._connection.port)
    status = own.vote(ann, vote)[0]
    own.close()
    return status

  with ThreadPoolExecutor(16) as pool:
    assert set(pool.map(send, range(32))) == {200}
  assert len(lines(tmp_path)) == 1


BEGUN = (
  b'', b'GET / HTTP/1.1\r\nX: ', b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n'
)  # fmt: skip


@pytest.mark.usefixtures('study')
def test_who_trickles_a_request_is_cut_off_and_others_are_served(tmp_path, monkeypatch):
  monkeypatch.setattr(page_server, '_REQUEST', 0.5)
  with served(tmp_path / 'votes') as (desk, port):
    slow = [socket.create_connection(('127.0.0.1', port)) for _ in range(21)]
    begin = time.monotonic()
    for number, each in enumerate(slow):
      each.sendall(BEGUN[number % 3])
    client = Client(port)
    assert client.next(next(iter(desk.raters)))[0]['task']
    ended = 0
    while ended < len(slow) and time.monotonic() < begin + 5:
      time.sleep(0.1)
      ended = 0
      for each in slow:
        try:
          each.sendall(b'a')  # never idle
          each.setblocking(False)
          ended += each.recv(1) == b''
        except BlockingIOError:
          pass
        except OSError:
          ended += 1
        finally:
          each.setblocking(True)
    assert ended == len(slow)
    assert client.ask('/')[0] == 404
    client.close()
    for each in slow:
      each.close()


@pytest.mark.usefixtures('study')
def test_two_servers_of_one_study_are_one_too_many(tmp_path):
  with (
    page_server.held(tmp_path / 'votes' / studies.FILE, 'rb', 'begin one', 'study'),
    pytest.raises(ConfigError, match='another server has this study'),
  ):
    serve(tmp_path / 'votes', port=0)


@pytest.mark.usefixtures('study')
def test_a_port_in_use_is_one_sentence(tmp_path):
  with (
    socket.create_server(('127.0.0.1', 0)) as taken,
    pytest.raises(ConfigError, match='take another'),
  ):
    serve(tmp_path / 'votes', port=taken.getsockname()[1])


def test_whoever_runs_the_study_sees_how_far_it_is_and_not_who_wins(site):
  desk, client, (ann, _) = site
  _, _, vote = client.next(ann)
  client.vote(ann, vote)
  _, _, state = client.ask(f'/o/{desk.operator}/state')
  assert state['votes'] == 1 and [each['answers'] for each in state['questions']] == [1, 0]
  assert [(each['name'], each['done'], each['waiting']) for each in state['raters']] == [
    ('ann', 1, 3), ('ben', 0, 4)
  ]  # fmt: skip
  assert not any(name in str(state) for name in ("'a'", "'b'", 'winner'))
