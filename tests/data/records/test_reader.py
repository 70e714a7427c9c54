"""Records: what is written is read back, whatever happens in between."""

import concurrent.futures
import json
import os
import pathlib
import pickle
import resource
import shutil

import grain
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.data.records.reader import Records, verify_records, write_records
from mgjax.data.records.rows import decode_row
from mgjax.data.records.writer import RecordWriter
from tests.data.records.record_rows import assert_same_row, make_rows
from tests.folders import files_of


def shard_files(directory):
  return sorted(directory.glob('*.arrayrecord'))


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'records'


@pytest.mark.parametrize('rows_per_shard', [1, 4, 5, 10, 100])
def test_records_are_a_source_of_the_rows(directory, rows_per_shard):
  rows = make_rows()
  records = write_records(directory, rows, rows_per_shard=rows_per_shard, meta={'config': 'abc'})
  assert len(records) == len(rows)
  assert records.meta == {'config': 'abc'}
  for index in (9, 0, *range(10)):
    assert_same_row(records[index], rows[index])
  for index in (-1, 10):
    with pytest.raises(IndexError):
      records[index]
  assert_same_row(pickle.loads(pickle.dumps(records))[7], rows[7])
  assert verify_records(directory) == []
  order = list(range(10)) * 20
  with concurrent.futures.ThreadPoolExecutor(8) as pool:  # threads may read at once
    for index, row in zip(order, pool.map(records.__getitem__, order), strict=True):
      assert_same_row(row, rows[index])


class Killed(BaseException):
  pass


class KilledAt(list):
  """Rows that end the process, so to speak, when row `index` is asked for."""

  def __init__(self, rows, index):
    super().__init__(rows)
    self.index, self.asked = index, []

  def __getitem__(self, index):
    if index == self.index:
      raise Killed
    self.asked.append(index)
    return super().__getitem__(index)


