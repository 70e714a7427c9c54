"""Suites of every format are read by index, whole and in order, or refused in one sentence."""

import csv
import json
import re

import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.suites.suite import FILE, MINI, read_suite
from mgjax.lab.worlds.digits.clips import all_captions, is_held_out

PROMPTS = ['a dog runs', 'a cat, asleep', 'a dog runs', 'der Bär tanzt 🐻', 'one line\u2028still']
TAGS = [
  ('animal,human-activity', 'high'),
  ('animal', 'low'),
  ('animal, gravity', 'medium'),
  ('unusual activity', 'High'),
  ('', ''),
]
AUDIO = {'id': 0, 'video_prompt': 'a river', 'audio_prompt': 'water flows', 'music_prompt': 'calm'}


def write_table(path, prompts=PROMPTS, header=('prompt', 'concept', 'motion_level'), tags=TAGS):
  with path.open('w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows([header, *((p, *t) for p, t in zip(prompts, tags, strict=True))])
  return path


@pytest.fixture
def bench(tmp_path):
  (tmp_path / 'Bench.txt').write_text('\n'.join(PROMPTS) + '\n', encoding='utf-8')
  # A space and a slip, as in the original.
  write_table(tmp_path / 'BenchWithTag.csv', [PROMPTS[0] + ' ', 'a cta, asleep', *PROMPTS[2:]])
  return tmp_path


@pytest.mark.parametrize('name', ['Bench.txt', 'BenchWithTag.csv'])
def test_text_and_tags_are_joined_by_index_and_prompts_that_come_twice_stay(bench, name):
  suite = read_suite(bench / name)
  assert (suite.name, suite.kind, suite.prompts) == ('Bench', 'video', PROMPTS)
  assert [row.index for row in suite.rows] == list(range(5))
  assert suite.rows[2].concepts == ('animal', 'gravity') and suite.rows[0].motion == 'high'
  assert suite.tags['animal'] == [0, 1, 2] and suite.tags['motion: high'] == [0, 3]
  assert len({row.file for row in suite.rows}) == 5
  (bench / ('BenchWithTag.csv' if name == 'Bench.txt' else 'Bench.txt')).unlink()
  alone = read_suite(bench / name)
  assert bool(alone.tags) == (name != 'Bench.txt') and alone.prompts[0] == PROMPTS[0]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_marked_encodings_and_any_ends_of_lines_are_read(tmp_path, encoding, end):
  path = tmp_path / 'prompts.txt'
  path.write_bytes((end.join(PROMPTS) + end + end).encode(encoding))
  assert read_suite(path).prompts == PROMPTS
  table = write_table(tmp_path / 'BenchWithTag.csv')
  table.write_bytes(table.read_text(encoding='utf-8').encode(encoding))
  assert read_suite(table).prompts == PROMPTS


BROKEN = {
  'latin-1': (
    lambda d: (d / 'Bench.txt').write_bytes(b'a dog\nB\xe4r'),
    'Bench.txt',
    r'Bench\.txt, line 2: is no UTF-8 \(byte 0xe4\); save it as UTF-8',
  ),
  'a row less': (
    lambda d: write_table(d / 'BenchWithTag.csv', PROMPTS[:4], tags=TAGS[:4]),
    'Bench.txt',
    r'has 5 prompts and .* 4 rows, which are joined by index',
  ),
  'other order': (
    lambda d: write_table(d / 'BenchWithTag.csv', PROMPTS[::-1]),
    'Bench.txt',
    r'other prompts in 4 of 5 rows, first in row 1; take both from one release',
  ),
  'no concept': (
    lambda d: write_table(d / 'BenchWithTag.csv', header=('prompt', 'concepts', 'motion_level')),
    'BenchWithTag.csv',
    r"has no column 'concept' but prompt, concepts, motion_level",
  ),
  'no prompt': (
    lambda d: write_table(d / 'BenchWithTag.csv', header=('text', 'concept', 'motion_level')),
    'Bench.txt',
    r"has no column 'prompt' but text, concept, motion_level",
  ),
  'a column twice': (
    lambda d: write_table(d / 'BenchWithTag.csv', header=('prompt', 'prompt', 'motion_level')),
    'Bench.txt',
    r'a column comes twice',
  ),
  'a comma outside quotes': (
    lambda d: (d / 'BenchWithTag.csv').write_text('prompt,concept,motion_level\na, b,animal,low\n'),
    'BenchWithTag.csv',
    r'row 1 has 4 fields and the header 3; put what has a comma into quotes',
  ),
  'an empty prompt': (
    lambda d: write_table(d / 'BenchWithTag.csv', ['a', ' ', 'b', 'c', 'd']),
    'Bench.txt',
    r"row 2 has an empty 'prompt'; fill it in",
  ),
  'unknown motion': (
    lambda d: write_table(d / 'BenchWithTag.csv', tags=[('animal', 'fast')] * 5),
    'Bench.txt',
    r"row 1: motion 'fast'; expected low, medium or high",
  ),
  'a header alone': (
    lambda d: (d / 'BenchWithTag.csv').write_text('prompt,concept,motion_level\n'),
    'BenchWithTag.csv',
    r'has no rows',
  ),
  'empty lines': (lambda d: (d / 'e.txt').write_text(' \n\n'), 'e.txt', r'holds no prompts'),
  'nothing': (lambda d: None, 'nothing.txt', r'nothing\.txt: cannot be read'),
  'too few to draw': (lambda d: None, 'Bench.txt:mini', r'Bench has 5 prompts; 381 cannot be'),
  'no object': (lambda d: (d / 'a.jsonl').write_text('"a"'), 'a.jsonl', r'line 1 holds str'),
  'no prompt in an object': (
    lambda d: (d / 'a.jsonl').write_text('{"promt": "a"}'),
    'a.jsonl',
    r"row 1 has no 'prompt' but promt",
  ),
  'another json': (lambda d: (d / 'a.json').write_text('{"a": 1}'), 'a.json', r'is no suite'),
  'no sound': (
    lambda d: (d / 'a.jsonl').write_text('{"video_prompt": "a"}'),
    'a.jsonl',
    r"row 1 has no 'audio_prompt'",
  ),
  'an id twice': (
    lambda d: (d / 'a.jsonl').write_text(f'{json.dumps(AUDIO)}\n' * 2),
    'a.jsonl',
    r'row 2 has the id 0 of another',
  ),
}


@pytest.mark.parametrize('case', BROKEN)
def test_what_cannot_be_right_is_one_sentence(bench, case):
  spoil, name, message = BROKEN[case]
  spoil(bench)
  with pytest.raises(DataError, match=message) as error:
    read_suite(bench / name)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['digits:0', 'digits:x', 'digits:1:2:3', 'a.mp4'])
