"""Captions are read from files of their own: cheaply, and never wrong ones."""

import gzip
import json

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.records import storage
from mgjax.data.records.reader import Records, verify_records, write_records
from mgjax.data.records.storage import Folder
from mgjax.data.records.writer import RecordWriter


def make_rows(count=10, size=16_384):
  return [
    {
      'latents': np.full(size, index, np.uint8),
      'caption': f'the green digit {index} moves left \u2028 ✓',
      **({'fps': np.float32(16)} if index % 2 else {}),
      'source': f'{index}.mp4',
    }
    for index in range(count)
  ]


def captions(rows):
  return [{'caption': row['caption'], **({'fps': 16.0} if 'fps' in row else {})} for row in rows]


def caption_files(directory):
  return {path.name: path.read_bytes() for path in sorted(directory.glob('*.captions-*'))}


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'records'


@pytest.fixture
def read(monkeypatch):
  """Counts the bytes that are read of any file of records."""
  counted = {'bytes': 0}
  whole, pieces = Folder.read, storage._Descriptor.read_into

  def counting_read(self, name):
    data = whole(self, name)
    counted['bytes'] += len(data or b'')
    return data

  def counting_pieces(self, offset, buffers):
    counted['bytes'] += sum(map(len, buffers))
    pieces(self, offset, buffers)

  monkeypatch.setattr(Folder, 'read', counting_read)
  monkeypatch.setattr(storage._Descriptor, 'read_into', counting_pieces)
  return counted


def test_captions_of_all_rows_come_without_what_they_describe(directory, read):
  rows = make_rows(200)
  records = write_records(directory, rows, rows_per_shard=64)
  read['bytes'] = 0
  assert list(records.captions()) == captions(rows)
  assert read['bytes'] == sum(map(len, caption_files(directory).values())) < 20 * len(rows)
  records[0]
  assert read['bytes'] > 16_384  # what is counted is what is read


def test_records_of_earlier_versions_say_that_rows_are_read_and_can_get_captions(
  directory, caplog, read
):
  rows = make_rows()
  write_records(directory, rows, rows_per_shard=4)
  before = caption_files(directory)
  for name in before:
    (directory / name).unlink()
  assert verify_records(directory) == []
  assert list(Records(directory).captions()) == captions(rows)
  assert '3 of 3 shards have no file of captions' in caplog.text
  assert not caption_files(directory)
  assert list(Records(directory).captions(keep=True)) == captions(rows)
  assert caption_files(directory) == before
  caplog.clear()
  read['bytes'] = 0
  assert list(Records(directory).captions()) == captions(rows)
  assert not caplog.text
  assert read['bytes'] < 16_384


@pytest.mark.parametrize('damage', ['flipped', 'cut', 'empty', 'of another shard', 'fewer rows'])
def test_damaged_captions_are_never_used(directory, caplog, damage):
  rows = make_rows()
  write_records(directory, rows, rows_per_shard=4)
  before = caption_files(directory)
  (first, data), (second, other) = list(before.items())[:2]
  if damage == 'fewer rows':  # a whole file, whose name says so, as no writer makes it
    lines = gzip.decompress(data).splitlines(keepends=True)
    writer = RecordWriter(directory / 'short', rows=3, rows_per_shard=4)
    writer.write_shard(0, [json.loads(line) for line in lines[:3]])
    ((name, data),) = caption_files(directory / 'short').items()
    (directory / first).unlink()
    first = first.partition('.')[0] + '.' + name.partition('.')[2]
    (directory / first).write_bytes(data)
  else:
    flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
    damaged = {'flipped': flipped, 'cut': data[:-9], 'empty': b'', 'of another shard': other}
    (directory / first).write_bytes(damaged[damage])
  (fault,) = verify_records(directory)
  assert f'{first} is damaged; delete it' in fault
  assert list(Records(directory).captions()) == captions(rows)
  assert f'{first} is damaged; the rows are read instead' in caplog.text
  assert second not in caplog.text
  list(Records(directory).captions(keep=True))
  assert before.items() <= caption_files(directory).items()


def test_captions_come_of_the_shards_that_are_left(directory):
  rows = make_rows()
  write_records(directory, rows, rows_per_shard=4)
  (directory / Records(directory)._shards[1]['name']).unlink()
  records = Records(directory, skip_missing=True)
  assert list(records.captions()) == captions(rows[:4] + rows[8:])


def test_rows_without_captions_have_no_file_of_them_and_say_so(directory):
  records = write_records(directory, [{'x': 1}, {'x': 2, 'caption': 'two'}], rows_per_shard=2)
  assert not caption_files(directory)
  with pytest.raises(DataError, match=r'row 0 of .*records has no caption'):
    list(records.captions())


def test_inputs_that_give_no_row_have_no_caption(directory):
  writer = RecordWriter(directory, rows=9, rows_per_shard=3, exact=False)
  rows = make_rows(9)
  kept = {0: rows[1:2], 1: [], 2: rows[6:]}
  for shard in writer.missing_shards():
    writer.write_shard(shard, kept[shard])
  writer.finish()
  assert list(Records(directory).captions()) == captions(kept[0] + kept[2])
