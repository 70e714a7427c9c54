"""Records in buckets: the same promises, kept over HTTP to a stand-in for the real services."""

import os
import random
import signal
import time
import uuid

import numpy as np
import pytest

from mgjax.core.errors import DataError, StorageError
from mgjax.data.records.reader import Records, verify_records, write_records
from mgjax.data.records.writer import RecordWriter
from tests.data.records import test_crashes as writers
from tests.data.records.object_server import object_server
from tests.data.records.record_rows import assert_same_row, make_rows


@pytest.fixture
def server():
  with object_server() as server:
    yield server


@pytest.fixture(params=['gs', 's3'])
def url(request, server):
  # A bucket of its own: tensorstore knows those that are still open by their names, and would go on
  # asking the server of an earlier test.
  return f'{request.param}://bucket-{uuid.uuid4()}/records'


def big_rows(count=6):
  generator = np.random.default_rng(0)
  return [
    {'x': generator.integers(0, 256, 150_000, np.uint8), 'index': index} for index in range(count)
  ]


def test_records_are_written_and_read_at_a_url(url):
  rows = make_rows()
  records = write_records(url, rows, rows_per_shard=4, meta={'of': 'digits'}, columns=['index'])
  assert len(records) == len(rows)
  assert records.meta == {'of': 'digits'}
  for index in (9, 0, *range(10)):
    assert_same_row(records[index], rows[index])
  np.testing.assert_array_equal(records.column('index'), range(10))
  assert verify_records(url) == []
  assert RecordWriter(url, rows=10, rows_per_shard=4, meta={'of': 'digits'}, columns=['index'])


def test_a_row_costs_one_request_of_its_own_size(url, server):
  rows = big_rows()
  write_records(url, rows, rows_per_shard=6)
  records = Records(url)
  assert_same_row(records[3], rows[3])  # and the index of the shard
  before = len(server.requests)
  for index in (5, 0, 2):
    assert_same_row(records[index], rows[index])
  answers = [size for method, _, size in server.requests[before:] if method == 'GET']
  assert len(answers) == 3
  for size in answers:
    assert 150_000 < size < 150_500  # the header of the row, and those of blocks of 64 KiB


def test_captions_cost_a_request_a_shard_and_no_rows(url, server):
  rows = [{**row, 'caption': f'clip {row["index"]} ✓', 'fps': 16.0} for row in big_rows()]
  records = write_records(url, rows, rows_per_shard=3)
  before = len(server.requests)
  assert [found['caption'] for found in records.captions()] == [row['caption'] for row in rows]
  answers = [size for method, _, size in server.requests[before:] if method == 'GET']
  assert sum(answers) < 10_000  # listings among them


def test_a_lost_shard_and_a_damaged_row_are_told_apart(url, server):
  rows = big_rows()
  records = write_records(url, rows, rows_per_shard=2)
  first, second, third = sorted(name for name in server.objects if name.endswith('.arrayrecord'))
  data = bytearray(server.objects[first])
  data[len(data) // 5] ^= 1
  server.objects[first] = bytes(data)
  server.objects[second] = server.objects[second][:1000]
  del server.objects[third]
  with pytest.raises(DataError, match=r'arrayrecord is damaged at its row 0') as caught:
    records[0]
  assert not isinstance(caught.value, StorageError)
  with pytest.raises(StorageError, match=r'00001-\w+\.arrayrecord'):
    records[3]
  with pytest.raises(StorageError, match=r'00002-\w+\.arrayrecord is gone'):
    records[4]
  assert len(verify_records(url)) == 3
  with pytest.raises(StorageError, match=r'00002-\w+\.arrayrecord is missing'):
    Records(url)
  left = Records(url, skip_missing=True)
  assert len(left) == 4
  assert '2 rows left out' in left.skipped[0]


def test_what_fails_for_a_moment_is_asked_for_again(url, server):
  records = write_records(url, make_rows(), rows_per_shard=4)
  server.failures = 1
  assert_same_row(records[2], make_rows()[2])
  assert server.failures == 0


def test_whoever_may_not_read_is_told_so(url, server):
  records = write_records(url, make_rows(), rows_per_shard=4)
  server.forbidden = True
  with pytest.raises(StorageError, match=r'records/00000-\w+\.\S+ cannot be reached.*403'):
    records[2]
  with pytest.raises(StorageError, match=r'cannot be reached.*403'):
    Records(url)


def test_writers_at_a_url_may_be_killed(url, server):
  chance = random.Random(0)
  for _ in range(3):
    processes = [writers.start(url, process, 2) for process in range(2)]
    for process in processes:
      assert process.stdout.readline() == 'ready\n'
    for process in processes:
      time.sleep(chance.uniform(0, 0.5))
      process.send_signal(signal.SIGKILL)
      process.wait()
      process.stdout.close()
  writers.write(url)
  writers.assert_whole(url)
  assert os.environ['TENSORSTORE_GCS_HTTP_URL'].endswith(str(server.server_port))
