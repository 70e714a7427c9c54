"""Scores on the disk: what is there counts, whole or not at all, whatever was killed when."""

import numpy as np
import pyarrow.parquet
import pytest

from mgjax.core.errors import DataError
from mgjax.lab.curation.rows import Scores


def rows_of(scores, index, **more):
  return [
    {
      'video': f'{place}.mp4',
      'clip': f'{place}.mp4#0',
      'place': place,
      'seconds': 2.5,
      'error': None,
      'middle': b'jpeg',
      'text_score': place / 7,
      'vector': [1.0, place],
      **more,
    }
    for place in scores.places(index)
  ]


IDENTITY = {'videos': 'abc', 'measure': {'text': 1}}


@pytest.fixture
def scores(tmp_path):
  return Scores(tmp_path, IDENTITY, 10, 4)


def test_shards_are_of_all_videos_and_the_first_ones_a_fair_sample(scores):
  assert [list(scores.places(index)) for index in range(len(scores))] == [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ]
  many = Scores(scores.directory.parent, {}, 100_000, 10)
  assert sorted(many.order()) == list(range(10_000)) and many.order() == many.order()
  assert np.mean(many.order()[:500]) == pytest.approx(5000, abs=3 * 10_000 / 12**0.5 / 500**0.5)


def test_finished_shards_make_a_table_in_the_order_of_the_videos(scores):
  for index in (2, 0, 1):
    assert index not in scores.shards()
    scores.write(index, rows_of(scores, index), 1.5)
  before, _ = scores.table()
  scores.finish()
  table, vectors = scores.table()
  assert table.replace_schema_metadata().equals(before.drop_columns(['vector']))
  assert table.column('place').to_pylist() == list(range(10))
  assert vectors['vector'][[0, 9]].tolist() == [[1.0, 0.0], [1.0, 9.0]]
  assert 'middle' not in table.column_names
  assert scores.pictures([9, 0], ['9.mp4#0', 'none']) == [b'jpeg', None]
  assert scores.pictures([9], ['9.mp4#0'], 'loop') == [None]
  again = Scores(scores.directory.parent, IDENTITY, 10, 4)
  assert again.table()[0].equals(table) and again.seconds() == {0: 1.5, 1: 1.5, 2: 1.5}
  assert len(list(scores.directory.iterdir())) == 6  # plan, three shards, table and vectors
  scores.write(1, rows_of(scores, 1, text_score=0.5), 2.0, instead_of=scores.shards()[1])
  assert scores.table()[0].column('text_score').to_pylist()[4] == 0.5, 'of the shards as they are'
  scores.finish()
  assert scores.table()[1] and len(list(scores.directory.iterdir())) == 6


def test_folders_of_earlier_versions_read_on(scores):
  for index in range(3):
    scores.write(index, rows_of(scores, index), 1.0)
  for path in scores.directory.glob('*.parquet'):  # which had no seconds, and entries beside them
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).replace_schema_metadata(), path)
  for name in ('00000.json', 'manifest.json', 'table-0123456789ab.parquet', 'vector-01.f32'):
    (scores.directory / name).write_text('{}')
  assert sorted(scores.shards()) == [0, 1, 2] and scores.seconds() == {}
  scores.finish()
  assert len(scores.table()[0]) == 10 and len(list(scores.directory.iterdir())) == 6


def test_rows_that_lack_scores_or_have_none_of_a_kind_fit_beside_others(scores):
  scores.write(0, [{'video': '0.mp4', 'clip': '0.mp4', 'place': 0, 'error': 'broken'}], 1.0)
  scores.write(1, [{'video': '4.mp4', 'clip': 'x', 'error': 'y'}, *rows_of(scores, 1)], 1.0)
  scores.write(2, rows_of(scores, 2, text_score=None), 1.0)
  table, _ = scores.table()
  assert table.column('text_score').null_count == 4
  assert table.column('error').to_pylist()[:2] == ['broken', 'y']


def test_other_settings_are_another_folder_and_what_is_there_stays(scores):
  scores.write(0, rows_of(scores, 0), 1.0)
  folder = scores.directory.parent
  other = Scores(folder, {'videos': 'abc', 'measure': {'text': 2}}, 10, 4)
  assert other.directory != scores.directory and not other.shards()
  assert len(scores.shards()) == 1


def test_a_shard_that_is_lost_is_measured_again(scores):
  scores.write(0, rows_of(scores, 0), 1.0)
  (scores.directory / scores.shards()[0]).unlink()
  assert not scores.shards() and scores.rows(0) == ([], 0.0, '')
  scores.write(0, rows_of(scores, 0), 1.0)
  assert len(scores.table()[0]) == 4 == len(scores.rows(0)[0])


def test_of_two_that_write_a_shard_one_counts(scores):
  scores.write(0, rows_of(scores, 0), 1.0)
  scores.write(0, rows_of(scores, 0), 9.0)
  assert len(scores.table()[0]) == 4
  for index in (1, 2):
    scores.write(index, rows_of(scores, index), 1.0)
  scores.finish()
  assert len(scores.table()[0]) == 10 and len(list(scores.directory.glob('0*.parquet'))) == 3


def test_what_is_unfinished_or_damaged_is_a_sentence(scores):
  with pytest.raises(DataError, match='nothing is measured'):
    scores.table()
  scores.write(1, rows_of(scores, 1), 1.0)
  with pytest.raises(DataError, match=r'shards \[0, 2\]'):
    scores.finish()
  for index in (0, 2):
    scores.write(index, rows_of(scores, index), 1.0)
  scores.finish()
  for name in ('vector.npy', 'table.parquet'):
    (scores.directory / name).write_bytes(b'nothing')
    with pytest.raises(DataError, match=r'is damaged .* delete it'):
      scores.table()
  (scores.directory / 'table.parquet').unlink()
  (scores.directory / scores.shards()[0]).write_bytes(b'PAR1')
  with pytest.raises(DataError, match=r'00000-.* is damaged .* delete it'):
    scores.table()


def test_a_full_disk_leaves_nothing_half_and_the_same_shard_can_be_written_later(scores):
  resource = pytest.importorskip('resource')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  noise = np.random.default_rng(0).bytes(100_000)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
  try:
    with pytest.raises(OSError, match='large'):  # as ENOSPC, which launch/ tells in one sentence
      scores.write(0, rows_of(scores, 0, middle=noise), 1.0)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert not scores.shards()
  scores.write(0, rows_of(scores, 0, middle=noise), 1.0)
  assert len(scores.shards()) == 1
