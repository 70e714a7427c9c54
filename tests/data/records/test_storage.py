"""Folders and buckets keep the same promises."""

import pickle
import uuid

import pytest

from mgjax.core.errors import ConfigError, StorageError
from mgjax.data.records.storage import open_storage
from tests.data.records.object_server import PAGE, object_server


@pytest.fixture(scope='module')
def server():
  with object_server() as server:
    yield server


@pytest.fixture(params=['folder', 'memory', 'file', 'gs', 's3'])
def place(request, tmp_path, server):
  name = uuid.uuid4()
  return {
    'folder': str(tmp_path / 'here'),
    'file': f'file://{tmp_path}/over%20there',
    'memory': f'memory://{name}/here',
    'gs': f'gs://bucket/{name}/over there',
    's3': f's3://bucket/{name}/here/',
  }[request.param]


def read(handle, offset, *sizes):
  buffers = [bytearray(size) for size in sizes]
  handle.read_into(offset, [memoryview(buffer) for buffer in buffers])
  return [bytes(buffer) for buffer in buffers]


def test_files_appear_whole_and_are_read_in_pieces(place):
  storage = open_storage(place)
  assert storage.names() == {}
  assert storage.read('a.json') is None
  with storage.partial('b') as partial:
    partial.write_bytes(b'0123456789')
    assert 'b' not in storage.names()
    storage.publish(partial, 'b')
  assert not partial.exists()
  storage.replace('a.json', b'old')
  storage.replace('a.json', b'new')
  assert sorted(storage.names()) == ['a.json', 'b']
  assert list(storage.names('a')) == ['a.json']
  assert set(storage.names().values()) <= {3, 10, None}
  assert storage.read('a.json') == b'new'
  for again in (storage, pickle.loads(pickle.dumps(storage))):
    assert read(again.open('b'), 2, 3, 0, 2) == [b'234', b'', b'56']
  storage.remove('b')
  storage.remove('b')
  assert list(storage.names()) == ['a.json']


def test_of_several_creators_the_first_wins(place):
  storage, other = open_storage(place), open_storage(place)
  assert storage.create('a', b'first')
  assert not other.create('a', b'second')
  assert storage.read('a') == b'first'
  assert list(storage.names()) == ['a']


def test_what_is_gone_or_cut_off_is_said_with_its_name(place):
  storage = open_storage(place)
  storage.replace('a', b'0123')
  with pytest.raises(StorageError, match=r'/a .*(cut off|OUT_OF_RANGE)'):
    read(storage.open('a'), 2, 1, 3)
  with pytest.raises(StorageError, match='/b is gone'):
    read(storage.open('b'), 0, 1)


def test_long_listings_are_whole_and_show_one_folder_only(place):
  storage, below = open_storage(place), open_storage(f'{place.rstrip("/")}/below')
  names = [f'{index:05d}' for index in range(3 * PAGE + 2)]
  for name in names:
    storage.replace(name, b'')
    below.replace(f'{name} below', b'')
  assert sorted(storage.names()) == names
  assert sorted(storage.names('0001')) == names[10:20]


def test_what_is_no_place_is_refused():
  with pytest.raises(ConfigError, match='ftp://a is not a place for records'):
    open_storage('ftp://a')
