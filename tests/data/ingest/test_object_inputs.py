"""Videos in a bucket are inputs as those in a folder are."""

import pickle
import uuid

import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.records.storage import ObjectStore
from tests.data.records.object_server import object_server

OBJECTS = {
  'b/red_ball-bounces_012.mp4': b'first',
  'b/.hidden.mp4': b'no',
  'a.MP4': b'second',
  'a.txt': b'eine Katze\n',
  'c.webm': b'third',
  'c.txt': b'\xff\xfe\xff',
  'lonely.txt': b'nobody',
  'notes.pdf': b'%PDF',
}


@pytest.fixture(params=['memory', 'gs', 's3'])
def url(request):
  with object_server():
    place = f'{request.param}://bucket/{uuid.uuid4()}/raw'
    store = ObjectStore(place)
    for name, data in OBJECTS.items():
      store.replace(name, data)
    yield place


def test_videos_in_a_bucket_are_inputs_with_captions(url):
  inputs = open_inputs(url)
  found = {each.name: each for each in inputs.between(0, len(inputs))}
  assert list(found) == sorted(
    ['a.MP4', 'b/red_ball-bounces_012.mp4', 'c.webm', 'lonely.txt', 'notes.pdf']
  )
  assert found['a.MP4'].caption == 'eine Katze' and found['a.MP4'].load() == b'second'
  assert found['b/red_ball-bounces_012.mp4'].caption == 'red ball bounces'
  assert found['b/red_ball-bounces_012.mp4'].path is None
  reasons = {name: each.reason for name, each in found.items() if isinstance(each, RejectedEntry)}
  assert set(reasons) == {'c.webm', 'lonely.txt', 'notes.pdf'} and 'UTF-8' in reasons['c.webm']
  assert open_inputs(url).identity == inputs.identity
  ObjectStore(url).replace('z.mp4', b'more')
  assert open_inputs(url).identity != inputs.identity


def test_a_part_of_them_travels_as_names(url):
  part = open_inputs(url).part(1, 3)
  sent = pickle.dumps(part)
  assert b'first' not in sent
  if not url.startswith('memory'):  # which is of one process
    assert pickle.loads(sent)[0].load() == b'first'
  assert len(part) == 2 and part[1].name == 'c.webm'


def test_what_a_bucket_cannot_give_is_a_sentence(url):
  inputs = open_inputs(url)
  ObjectStore(url).remove('a.MP4')
  with pytest.raises(DataError, match='no such object any more'):
    inputs[0].load()
  with pytest.raises(DataError, match='no video among 0 objects'):
    open_inputs(f'{url}/nothing')
  with pytest.raises(ConfigError, match='mount it'):
    open_inputs(url, 'tar')
