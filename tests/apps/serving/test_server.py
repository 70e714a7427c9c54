"""What the server of pages gives away and takes: sockets, real files, hostile clients."""

import functools
import json
import re
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from mgjax.apps.serving import annotation, http
from mgjax.apps.serving.review import Review
from mgjax.apps.serving.votes import Votes
from mgjax.core.errors import ConfigError
from mgjax.data.media.containers import Blob
from mgjax.data.media.video import probe, read_clip
from mgjax.lab.curation.review.candidates import read_candidates
from mgjax.lab.curation.review.labels import LABELS
from mgjax.lab.evaluation.human import study as studies
from mgjax.lab.evaluation.human.votes import read_votes
from mgjax.training.monitoring.workdir_lock import hold
from tests.apps.serving.tiny_pages import begin_review, make_raw, make_videos, served

pytest.importorskip('uvicorn', reason='needs the extra serve')
SECRET = 'nobody may read this'


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  make_videos(folder, 2)
  return folder


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  return make_raw(tmp_path_factory.mktemp('review') / 'raw', 3)


@pytest.fixture
def make(request, videos, inputs, tmp_path):
  """Makes the queue of a study of two pairs and two questions, or of a review of three clips."""
  (tmp_path / 'secret.txt').write_text(SECRET)
  kind = getattr(request, 'param', 'votes')
  if kind == 'votes':
    models = {name: str(videos / name) for name in 'ab'}
    studies.begin(
      tmp_path / 'x',
      studies.Folders(models),
      str(videos / 'prompts.txt'),
      'video:overall,text_subject',
      ('ann', 'ben'),
      design=studies.Design(raters_per_pair=2, repeats=0),
    )
    return functools.partial(Votes, tmp_path / 'x')
  begin_review(tmp_path / 'x', inputs, range(3))
  return functools.partial(Review, tmp_path / 'x', inputs, ('ann', 'ben'))


@pytest.fixture
def site(make):
  """The queue and two people; `lines` are what is on the disk."""
  with served(queue := make()) as people:
    yield queue, people['ann'], people['ben']


both = pytest.mark.parametrize('make', ['votes', 'review'], indirect=True)
reviewed = pytest.mark.parametrize('make', ['review'], indirect=True)


def lines(queue):
  if not queue.log.exists():
    return []
  return [json.loads(line) for line in queue.log.read_bytes().splitlines()]


@both
def test_an_answer_is_on_the_disk_when_it_is_acknowledged_and_sent_again_changes_nothing(site):
  queue, ann, ben = site
  found, _, answer = ann.next()
  for _ in range(3):
    assert ann.send(answer)[0] == 200
    assert [each['id'] for each in lines(queue)] == [answer['id']]
  changed = {'choice': 'right'} if queue.kind == 'votes' else {'caption': 'another'}
  assert ann.send(answer, **changed)[0] == 200 and len(lines(queue)) == 1
  (kept,) = lines(queue)
  assert kept[queue.who] == 'ann' and kept['time'].endswith('Z')
  assert ann.next()[0]['done'] == found['done'] + 1
  assert ben.send(answer)[0] == 409


@both
def test_nobody_answers_for_another_nor_sees_what_only_another_was_shown(site):
  queue, ann, ben = site
  found, _, answer = ann.next()
  assert ben.next()[0]['task']['id'] != answer['id']
  assert ben.send(answer)[0] == 409 and ben.send({'id': answer['id']}, 'skip')[0] == 409
  if queue.kind == 'votes':
    assert ben.ask(f'{ben.path}/{found["task"]["media"]["left"]}')[0] == 404
  assert not lines(queue)


TRAVERSALS = (
  '../secret.txt',
  '..%2fsecret.txt',
  '%2e%2e/secret.txt',
  '%2e%2e%2fsecret.txt',
  '..%5csecret.txt',
  '....//secret.txt',
  '%252e%252e%252fsecret.txt',
  'study.json',
  'votes.jsonl',
  'people.json',
  'clips.parquet',
  'invitations.txt',
  '00000.mp4',
  'a/00000.mp4',
  '%00',
  '/etc/passwd',
  '%2fetc%2fpasswd',
  'file:///etc/passwd',
  '..%c0%afsecret.txt',
)


