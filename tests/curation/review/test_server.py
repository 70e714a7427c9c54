"""People look at clips over HTTP: real videos, several at once, servers that are started again."""

import json

import pytest

from mgjax.core.errors import ConfigError
from mgjax.curation.review.candidates import read_candidates
from mgjax.curation.review.decisions import FILE, read_decisions
from mgjax.curation.review.desk import Desk
from mgjax.curation.review.labels import LABELS
from mgjax.curation.review.server import serve
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.media.containers import Blob
from mgjax.media.video import probe, read_clip
from tests.curation.review.tiny_review import begin, make_videos, row, served

pytest.importorskip('uvicorn', reason='needs the extra compare')


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  return make_videos(tmp_path_factory.mktemp('review') / 'raw', 3)


@pytest.fixture
def folder(inputs, tmp_path):
  begin(tmp_path / 'review', inputs, [row(0), row(1), row(2)])
  return tmp_path / 'review'


def decided(folder):
  return read_decisions(folder / FILE)


def test_a_clip_is_shown_with_its_frames_and_what_is_known(folder, inputs):
  with served(folder, inputs, ('ann',)) as people:
    task = people['ann'].next()['task']
    assert (task['clip'], task['seconds'], task['caption']) == ('0.mp4#0', 3.0, 'text 0')
    assert task['camera']['labels'] == ['pan right', 'truck right']
    assert [each for names in task['groups'].values() for each in names] == [*LABELS]
    status, headers, video = people['ann'].media(task['media'])
    assert status == 200 and headers['content-type'] == 'video/mp4'
    info = probe(Blob('shown', video))
    assert (info.frames, info.seconds) == (24, 3.0)
    whole = read_clip(inputs[0].path, frames=1, fps=8, size=(48, 64), start=0.5)
    shown = read_clip(Blob('shown', video), frames=1, fps=8, size=(48, 64))
    # Noise that was encoded twice; another frame of it differs by 85.
    assert abs(whole.astype(float) - shown).mean() < 20
    assert people['ann'].media(task['media'])[2] == video
    assert people['ann'].media('0' * 32)[0] == 404


def test_a_decision_is_on_the_disk_when_it_is_acknowledged_and_counts_once(folder, inputs):
  with served(folder, inputs, ('ann',)) as people:
    task = people['ann'].next()['task']
    changes = {'from': 1.0, 'to': 2.5, 'caption': ' A  dog\n', 'labels': ['wide shot']}
    for _ in range(3):
      assert people['ann'].send(task, **changes)[0] == 200
      (kept,) = decided(folder)
    assert (kept.first, kept.last, kept.caption) == (1.5, 3.0, 'A dog')
    assert (kept.person, kept.labels, kept.keep) == ('ann', ('wide shot',), True)
    found = people['ann'].next()
    assert (found['done'], found['kept'], found['task']['clip']) == (1, 1, '1.mp4#0')
    assert people['ann'].send(found['task'], keep=False, reason='dull light')[0] == 200
    assert decided(folder)[1].reason == 'dull light'
    assert decided(folder)[1].caption is None  # nobody changed it


def test_several_people_never_look_at_the_same_clip_at_once(folder, inputs):
  with served(folder, inputs, ('ann', 'ben', 'cem', 'dia')) as people:
    tasks = {name: person.next()['task'] for name, person in people.items()}
    assert tasks.pop('dia') is None  # three clips
    assert len({task['clip'] for task in tasks.values()}) == 3
    assert people['ann'].next()['task']['clip'] == tasks['ann']['clip']
    assert people['ben'].send(tasks['ann'])[0] == 409
    for name, task in tasks.items():
      assert people[name].send(task)[0] == 200
    assert people['dia'].next()['left_by_others'] == 0
  assert [each.person for each in decided(folder)] == ['ann', 'ben', 'cem']


def test_a_clip_that_is_left_goes_to_others_and_comes_back_last(folder, inputs):
  with served(folder, inputs, ('ann', 'ben')) as people:
    first = people['ann'].next()['task']
    assert people['ann'].post('skip', {'id': first['id']})[0] == 200
    second = people['ann'].next()['task']
    assert second['clip'] == '1.mp4#0'
    people['ann'].send(second)
    people['ann'].send(people['ann'].next()['task'])
    assert people['ann'].next()['task']['clip'] == '0.mp4#0'
    assert people['ann'].post('skip', {'id': first['id']})[0] == 200
    assert people['ben'].next()['task']['clip'] == '0.mp4#0'
  assert len(decided(folder)) == 2


