"""Records: what is written is read back, whatever happens in between."""

import concurrent.futures
import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.loader import StepIterator
from mgjax.data.mixture import Bucket, make_batches
from mgjax.data.records import (
  Records,
  RecordWriter,
  decode_row,
  encode_row,
  verify,
  write_records,
)


def make_rows(count=10):
  generator = np.random.default_rng(0)
  return [
    {
      'latents': generator.normal(size=(2, 3, 3, 4)).astype(ml_dtypes.bfloat16),
      'caption': f'the green digit {index} moves left ✓',
      'index': index,
    }
    for index in range(count)
  ]


def assert_same_row(actual, expected):
  assert list(actual) == list(expected)
  for name, value in expected.items():
    if isinstance(value, np.ndarray | np.generic):
      assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape)
      assert actual[name].tobytes() == value.tobytes()
    else:
      assert actual[name] == value
      assert type(actual[name]) is type(value)


def contents(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'records'


@pytest.mark.parametrize(
  'dtype',
  [
    *('bool', 'uint8', 'int32', 'int64', 'float16', 'float32', 'float64', 'complex64'),
    *('bfloat16', 'float8_e4m3fn', 'int4'),
  ],
)
@pytest.mark.parametrize('shape', [(), (0, 3), (2, 3, 4)])
def test_arrays_come_back_bit_for_bit(dtype, shape):
  array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(np.dtype(dtype))
  row = {'before': np.arange(3, dtype=np.uint8), 'array': array, 'after': 'text'}
  result = decode_row(encode_row(row))
  assert_same_row(result, row)
  assert result['array'].flags.writeable
  assert result['array'].flags.aligned


def test_strings_numbers_and_odd_layouts_come_back():
  values = {'text': 'naïve ✓\n', 'number': -(10**20), 'real': 1e-300, 'truth': True}
  assert_same_row(decode_row(encode_row(values)), values)
  turned = np.arange(6, dtype='>i4').reshape(2, 3).T
  result = decode_row(encode_row({'turned': turned, 'scalar': np.float32(2.5)}))
  np.testing.assert_array_equal(result['turned'], turned)
  assert result['scalar'].shape == ()
  assert result['scalar'] == 2.5


@pytest.mark.parametrize('value', [None, [1], {}, b'raw', np.array(['a']), np.array([None])])
def test_what_a_row_cannot_hold_is_refused(value):
  with pytest.raises(DataError, match=r"'field'.*numpy arrays of numbers, strings and numbers"):
    encode_row({'field': value})


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
  assert verify(directory) == []


def test_threads_may_read_at_once(directory):
  rows = make_rows(40)
  records = write_records(directory, rows, rows_per_shard=3)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    order = list(range(40)) * 5
    for index, row in zip(order, pool.map(records.__getitem__, order), strict=True):
      assert_same_row(row, rows[index])


def test_records_feed_the_loader(directory):
  rows = make_rows(12)
  records = write_records(directory, rows, rows_per_shard=5)

  def keep_arrays(row):
    return {'latents': row['latents'], 'index': np.array(row['index'])}

  bucket = Bucket('latents', records, 4, transform=keep_arrays)
  with StepIterator(make_batches([bucket], seed=0)) as iterator:
    batch = next(iterator)
  assert batch['latents'].dtype == ml_dtypes.bfloat16
  for latents, index in zip(batch['latents'], batch['index'], strict=True):
    np.testing.assert_array_equal(latents, rows[index]['latents'])


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
  for name in ('.00001.arrayrecord.0.partial', '.00000.arrayrecord.json.0'):  # as SIGKILL leaves
    (tmp_path / 'killed' / name).write_bytes(b'half')
  again = KilledAt(rows, None)
  write_records(tmp_path / 'killed', again, **options)
  assert again.asked == list(range(kill // 4 * 4, 10))
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
  assert sorted(contents(tmp_path / 'whole')) == [
    *(f'0000{index}.arrayrecord' for index in range(3)),
    'manifest.json',
  ]


def test_half_written_files_are_ignored(directory):
  writer = RecordWriter(directory, rows=10, rows_per_shard=4)
  writer.write_shard(1, make_rows()[4:8])
  (directory / '.00000.arrayrecord.0.partial').write_bytes(b'half')
  (directory / '00002.arrayrecord').write_bytes(b'renamed, but its entry was never written')
  assert writer.missing_shards() == [0, 2]
  with pytest.raises(DataError, match=r'shards \[0, 2\] have yet to be written'):
    writer.finish()
  writer.write_shard(2, make_rows()[8:])
  writer.write_shard(0, make_rows()[:4])
  writer.finish()
  assert_same_row(Records(directory)[9], make_rows()[9])
  assert not list(directory.glob('.*'))


def test_notes_of_shards_survive_a_restart(directory):
  for shard in (2, 0, 1):  # a new process each time
    writer = RecordWriter(directory, rows=6, rows_per_shard=2)
    total = []
    rows = ({'x': total.append(index) or index} for index in writer.shard_rows(shard))
    writer.write_shard(shard, rows, notes=lambda total=total: {'sum': sum(total)})
  sums = [shard['notes']['sum'] for shard in writer.shards()]
  assert sums == [1, 5, 9]
  writer.finish({'mean': sum(sums) / 6})
  assert Records(directory).summary == {'mean': 2.5}


def test_a_finished_directory_is_left_alone(directory):
  write_records(directory, make_rows(), rows_per_shard=4)
  before = contents(directory)
  again = KilledAt(make_rows(), None)
  write_records(directory, again, rows_per_shard=4)
  assert again.asked == []
  assert contents(directory) == before


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
  whole = contents(directory)
  shard = directory / '00001.arrayrecord'
  shard.write_bytes(shard.read_bytes()[:-100])
  with pytest.raises(DataError, match=r'00001\.arrayrecord has \d+ bytes instead of \d+; delete'):
    Records(directory)
  assert len(verify(directory)) == 1
  shard.unlink()
  with pytest.raises(DataError, match=r'00001\.arrayrecord is missing'):
    Records(directory)
  again = KilledAt(rows, None)
  write_records(directory, again, rows_per_shard=4)
  assert again.asked == [4, 5, 6, 7]
  assert contents(directory) == whole


def test_a_flipped_bit_is_found_by_verify_and_on_reading(directory):
  records = write_records(directory, make_rows(), rows_per_shard=4)
  shard = directory / '00000.arrayrecord'
  data = bytearray(shard.read_bytes())
  data[data.index(b'digit 2')] ^= 1
  shard.write_bytes(data)
  (fault,) = verify(directory)
  assert '00000.arrayrecord does not have the checksum' in fault
  assert_same_row(records[5], make_rows()[5])
  with pytest.raises(DataError, match=r'00000\.arrayrecord is damaged at its row 2'):
    records[2]


def test_a_missing_directory_and_a_damaged_manifest_are_named(directory):
  for read in (Records, verify):
    with pytest.raises(DataError, match='no such directory; check the path'):
      read(directory)
  write_records(directory, make_rows(), rows_per_shard=4)
  manifest = directory / 'manifest.json'
  value = json.loads(manifest.read_text())
  for broken, message in (
    (json.dumps(value)[:-9], 'is not a manifest'),
    (json.dumps(value | {'rows': 9}), 'have 10 rows, not 9'),
    (json.dumps(value | {'format': 2}), 'has format 2, expected 1'),
    (json.dumps({'format': 1}), 'is not a manifest'),
  ):
    manifest.write_text(broken)
    for read in (Records, verify):
      with pytest.raises(DataError, match=message):
        read(directory)


def test_a_shard_with_fewer_rows_than_the_manifest_says_is_refused(directory):
  write_records(directory, make_rows(), rows_per_shard=10)
  short = directory.with_name('short')
  write_records(short, make_rows(9), rows_per_shard=10)
  (directory / '00000.arrayrecord').write_bytes((short / '00000.arrayrecord').read_bytes())
  value = json.loads((directory / 'manifest.json').read_text())
  value['shards'][0]['bytes'] = (short / '00000.arrayrecord').stat().st_size
  (directory / 'manifest.json').write_text(json.dumps(value))
  with pytest.raises(DataError, match='holds 9 rows instead of 10'):
    Records(directory)[0]
