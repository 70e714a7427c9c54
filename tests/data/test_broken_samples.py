"""Broken samples: replaced the same everywhere, counted, named once; lost shards: an end."""

import json
import logging
import pickle

import numpy as np
import pytest

from mgjax.core.errors import DataError, StorageError
from mgjax.data.batch_order import ShapeBucket, make_batches, make_ordered_batches
from mgjax.data.broken_samples import Replacing
from mgjax.data.loader import StepIterator


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
  monkeypatch.setattr('mgjax.data.broken_samples._told', set())


class Fragile:
  """Numbers, some of which break when they are read."""

  def __init__(self, count=40, broken=(), error=DataError):
    self.count, self.broken, self.error = count, frozenset(broken), error

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    if index in self.broken:
      raise self.error(f'file {index} is damaged')
    return {'index': np.int32(index)}


def transform(sample):
  return {'index': sample['index']}


def buckets(broken, quarantine=None):
  source = Replacing(Fragile(broken=broken), 'a', quarantine)
  return [ShapeBucket('a', source, 8, 1, transform)]


def read(broken, steps=10, start=0, **options):
  batches = make_batches(buckets(broken), seed=0)
  with StepIterator(batches, start, **options) as iterator:
    return [next(iterator)['index'] for _ in range(steps - start)], iterator.replaced


def test_whole_samples_pass_unchanged_and_none_is_counted():
  found, replaced = read(())
  assert replaced == 0
  np.testing.assert_array_equal(np.sort(np.concatenate(found[:5])), np.arange(40))


@pytest.mark.parametrize('options', [{'threads': 0}, {'threads': 7}, {'threads': 2, 'workers': 2}])
def test_what_takes_the_place_of_a_broken_sample_depends_on_its_index_alone(options):
  broken = (3, 4, 17)
  undisturbed, expected = read(())[0], read(broken, threads=1)
  found, replaced = read(broken, **options)
  np.testing.assert_array_equal(found, expected[0])
  changed = np.flatnonzero(np.ravel(found) != np.ravel(undisturbed))
  # Each of the three comes once an epoch, and 80 samples are two epochs.
  assert replaced == expected[1] == 6 == len(changed)
  assert not set(np.ravel(found)) & set(broken)
  np.testing.assert_array_equal(read(broken, start=6, **options)[0], found[6:])


def test_every_reason_is_listed_and_logged_once(tmp_path, caplog):
  quarantine = tmp_path / 'quarantine.jsonl'
  source = Replacing(Fragile(broken=(3, 5)), 'clips', quarantine)
  with caplog.at_level(logging.WARNING):
    for _ in range(3):
      assert [int(source[i]['replaced']) for i in (2, 3, 4, 5)] == [0, 1, 0, 1]
  lines = [json.loads(line) for line in quarantine.read_text().splitlines()]
  assert lines == [
    {'bucket': 'clips', 'sample': i, 'reason': f'file {i} is damaged'} for i in (3, 5)
  ]
  other = Replacing(Fragile(broken=(3,)), 'of a later stage', tmp_path / 'later.jsonl')
  assert other[3]['replaced'] == 1
  assert len((tmp_path / 'later.jsonl').read_text().splitlines()) == 1
  assert caplog.text.count('file 3 is damaged') == 1
  twin = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(twin[3]['index'], source[3]['index'])


def test_a_lost_shard_is_not_replaced():
  source = Replacing(Fragile(broken=(3,), error=StorageError))
  with pytest.raises(StorageError, match='file 3'):
    source[3]


def test_nothing_but_broken_samples_ends_with_a_sentence():
  source = Replacing(Fragile(broken=range(40)))
  with pytest.raises(DataError, match=r'in a row could not be read.*is their disk still there'):
    source[0]


def test_validation_is_counted_as_well():
  with StepIterator(make_ordered_batches(buckets((1, 9))[0], 2)) as iterator:
    assert next(iterator).keys() == {'index'} and iterator.replaced == 1
    next(iterator)
  assert iterator.replaced == 2