def test_going_back_changes_a_decision(folder, inputs):
  with served(folder, inputs, ('ann', 'ben')) as people:
    ann = people['ann']
    ann.send(ann.next()['task'], keep=False, reason='jitter')
    people['ben'].send(people['ben'].next()['task'])
    again = ann.next(back=1)['task']
    assert again['clip'] == '0.mp4#0' and again['decided']['reason'] == 'jitter'
    assert ann.send(again, caption='A cat.')[0] == 200
    assert ann.client.ask(f'{ann.path}/next?back=2')[0] == 404
    assert ann.next()['task']['clip'] == '2.mp4#0'
  assert [(each.clip[0], each.keep) for each in decided(folder)] == [
    ('0', False), ('1', True), ('0', True)
  ]  # fmt: skip


def test_a_server_that_is_started_again_goes_on_and_links_stay(folder, inputs):
  with served(folder, inputs, ('ann',)) as people:
    path, first = people['ann'].path, people['ann'].next()['task']
    people['ann'].send(first)
    later = people['ann'].next()['task']
  with (folder / FILE).open('ab') as file:
    file.write(b'{"id": "cut by a cr')
  with served(folder, inputs, ('ben',)) as people:
    assert set(people) == {'ann', 'ben'} and people['ann'].path == path
    assert people['ann'].send(first)[0] == 200  # it was saved; the answer may have been lost
    assert people['ann'].send(later)[0] == 409  # it has to be asked first what this was about
    assert people['ann'].next()['task']['id'] == later['id']
    assert people['ann'].send(later)[0] == 200
  assert [each.id for each in decided(folder)] == [first['id'], later['id']]


def test_a_clip_that_cannot_be_shown_says_why_and_can_be_dropped(inputs, tmp_path):
  begin(tmp_path, inputs, [row(3)])
  with served(tmp_path, inputs, ('ann',)) as people:
    task = people['ann'].next()['task']
    status, _, answer = people['ann'].media(task['media'])
    assert status == 422 and 'cannot be shown' in answer['error']
    assert people['ann'].send(task, keep=False, reason='broken')[0] == 200


WRONG = (
  b'', b'{', b'[]', b'{"id": 1}', {'keep': 1}, {'keep': False}, {'caption': ' \x00'},
  {'from': 2.0, 'to': 1.0}, {'to': 99.0}, {'from': float('nan')}, {'labels': ['nice']},
  {'labels': [1]}, {'labels': 'wide shot'}, {'caption': 'x' * 5000}, {'more': 1},
  {'reason': 'x' * 300, 'keep': False}, {'from': True},
)  # fmt: skip


@pytest.mark.parametrize('wrong', WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_what_is_no_decision_is_refused_and_nothing_is_written(folder, inputs, wrong):
  with served(folder, inputs, ('ann',)) as people:
    task = people['ann'].next()['task']
    if isinstance(wrong, bytes):
      status, answer = people['ann'].post('decisions', wrong)
    else:
      status, answer = people['ann'].send(task, **wrong)
    assert status == 400 and answer['error'], answer
  assert decided(folder) == []


def test_without_an_invitation_there_is_nothing(folder, inputs):
  with served(folder, inputs, ('ann',)) as people:
    ann = people['ann']
    name = ann.next()['task']['media']
    for token in ('', 'x', '0' * 32, 'ann', '..', '%2e%2e'):
      for path in (f'/r/{token}', f'/r/{token}/next', f'/r/{token}/{name}', '/', '/r/'):
        assert ann.client.ask(path)[0] == 404, path
    for path in ('../people.json', '..%2fpeople.json', 'clips.parquet', '%2fetc%2fpasswd'):
      assert ann.client.ask(f'{ann.path}/{path}')[0] == 404
    status, headers, page = ann.client.ask(ann.path)
    assert status == 200 and "default-src 'none'" in headers['content-security-policy']
    assert b'src="' not in page
    assert ann.post('decisions', b'x' * 70_000)[0] == 413
  assert (folder / 'people.json').stat().st_mode & 0o077 == 0


def test_a_full_disk_is_told_and_the_decision_may_come_again(folder, inputs, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  with served(folder, inputs, ('ann',)) as people:
    task = people['ann'].next()['task']
    with monkeypatch.context() as patched:
      patched.setattr('mgjax.curation.review.desk.append_decision', full)
      status, answer = people['ann'].send(task)
      assert status == 507 and 'No space left' in answer['error']
    assert people['ann'].send(task)[0] == 200
  assert len(decided(folder)) == 1


def test_where_there_is_nothing_to_look_at_one_sentence_says_so(folder, inputs, tmp_path):
  with pytest.raises(ConfigError, match='holds no review'):
    serve(tmp_path / 'none', inputs, ('ann',), port=0)
  with pytest.raises(ConfigError, match='nobody looks at clips'):
    Desk(folder, inputs)
  others = make_videos(tmp_path / 'others', 1)
  with pytest.raises(ConfigError, match='other videos'):
    read_candidates(folder, others)
  (folder / 'clips.json').write_text(json.dumps({'videos': 1}))
  with pytest.raises(ConfigError):
    Desk(folder, open_inputs(str(tmp_path / 'others')), ('ann',))