@both
def test_without_an_invitation_there_is_nothing_and_no_path_reaches_a_file(site, tmp_path):
  queue, ann, _ = site
  ann.next()
  for token in ('', 'x', '0' * 32, 'ann', '..', '%2e%2e', "'--"):
    for path in (f'/r/{token}', f'/r/{token}/next', f'/o/{token}', f'/o/{token}/state', '/', '/r/'):
      assert ann.ask(path)[0] == 404, path
  assert ann.ask(f'/o/{ann.token}/state')[0] == ann.ask(f'/r/{queue.operator}/next')[0] == 404
  for path in TRAVERSALS:
    for start in ('/', '/r/', f'{ann.path}/', f'{ann.path}/../', f'/o/{ann.token}/'):
      status, _, answer = ann.ask(start + path)
      assert status == 404 and answer == {'error': answer['error']}, start + path
  secret = tmp_path / 'x' / ('study.json' if queue.kind == 'votes' else 'people.json')
  assert secret.stat().st_mode & 0o077 == 0


MALFORMED = (b'', b'{', b'[]', b'null', b'"x"', b'\xff\xfe', b'{}', b'[' * 2000, b'1' * 2000)
WRONG = {
  'votes': (
    {'choice': 'both'},
    {'choice': None},
    {'milliseconds': -1},
    {'milliseconds': 2**70},
    {'milliseconds': 1.5},
    {'milliseconds': True},
    {'id': 7},
    {'id': {'a': 1}},
    {'left': 'x'},
    {'rater': 'ben'},
    {'time': 'now'},
    {'gold': ''},
  ),
  'review': (
    {'keep': 1},
    {'keep': False},
    {'caption': ' \x00'},
    {'from': 2.0, 'to': 1.0},
    {'to': 99.0},
    {'from': float('nan')},
    {'labels': ['nice']},
    {'labels': [1]},
    {'labels': 'wide shot'},
    {'caption': 'x' * 5000},
    {'more': 1},
    {'reason': 'x' * 300, 'keep': False},
    {'from': True},
  ),
}


@both
def test_a_malformed_answer_gets_a_sentence_and_leaves_nothing(site):
  queue, ann, _ = site
  _, _, answer = ann.next()
  for wrong in (*MALFORMED, *(answer | each for each in WRONG[queue.kind])):
    status, said = ann.send(wrong)
    assert status == 400 and said['error'] and not lines(queue), wrong
  assert ann.ask(f'{ann.path}/next?back=x')[0] == 400
  assert ann.send(answer)[0] == 200


@both
def test_an_oversized_answer_is_refused_before_it_is_read(site):
  queue, ann, _ = site
  assert ann.send(b'x' * (queue.largest + 1))[0] == 413 and not lines(queue)
  with socket.create_connection(('127.0.0.1', ann.port), timeout=5) as raw:
    head = f'POST {ann.path}/answers HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n'
    raw.sendall(head.encode() + b'x' * (queue.largest + 4096))
    assert b' 413 ' in raw.recv(4096)


@both
def test_the_pages_policy_lets_its_own_script_run_and_loads_nothing(site):
  queue, ann, ben = site
  pages = [ann.ask(path) for path in (ann.path, ben.path, f'/o/{queue.operator}')]
  assert pages[0][2] == pages[1][2] == pages[2][2]  # nothing of an item can be in it
  _, headers, page = pages[0]
  policy = headers['content-security-policy']
  assert "default-src 'none'" in policy and len(re.findall('sha256-', policy)) == 1
  assert not re.search(rb'(src|href)="(?!data:,)', page)


@both
def test_a_part_of_a_video_can_be_had(site):
  _, ann, _ = site
  found, videos, _ = ann.next()
  (side, name), *_ = found['task']['media'].items()
  path = f'{ann.path}/{name}'
  status, headers, part = ann.ask(path, Range='bytes=10-19')
  assert status == 206 and part == videos[side][10:20]
  assert headers['content-range'] == f'bytes 10-19/{len(videos[side])}'
  assert ann.ask(path, Range=f'bytes={10**9}-')[0] == 416
  assert ann.ask(path, Range='bytes=' + '0-1,' * 400)[0] in (200, 400, 416)