@pytest.mark.parametrize('kill', [0, 4, 6, 9])
def test_killed_and_resumed_the_directory_is_the_same(tmp_path, kill):
  rows, options = make_rows(), {'rows_per_shard': 4, 'meta': {'size': (1, 2)}}
  write_records(tmp_path / 'whole', rows, **options)
  with pytest.raises(Killed):
    write_records(tmp_path / 'killed', KilledAt(rows, kill), **options)
  with pytest.raises(DataError, match=r'no manifest.json.*unfinished.*run the command'):
    Records(tmp_path / 'killed')
  for name in ('.00001.arrayrecord.0.partial', '.00000.json.0', '00002-ab.arrayrecord'):
    (tmp_path / 'killed' / name).write_bytes(b'half')  # as SIGKILL leaves it
  again = KilledAt(rows, None)
  write_records(tmp_path / 'killed', again, **options)
  assert again.asked == list(range(kill // 4 * 4, 10))
  again.asked.clear()
  write_records(tmp_path / 'killed', again, **options)
  assert not again.asked  # what is finished is left alone
  assert files_of(tmp_path / 'killed') == files_of(tmp_path / 'whole')
  # Of each shard its captions and its index beside it.
  names = [name[:5] for name in files_of(tmp_path / 'whole')]
  assert names == [*3 * ['00000'], *3 * ['00001'], *3 * ['00002'], 'manif']


@pytest.mark.parametrize(
  'change', [{'rows': 11}, {'rows_per_shard': 5}, {'meta': {'config': 'new'}}]
)
@pytest.mark.parametrize('finished', [False, True])
def test_a_directory_begun_with_other_values_is_refused(directory, change, finished):
  options = {'rows': 10, 'rows_per_shard': 10, 'meta': {'config': 'old'}}
  writer = RecordWriter(directory, **options)
  writer.write_shard(0, make_rows())
  if finished:
    writer.finish()
  with pytest.raises(ConfigError, match=f'begun with other values: {next(iter(change))}'):
    RecordWriter(directory, **options | change)


@pytest.mark.parametrize('count', [0, 3, 5])
def test_a_shard_with_a_wrong_number_of_rows_is_refused(directory, count):
  writer = RecordWriter(directory, rows=8, rows_per_shard=4)
  with pytest.raises(DataError, match=f'has 4 rows, but {count} were given'):
    writer.write_shard(0, make_rows(count))
  assert writer.missing_shards() == [0, 1]
  assert [path.name for path in directory.iterdir()] == ['plan.json']
  with pytest.raises(ConfigError, match='rows=0'):
    RecordWriter(directory, rows=0, rows_per_shard=4)


def test_a_truncated_or_missing_shard_is_detected_and_mended(directory):
  rows = make_rows()
  write_records(directory, rows, rows_per_shard=4)
  whole = files_of(directory)
  shard = shard_files(directory)[1]
  shard.write_bytes(shard.read_bytes()[:-100])
  with pytest.raises(StorageError, match=rf'{shard.name} has \d+ bytes instead of \d+; delete'):
    Records(directory)
  assert len(verify_records(directory)) == 1
  shard.unlink()
  with pytest.raises(StorageError, match=f'{shard.name} is missing'):
    Records(directory)
  again = KilledAt(rows, None)
  write_records(directory, again, rows_per_shard=4)
  assert again.asked == [4, 5, 6, 7]
  assert files_of(directory) == whole


def test_rows_of_missing_shards_are_left_out_aloud_if_asked_for(directory, caplog):
  rows = make_rows()
  write_records(directory, rows, rows_per_shard=3, columns=['index'])
  gone, cut, *_ = shard_files(directory)
  gone.unlink()
  cut.write_bytes(cut.read_bytes()[:-1])
  records = Records(directory, skip_missing=True)
  assert len(records) == 4
  for index, row in enumerate(rows[6:]):
    assert_same_row(records[index], row)
  np.testing.assert_array_equal(records.column('index'), [6, 7, 8, 9])
  for sentence, name in zip(records.skipped, (gone.name, cut.name), strict=True):
    assert name in sentence
    assert '3 rows left out' in sentence
    assert sentence in caplog.text
  for shard in shard_files(directory):
    shard.unlink()
  with pytest.raises(StorageError, match='every shard is missing'):
    Records(directory, skip_missing=True).column('index')


def test_a_full_disk_is_named_and_the_same_call_goes_on_later(directory):
  rows = [{'index': i, 'array': np.zeros(4096, np.uint8)} for i in range(8)]
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
  try:
    with pytest.raises(StorageError, match=r'cannot be written to: .*too large.*make room'):
      write_records(directory, rows, rows_per_shard=4)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert len(write_records(directory, rows, rows_per_shard=4)) == 8


def test_a_shard_that_vanishes_later_is_told_from_a_damaged_row(directory):
  rows = make_rows()
  records = write_records(directory, rows, rows_per_shard=4)
  first, second, third = shard_files(directory)
  second.unlink()
  assert_same_row(records[0], rows[0])
  with pytest.raises(StorageError, match=f'{second.name} is gone'):
    records[4]
  third.write_bytes(third.read_bytes()[:300])
  with pytest.raises(StorageError, match=f'{third.name} ends before its byte'):
    records[9]
  copy = pathlib.Path(shutil.copytree(directory, directory.with_name('copy')))
  index = copy / first.name.replace('arrayrecord', 'columns.npz')
  index.write_bytes(index.read_bytes()[:-1] + b'x')
  # Without its index no row of a shard can be read: they are lost together.
  with pytest.raises(StorageError, match=f'{index.name} is damaged'):
    Records(copy, skip_missing=True)[0]


def test_a_flipped_bit_is_found_by_verify_and_on_reading(directory):
  records = write_records(directory, make_rows(), rows_per_shard=4)
  shard = shard_files(directory)[0]
  data = bytearray(shard.read_bytes())
  data[data.index(b'digit 2')] ^= 1
  shard.write_bytes(data)
  (fault,) = verify_records(directory)
  assert f'{shard.name} does not have the checksum' in fault
  assert_same_row(records[5], make_rows()[5])
  with pytest.raises(DataError, match=rf'{shard.name} is damaged at its row 2') as caught:
    records[2]
  assert not isinstance(caught.value, StorageError)


@pytest.mark.parametrize(
  'size', [1, 65_000, 65_280, 65_512, 65_536, 131_024, 200_000, 1_000_000, 40_000_000]
)
def test_rows_that_cross_blocks_of_the_file_come_back(directory, size):
  # Rows whose ends fall on every place near the end of a block of 64 KiB, and one that takes more
  # buffers than one system call does.
  generator = np.random.default_rng(0)
  rows = [
    {'x': generator.integers(0, 256, size + extra, np.uint8)}
    for extra in ((0, 1) if size > 200_000 else range(0, 300, 7))
  ]
  records = write_records(directory, rows, rows_per_shard=100)
  for index, row in enumerate(rows):
    assert_same_row(records[index], row)


def test_whatever_reads_array_records_reads_the_rows(directory):
  rows = make_rows()
  write_records(directory, rows, rows_per_shard=4)
  source = grain.sources.ArrayRecordDataSource([str(path) for path in shard_files(directory)])
  assert len(source) == len(rows)
  for index, row in enumerate(rows):
    assert_same_row(decode_row(source[index]), row)


def test_columns_are_read_without_the_rows(directory):
  rows = [
    {'x': np.ones(3), 'count': index, 'real': np.float32(index / 2), 'odd': index % 2 == 1}
    for index in range(10)
  ]
  records = write_records(directory, rows, rows_per_shard=3, columns=('count', 'real', 'odd'))
  for path in shard_files(directory):
    path.write_bytes(bytes(path.stat().st_size))
  records = pickle.loads(pickle.dumps(records))
  for name, dtype in (('count', np.int64), ('real', np.float32), ('odd', np.bool_)):
    column = records.column(name)
    assert column.dtype == dtype
    np.testing.assert_array_equal(column, [row[name] for row in rows])
  with pytest.raises(DataError, match="no column 'x'; its columns: count, real, odd"):
    records.column('x')


@pytest.mark.parametrize('row', [{}, {'fps': 'fast'}, {'fps': np.ones(2)}, {'fps': None}])
def test_a_row_without_its_columns_is_refused(directory, row):
  writer = RecordWriter(directory, rows=1, rows_per_shard=1, columns=['fps'])
  with pytest.raises(DataError, match="column 'fps' needs a number"):
    writer.write_shard(0, [row])


def test_inputs_may_give_no_row(directory):
  def accepted(index):
    return index % 3 != 0 and index < 8  # the last shard stays empty

  writer = RecordWriter(directory, rows=11, rows_per_shard=4, columns=['index'], exact=False)
  for shard in writer.missing_shards():
    inputs = writer.shard_rows(shard)
    rejected = [index for index in inputs if not accepted(index)]
    kept = (make_rows(11)[index] for index in inputs if accepted(index))
    writer.write_shard(shard, kept, notes=lambda rejected=rejected: rejected)
  writer.finish()
  assert [shard['notes'] for shard in writer.shards()] == [[0, 3], [6], [8, 9, 10]]
  records = Records(directory)
  assert len(records) == 5
  for index, expected in enumerate((1, 2, 4, 5, 7)):
    assert_same_row(records[index], make_rows(11)[expected])
  assert records.column('index').dtype == np.int64
  np.testing.assert_array_equal(records.column('index'), [1, 2, 4, 5, 7])
  assert verify_records(directory) == []


def test_records_of_which_nothing_is_left_are_empty(directory):
  writer = RecordWriter(directory, rows=2, rows_per_shard=1, columns=['fps'], exact=False)
  for shard in writer.missing_shards():
    writer.write_shard(shard, [])
  writer.finish()
  assert len(Records(directory)) == 0
  assert Records(directory).column('fps').shape == (0,)


def test_more_shards_than_files_may_be_open_are_read(directory):
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  rows = make_rows(300)
  records = write_records(directory, rows, rows_per_shard=1)
  resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 160, hard))
  try:
    for index, row in enumerate(rows):
      assert_same_row(records[index], row)
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_missing_directory_and_a_damaged_manifest_are_named(directory):
  for read in (Records, verify_records):
    with pytest.raises(DataError, match='nothing there; check the path'):
      read(directory)
  write_records(directory, make_rows(), rows_per_shard=4)
  manifest = directory / 'manifest.json'
  value = json.loads(manifest.read_text())
  for broken, message in (
    (json.dumps(value)[:-9], 'is not a manifest'),
    (json.dumps(value | {'rows': 9}), 'have 10 rows, not 9'),
    (json.dumps(value | {'format': 1}), 'has format 1, expected 2'),
    (json.dumps({'format': 2}), 'is not a manifest'),
  ):
    manifest.write_text(broken)
    for read in (Records, verify_records):
      with pytest.raises(DataError, match=message):
        read(directory)
