"""Folders and buckets keep the same promises."""

import pickle
import uuid

import pytest

from mgjax.core.errors import ConfigError, StorageError
from mgjax.data.storage import open_storage


@pytest.fixture(params=['folder', 'memory', 'file'])
def place(request, tmp_path):
  return {
    'folder': str(tmp_path / 'here'),
    'file': f'file://{tmp_path}/over there',
    'memory': f'memory://{uuid.uuid4()}/here',
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


def test_what_is_no_place_is_refused():
  with pytest.raises(ConfigError, match='ftp://a is not a place for records'):
    open_storage('ftp://a')
