"""Writers of records that are killed, or get into each other's way: nothing is lost or doubled."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.records.reader import Records, verify_records
from mgjax.data.records.storage import open_storage
from mgjax.data.records.writer import RecordWriter

ROWS, ROWS_PER_SHARD = 60, 5
OPTIONS = {'rows': ROWS, 'rows_per_shard': ROWS_PER_SHARD, 'columns': ['index'], 'exact': False}


def make_row(index):
  return {'index': index, 'x': np.random.default_rng(index).integers(0, 256, 30_000, np.uint8)}


def is_kept(index):
  return index % 7 != 3


def write(directory, process=0, processes=1, seconds=0.0):
  """Writes what is missing of a stripe, slowly, and finishes what has become whole."""
  writer = RecordWriter(directory, **OPTIONS)
  for shard in writer.missing_shards(process, processes):
    rejected = []

    def rows(shard=shard, rejected=rejected):
      for index in writer.shard_rows(shard):
        time.sleep(seconds)
        if is_kept(index):
          yield make_row(index)
        else:
          rejected.append(index)

    writer.write_shard(shard, rows(), notes=lambda rejected=rejected: rejected)
  if not writer.missing_shards():
    writer.finish()


def assert_whole(directory):
  """No row is lost or doubled, the checksums hold, nothing else is left."""
  records = Records(directory)
  kept = [index for index in range(ROWS) if is_kept(index)]
  np.testing.assert_array_equal(records.column('index'), kept)
  for position, index in enumerate(kept):
    row, expected = records[position], make_row(index)
    assert row['index'] == index
    np.testing.assert_array_equal(row['x'], expected['x'])
  shards = RecordWriter(directory, **OPTIONS).shards()
  rejected = [index for shard in shards for index in shard['notes']]
  assert rejected == [index for index in range(ROWS) if not is_kept(index)]
  assert verify_records(directory) == []
  assert len(shards) == ROWS // ROWS_PER_SHARD
  names = sorted(open_storage(directory).names())
  assert len(names) == 2 * len(shards) + 1, names


def start(directory, process=0, processes=1, seconds=0.002):
  code = (
    'import sys; from tests.data.records.test_crashes import write; '
    'print("ready", flush=True); '
    'write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))'
  )
  arguments = [str(value) for value in (directory, process, processes, seconds)]
  return subprocess.Popen(
    [sys.executable, '-c', code, *arguments], stdout=subprocess.PIPE, text=True
  )


def test_many_may_write_the_same_and_finish_at_once(tmp_path):
  writers = [start(tmp_path, seconds=0) for _ in range(3)]
  for writer in writers:
    writer.communicate()
    assert writer.returncode == 0
  assert_whole(tmp_path)


def test_who_finishes_while_another_clears_up_has_finished(tmp_path, monkeypatch):
  writers = [RecordWriter(tmp_path, rows=2, rows_per_shard=2, columns=['index']) for _ in range(2)]
  writers[0].write_shard(0, [{'index': 0}, {'index': 1}])
  chmod = os.chmod

  def another_finishes(*arguments):
    monkeypatch.undo()
    writers[1].finish()  # which removes the manifest that the first one is about to rename
    chmod(*arguments)

  monkeypatch.setattr(os, 'chmod', another_finishes)
  writers[0].finish()
  assert os.chmod is chmod
  assert Records(tmp_path).column('index').tolist() == [0, 1]
  assert verify_records(tmp_path) == []


def test_of_two_different_shards_the_first_stays_whole(tmp_path):
  writers = [RecordWriter(tmp_path, rows=2, rows_per_shard=2) for _ in range(2)]
  first, second = ([{'caption': name}, {'caption': name}] for name in ('first', 'second'))

  def rows_during_which_another_writes():
    yield second[0]
    writers[0].write_shard(0, first, notes=lambda: 'first')
    yield second[1]

  writers[1].write_shard(0, rows_during_which_another_writes(), notes=lambda: 'second')
  (entry,) = writers[1].shards()
  assert entry['notes'] == 'first'
  assert len(list(tmp_path.iterdir())) == 5  # the plan, the entry and the three files of the first
  writers[1].finish()
  records = Records(tmp_path)
  assert [records[index]['caption'] for index in range(2)] == ['first'] * 2
  assert list(records.captions()) == [{'caption': 'first'}] * 2


def test_whoever_comes_after_the_finish_changes_nothing(tmp_path):
  late = RecordWriter(tmp_path, rows=1, rows_per_shard=1)

  def rows_during_which_another_finishes():
    writer = RecordWriter(tmp_path, rows=1, rows_per_shard=1)
    writer.write_shard(0, [{'from': 'first'}])
    writer.finish({'by': 'first'})
    yield {'from': 'late'}

  late.write_shard(0, rows_during_which_another_finishes())
  late.finish({'by': 'late'})
  records = Records(tmp_path)
  assert records[0]['from'] == 'first'
  assert records.summary == {'by': 'first'}
  assert len(list(tmp_path.iterdir())) == 3


def test_stripes_share_all_shards(tmp_path):
  writer = RecordWriter(tmp_path, rows=20, rows_per_shard=2)
  writer.write_shard(4, [{'x': 0}] * 2)
  stripes = [writer.missing_shards(process, 3) for process in range(3)]
  assert stripes == [[0, 3, 6, 9], [1, 7], [2, 5, 8]]
  for process, processes in ((3, 3), (-1, 2), (0, 0)):
    with pytest.raises(ConfigError, match=f'process={process}'):
      writer.missing_shards(process, processes)
