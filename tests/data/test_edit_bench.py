"""Benches of edits become videos and instructions, whatever their table is called."""

import csv
import json

import pytest

from mgjax.core.errors import DataError
from mgjax.data.ingest.edit_bench import EditRequest, read_edit_bench


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'videos').mkdir()
  for name in ('blackswan', 'car'):
    (tmp_path / 'videos' / f'{name}.mp4').write_bytes(b'')
  return tmp_path


def test_a_table_of_tgve_plus_in_parquet(folder):
  pyarrow = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  rows = {
    'video_file': ['blackswan.mp4', 'car'],
    'instruction': ['make the swan white', 'remove the car'],
    'task': ['object', 'remove'],
    'original_caption': ['a black swan', 'a car'],
    'output_caption': ['a white swan', None],
  }
  parquet.write_table(pyarrow.table(rows), folder / 'tgve_plus.parquet')
  assert read_edit_bench(folder) == [
    EditRequest(
      folder / 'videos/blackswan.mp4',
      'make the swan white',
      'object',
      'a black swan',
      'a white swan',
    ),
    EditRequest(folder / 'videos/car.mp4', 'remove the car', 'remove', 'a car', ''),
  ]


def test_a_table_of_tgve_gives_a_row_for_each_kind_of_edit(folder):
  columns = {
    'Video name': 'blackswan',
    'Our GT caption': 'a black swan swims',
    'Style Change Caption': 'a black swan swims, anime style',
    'Object Change Caption': 'a duck swims',
    'Background Change Caption': 'a black swan swims in a desert',
    'Multiple Changes Caption': 'a duck swims in a desert, anime style',
  }
  with (folder / 'tgve.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerow(columns)
  rows = read_edit_bench(folder / 'tgve.csv')
  assert [row.task for row in rows] == ['style', 'replace', 'background', '']
  assert rows[1].instruction == rows[1].target == 'a duck swims'
  assert {row.caption for row in rows} == {'a black swan swims'}


def test_lines_of_json_beside_the_videos(folder):
  line = {'video': 'videos/car.mp4', 'instruction': 'make the car red'}
  (folder / 'edits.jsonl').write_text(json.dumps(line) + '\n\n')
  assert read_edit_bench(folder) == [EditRequest(folder / 'videos/car.mp4', 'make the car red')]


@pytest.mark.parametrize(
  ('lines', 'said'),
  [
    ([], 'has no rows'),
    ([{'video': 'car'}], "no column for the instruction, such as 'instruction'.*it has video"),
    ([{'instruction': 'x'}], 'no column for the video'),
    ([{'video': 'bus', 'instruction': 'x'}], "row 1 of .*: there is no video 'bus'"),
    ([{'video': 'car', 'instruction': ' '}], 'there is no instruction'),
    ([{'video': '../../etc/passwd', 'instruction': 'x'}], 'there is no video'),
    (['{broken'], 'cannot be read'),
  ],
)
def test_a_wrong_table_is_a_sentence(folder, lines, said):
  text = '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
  (folder / 'edits.jsonl').write_text(text)
  with pytest.raises(DataError, match=said):
    read_edit_bench(folder)
