"""VBench finds videos by its own names, and its results become our table."""

import json

import pytest

from mgjax.core.errors import DataError
from mgjax.lab.evaluation.suites.vbench import read_results, results_table, video_names


def video(prompt, sample, value):
  return {'video_path': f'/videos/{prompt}-{sample}.mp4', 'video_results': value}


def test_names_are_prompts_and_samples_short_enough_for_files_and_none_comes_twice(tmp_path):
  names = video_names(['a dog', 'a dog', 'a cat', 'a dog'], ['.mp4', '.mp4', '.png', '.mp4'])
  assert names == ['a dog-0.mp4', 'a dog-1.mp4', 'a cat-0.png', 'a dog-2.mp4']
  long = 'ä' * 400
  names = video_names([long + '1', long + '2', 'a/b', '..'], ['.mp4'] * 4)
  assert len({*names}) == 4 and max(len(name.encode()) for name in names) <= 255
  for name in names:
    (tmp_path / name).write_bytes(b'')
  assert len(list(tmp_path.iterdir())) == 4


def test_results_of_several_files_become_one_table_with_intervals_over_prompts(tmp_path):
  flicker = [video('a dog', sample, 0.9) for sample in range(5)] + [video('a cat', 0, 0.6)]
  quality = [video('a', 0, 40.0), video('b', 0, 60.0)]
  first = {'temporal_flickering': [0.85, flicker], 'imaging_quality': [0.5, quality]}
  second = {'dynamic_degree': [0.5, [video('a', 0, True), video('b', 0, False)]], 'color': 0.7}
  (tmp_path / 'a_eval_results.json').write_text(json.dumps(first))
  (tmp_path / 'b_eval_results.json').write_text(json.dumps(second))
  (tmp_path / 'a_full_info.json').write_text('[]')
  dimensions = {dimension.name: dimension for dimension in read_results(tmp_path)}
  assert dimensions['temporal_flickering'].score == 0.85
  mean = dimensions['temporal_flickering'].mean
  assert (mean.videos, mean.prompts, round(mean.value, 6)) == (6, 2, 0.85)
  assert dimensions['imaging_quality'].mean.value == 0.5  # percent of videos, a share of all
  assert dimensions['dynamic_degree'].mean.value == 0.5 and dimensions['color'].mean.videos == 0
  lines = results_table(list(dimensions.values())).splitlines()
  assert len(lines) == 6 and len({line.count('|') for line in lines}) == 1
  assert [cell.strip() for cell in lines[2].split('|')[1:3]] == ['temporal_flickering', '0.8500']
  assert len({*map(len, lines)}) == 1


@pytest.mark.parametrize(
  ('contents', 'message'),
  [
    (['[]'], 'holds list, expected dict'),
    (['{'], 'is no readable JSON'),
    (['{}'], 'has results of no dimension'),
    (['{"color": [1, [{"video": 1}]]}'], '"color" is not'),
    (['{"color": ["high", []]}'], '"color" is not'),
    (['{"color": [1, []]}'] * 2, 'color is in another file'),
    ([], 'holds no file of results'),
  ],
)
def test_what_is_no_result_of_vbench_is_one_sentence(tmp_path, contents, message):
  for number, content in enumerate(contents):
    (tmp_path / f'{number}_eval_results.json').write_text(content)
  with pytest.raises(DataError, match=message):
    read_results(tmp_path)