def test_a_suite_that_is_named_wrongly_is_refused(name):
  with pytest.raises(ConfigError, match=re.escape(name)):
    read_suite(name)


def test_the_mini_set_is_always_the_same_and_keeps_its_indices(tmp_path):
  (tmp_path / 'many.txt').write_text('\n'.join(f'prompt {n}' for n in range(1003)))
  mini = read_suite(f'{tmp_path}/many.txt:mini')
  assert mini == read_suite(f'{tmp_path}/many.txt:mini') and len(mini.rows) == MINI == 381
  indices = [row.index for row in mini.rows]
  assert indices == sorted({*indices}) and indices != list(range(381))
  assert all(row.prompt == f'prompt {row.index}' for row in mini.rows)
  assert mini.drawn(5, seed=1) != mini.drawn(5, seed=2)


def test_sounds_have_ids_with_gaps_and_music_where_it_is_asked_for(tmp_path):
  rows = [AUDIO, {**AUDIO, 'id': 7}, {'id': 9, 'video_prompt': 'v', 'audio_prompt': 'a'}]
  (tmp_path / 'MovieGenAudioBenchSfxMusic.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  suite = read_suite(tmp_path / 'MovieGenAudioBenchSfxMusic.jsonl')
  assert suite.kind == 'sound' and [row.index for row in suite.rows] == [0, 1, 2]
  assert [row.fields['id'] for row in suite.rows] == [0, 7, 9]
  assert suite.prompts == ['a river', 'a river', 'v']
  assert suite.rows[1].fields['music_prompt'] == 'calm'
  assert 'music_prompt' not in suite.rows[2].fields


def test_lines_of_json_have_conditions_and_tags(tmp_path):
  row = {'prompt': 'a dog', 'first_frame': 'dog.png', 'concepts': ['animal'], 'motion': 'low'}
  (tmp_path / 'a.jsonl').write_text(json.dumps(row))
  (read,) = read_suite(tmp_path / 'a.jsonl').rows
  assert (read.concepts, read.motion) == (('animal',), 'low')
  assert read.fields == {'first_frame': 'dog.png'}


def test_a_folder_of_edits_is_a_suite(tmp_path):
  (tmp_path / 'car.mp4').write_bytes(b'')
  (tmp_path / 'edits.csv').write_text('Video,Instruction,Task\ncar,make it red,style\n')
  for location in (tmp_path, tmp_path / 'edits.csv'):
    suite = read_suite(location)
    assert suite.kind == 'edit' and suite.prompts == ['make it red'] and 'style' in suite.tags
    assert suite.rows[0].fields['video'] == str(tmp_path / 'car.mp4')


def test_prompts_of_vbench_have_its_dimensions_as_concepts(tmp_path):
  row = {'prompt_en': 'a dog', 'dimension': ['color', 'scene'], 'auxiliary_info': {'color': 'red'}}
  (tmp_path / 'VBench_full_info.json').write_text(json.dumps([row]))
  assert read_suite(tmp_path / 'VBench_full_info.json').rows[0].concepts == ('color', 'scene')


def test_held_out_captions_are_asked_for_equally_often_in_an_order_of_the_seed():
  suite = read_suite('digits:100')
  unseen = {caption for *label, caption in all_captions() if is_held_out(*label)}
  counts = [suite.prompts.count(prompt) for prompt in unseen]
  assert sum(counts) == 100 and {*counts} == {3, 4}
  assert suite == read_suite('digits:100:0') != read_suite('digits:100:1')


def test_captions_of_solids_are_of_every_group_and_tell_what_they_are_of():
  suite = read_suite('solids:7')
  assert [row.concepts[0] for row in suite.rows[:3]] == [
    'in distribution',
    'new combination',
    'new value',
  ]
  assert suite.rows[4].scene == 'new_combination:0:1'
  assert suite.prompts != read_suite('solids:7:1').prompts
  with pytest.raises(ConfigError, match='expected solids:N or solids:N:SEED'):
    read_suite('solids:many')


def test_a_suite_comes_back_from_its_json(bench):
  suite = read_suite(bench / 'Bench.txt')
  (bench / FILE).write_text(json.dumps(suite.as_dict()))
  assert read_suite(bench) == read_suite(bench / FILE) == suite