@both
def test_a_server_that_is_started_again_goes_on(make):
  with served(make()) as people:
    token, (_, _, first) = people['ann'].token, people['ann'].next()
    people['ann'].send(first)
    second, _, later = people['ann'].next()
  with (queue := make()).log.open('ab') as file:
    file.write(b'{"id": "cut by a cr')
  with served(queue) as people:
    ann = people['ann']
    assert ann.token == token
    assert ann.send(first)[0] == 200  # it was saved; the answer to it may have been lost
    assert ann.send(later)[0] == 409  # it has to be asked first what this was about
    assert ann.next()[0] == second
    assert ann.send(later)[0] == 200
  assert list(make().answers) == [first['id'], later['id']]


@both
def test_a_full_disk_is_told_and_the_answer_may_come_again(site, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  queue, ann, _ = site
  _, _, answer = ann.next()
  with monkeypatch.context() as patched:
    patched.setattr('mgjax.apps.serving.annotation_queue.append_answer', full)
    status, said = ann.send(answer)
    assert status == 507 and 'No space left' in said['error']
  assert ann.send(answer)[0] == 200 and len(lines(queue)) == 1


def test_the_same_vote_from_many_connections_counts_once(site):
  queue, ann, _ = site
  _, _, vote = ann.next()

  def send(_):
    own = type(ann)(ann.port, ann.token)
    status = own.send(vote)[0]
    own.close()
    return status

  with ThreadPoolExecutor(16) as pool:
    assert set(pool.map(send, range(32))) == {200}
  assert len(lines(queue)) == 1


BEGUN = (
  b'',
  b'GET / HTTP/1.1\r\nX: ',
  b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n',
)


def test_who_trickles_a_request_is_cut_off_and_others_are_served(make, monkeypatch):
  monkeypatch.setattr(http, '_REQUEST', 0.5)
  with served(make()) as people:
    ann = people['ann']
    slow = [socket.create_connection(('127.0.0.1', ann.port)) for _ in range(21)]
    for number, each in enumerate(slow):
      each.sendall(BEGUN[number % 3])
      each.setblocking(False)
    assert ann.next()[0]['task']
    begun, open_ones = time.monotonic(), slow
    while open_ones and time.monotonic() < begun + 5:
      time.sleep(0.1)
      open_ones = [each for each in open_ones if trickle(each)]
    assert not open_ones and ann.ask('/')[0] == 404
    for each in slow:
      each.close()


def trickle(connection) -> bool:
  """Sends a byte, so that it is never idle, and says whether it is still open."""
  try:
    connection.sendall(b'a')
    return connection.recv(1) != b''
  except BlockingIOError:
    return True
  except OSError:
    return False


def test_a_folder_that_is_served_and_a_port_in_use_are_one_sentence(make, tmp_path):
  held = hold(tmp_path / 'x', 'folder')
  with ThreadPoolExecutor(1) as pool:
    pool.submit(held.__enter__).result()
    with pytest.raises(ConfigError, match='is in use by'):
      annotation.serve(tmp_path / 'x', Votes, port=0)
    pool.submit(held.__exit__, None, None, None).result()
  with (
    socket.create_server(('127.0.0.1', 0)) as taken,
    pytest.raises(ConfigError, match='take another'),
  ):
    annotation.serve(tmp_path / 'x', Votes, port=taken.getsockname()[1])


@both
def test_the_progress_says_how_far_it_is_and_not_who_wins(site):
  queue, ann, _ = site
  ann.send(ann.next()[2])
  _, _, state = ann.ask(f'/o/{queue.operator}/state')
  people = [[row[0]['text'], *map(str, row[1:3])] for row in state['tables'][-1]['rows']]
  if queue.kind == 'votes':
    assert [row[1:] for row in state['tables'][0]['rows']] == [[1, 4], [0, 4]]
    assert (
      people == [['ann', '3', '1'], ['ben', '4', '']] and '7 answers are missing' in state['sum']
    )
    assert not any(name in str(state) for name in ("'a'", "'b'", 'winner'))
  else:
    assert people == [['ann', '1', '1'], ['ben', '0', '0']]
  assert ann.ask(f'/o/{state["tables"][-1]["rows"][0][0]["link"]}'.replace('/o/..', ''))[0] == 200


# Votes alone.


def test_a_vote_is_given_once_and_for_all(site):
  _, ann, _ = site
  _, _, vote = ann.next()
  assert ann.send({'id': vote['id']}, 'skip')[0] == 409
  assert ann.send(vote)[0] == 200
  assert ann.ask(f'{ann.path}/next?back=1')[0] == 404


def test_what_was_chosen_is_the_model_that_was_shown_there(site, videos, tmp_path):
  _, ann, ben = site
  for person, choice in ((ann, 'left'), (ben, 'right')):
    found, shown, vote = person.next()
    while found['task']:
      assert person.send(vote, choice=choice)[0] == 200
      kept = read_votes(tmp_path / 'x')[-1]
      for side in ('left', 'right'):
        path = videos / getattr(kept, side) / f'{kept.prompt:05d}.mp4'
        assert shown[side] == path.read_bytes()
      assert kept.winner == getattr(kept, choice)
      found, shown, vote = person.next()
  votes = read_votes(tmp_path / 'x')
  assert len(votes) == 2 * 2 * 2
  assert {each.left for each in votes} == {'a', 'b'}


def test_a_vote_before_both_videos_were_there_is_refused(site):
  queue, ann, _ = site
  _, videos, vote = ann.next()
  for side, video in videos.items():
    for got in (b'', video[:-1]):
      status, said = ann.send(vote, **{side: zlib.crc32(got)})
      assert status == 409 and side in said['error']
  assert ann.send(vote, left=vote['right'], right=vote['left'])[0] == 409
  assert not lines(queue)


def test_a_link_out_of_a_folder_is_refused_before_and_after_the_study_began(
  site, tmp_path, monkeypatch
):
  queue, ann, _ = site
  (tmp_path / 'own').mkdir()
  (tmp_path / 'own' / '00000.mp4').symlink_to(tmp_path / 'secret.txt')
  with pytest.raises(Exception, match='leads out of'):
    studies.videos_of(tmp_path / 'own')
  name = ann.next()[0]['task']['media']['left']
  monkeypatch.setitem(
    queue._sent_files, ('ann', name), (tmp_path / 'own/00000.mp4', tmp_path / 'own')
  )
  status, _, answer = ann.ask(f'{ann.path}/{name}')
  assert status == 404 and SECRET not in str(answer)


def test_neither_answers_nor_headers_say_which_model_is_where(site, videos):
  _, ann, ben = site
  found, _, _ = ann.next()
  assert set(found['task']) == {'id', 'prompt', 'question', 'help', 'sound', 'frame', 'media'}
  names = [*found['task']['media'].values(), *found['ahead']]
  assert all(re.fullmatch('[0-9a-f]{32}', name) for name in names) and len({*names}) == 4
  assert not {*names} & {*ben.next()[0]['task']['media'].values()}  # others for each rater
  _, headers, _ = ann.ask(f'{ann.path}/{names[0]}')
  told = {'content-type', 'content-length', 'accept-ranges', 'date'}
  assert set(headers) == told | {name.lower() for name in http.HEADERS}
  assert headers['cache-control'] == 'no-store'
  assert str(videos) not in json.dumps([found, headers])


# Reviews alone.


@reviewed
def test_a_clip_is_shown_with_its_frames_and_what_is_known(site, inputs):
  queue, ann, _ = site
  found, videos, answer = ann.next()
  task = found['task']
  assert (task['clip'], task['seconds'], task['caption']) == ('0.mp4#0', 3.0, 'text 0')
  assert task['camera']['labels'] == ['pan right', 'truck right']
  assert [each for names in task['groups'].values() for each in names] == [*LABELS]
  info = probe(Blob('shown', videos['clip']))
  assert (info.frames, info.seconds) == (24, 3.0)
  whole = read_clip(inputs[0].path, frames=1, fps=8, size=(48, 64), start=0.5)
  shown = read_clip(Blob('shown', videos['clip']), frames=1, fps=8, size=(48, 64))
  # Noise that was encoded twice; another frame of it differs by 85.
  assert abs(whole.astype(float) - shown).mean() < 20
  changes = {'from': 1.0, 'to': 2.5, 'caption': ' A  dog\n', 'labels': ['wide shot']}
  assert ann.send(answer, **changes)[0] == 200
  assert ann.send(ann.next()[2], keep=False, reason='dull light')[0] == 200
  kept, dropped = queue.answers.values()
  assert (kept.first, kept.last, kept.caption) == (1.5, 3.0, 'A dog')
  assert (kept.labels, kept.keep) == (('wide shot',), True)
  assert (dropped.reason, dropped.caption) == ('dull light', None)  # nobody changed it


@reviewed
def test_people_never_look_at_one_clip_at_once_and_pass_it_on(site):
  queue, ann, ben = site
  first, second = ann.next()[2], ben.next()[2]
  assert first['id'] == ann.next()[2]['id'] and first['caption'] != second['caption']
  assert ann.send({'id': first['id']}, 'skip')[0] == 200
  third = ann.next()[0]['task']
  assert third['clip'] == '2.mp4#0'
  assert ben.send(second)[0] == 200
  assert ben.next()[0]['task']['clip'] == '0.mp4#0'  # what was passed on
  assert ann.next()[0]['task']['id'] == third['id']
  ann.send(ann.next()[2])
  assert ann.next()[0]['task'] is None and 'Others are looking' in ann.next()[0]['ended']
  assert ben.send({'id': ben.next()[2]['id']}, 'skip')[0] == 200
  assert ann.next()[0]['task']['clip'] == '0.mp4#0'  # nothing else is left
  assert [each.person for each in queue.answers.values()] == ['ben', 'ann']


@reviewed
def test_going_back_changes_a_decision(site):
  queue, ann, ben = site
  ann.send(ann.next()[2], keep=False, reason='jitter')
  ben.send(ben.next()[2])
  found, _, again = ann.next('?back=1')
  assert found['task']['clip'] == '0.mp4#0' and found['task']['decided']['reason'] == 'jitter'
  assert ann.send(again, caption='A cat.')[0] == 200
  assert ann.ask(f'{ann.path}/next?back=2')[0] == 404
  assert ann.next()[0]['task']['clip'] == '2.mp4#0'
  assert [(each.clip[0], each.keep) for each in queue.answers.values()] == [
    ('0', False),
    ('1', True),
    ('0', True),
  ]


@reviewed
def test_a_clip_that_cannot_be_shown_says_why_and_can_be_dropped(make, inputs, tmp_path):
  begin_review(tmp_path / 'x', inputs, [3])
  with served(make()) as people:
    found, videos, answer = people['ann'].next()
    assert 'cannot be shown' in videos['clip']['error']
    assert people['ann'].ask(f'{people["ann"].path}/{found["task"]["media"]["clip"]}')[0] == 422
    assert people['ann'].send(answer, keep=False, reason='broken')[0] == 200


@reviewed
def test_where_there_is_nothing_to_look_at_one_sentence_says_so(make, inputs, tmp_path):
  with pytest.raises(ConfigError, match=r'run launch\.curate with this --output first'):
    annotation.serve(tmp_path / 'none', lambda folder: Review(folder, inputs, ('ann',)), port=0)
  with pytest.raises(ConfigError, match='nobody looks at clips'):
    Review(tmp_path / 'x', inputs)
  with pytest.raises(ConfigError, match='other videos'):
    read_candidates(tmp_path / 'x', make_raw(tmp_path / 'others', 1))
  (tmp_path / 'x' / 'clips.json').write_text(json.dumps({'videos': 1}))
  with pytest.raises(ConfigError):
    make()


@both
def test_who_hangs_up_amid_an_answer_leaves_no_traceback(site, caplog):
  queue, ann, _ = site
  with socket.create_connection(('127.0.0.1', ann.port), timeout=5) as raw:
    raw.sendall(
      f'POST {ann.path}/answers HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{'.encode()
    )
    time.sleep(0.2)  # until it waits for the rest
  assert ann.next()[0]['task'] and not lines(queue)
  time.sleep(0.2)
  assert not [record for record in caplog.records if record.exc_info]
