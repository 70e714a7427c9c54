"""A suite is made once, whole, by the seed and the index of each row, and mixes nothing."""

import csv
import json
import shutil

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.evaluation.suites.make_videos import (
  SuiteSettings,
  export_vbench,
  import_vbench,
  run_suite,
)
from mgjax.lab.evaluation.suites.suite import FILE, Row, Suite, read_suite
from mgjax.sections.video.pipeline import VideoPipeline

PROMPTS = ['the green digit 3 moves left', 'a/b', 'the red digit 1 moves up', 'a/b', 'a dog']
SUITE = Suite('five', 'video', tuple(Row(index, prompt) for index, prompt in enumerate(PROMPTS)))


def run(runs, out, suite=SUITE, workdir='video', steps=2, **settings):
  options = SuiteSettings(request={'scale': settings.pop('scale', 1)}, batch_size=2, **settings)
  return run_suite(runs / workdir, suite, out, options, steps=steps)


def written(out):
  return {path.name: path.stat().st_mtime_ns for path in out.glob('[0-9]*')}


def pixels(out):
  records = [json.loads(path.read_text()) for path in sorted(out.glob('[0-9]*.json'))]
  return {(record['index'], record['seed']): record['pixels'] for record in records}


@pytest.fixture(scope='module')
def whole(tiny_runs, tmp_path_factory):
  out = tmp_path_factory.mktemp('whole') / 'videos'
  result = run(tiny_runs, out, samples=2)
  assert (result.created, result.existing) == (10, 0)
  return out


def test_each_row_has_a_video_by_its_index_that_its_json_can_make_again(tiny_runs, whole):
  stems = [row.file for row in SUITE.rows]
  for folder in (whole, whole / 'sample_1'):
    assert sorted(path.stem for path in folder.glob('*.mp4')) == sorted(stems)
  assert read_suite(whole) == SUITE and (whole / 'sheet.png').exists()
  record = json.loads((whole / 'sample_1' / f'{stems[3]}.json').read_text())
  assert (record['index'], record['prompt'], record['seed']) == (3, 'a/b', 1)
  assert record['settings']['steps'] == 2 and record['weights']['step'] == 8
  # The prompt that comes twice has two noises; so has each sample.
  digests = {**pixels(whole), **pixels(whole / 'sample_1')}
  assert len(digests) == 10 and len({*digests.values()}) == 10
  pipeline = VideoPipeline(tiny_runs / 'video', steps=2)
  options = {'seed': 1, 'batch_size': 2}
  one = list(pipeline.stream(['a/b', PROMPTS[0]], first=[3, 0], **options))
  other = list(pipeline.stream(PROMPTS, first=0, **options))
  np.testing.assert_array_equal(one[0], other[3])
  np.testing.assert_array_equal(one[1], other[0])


def test_what_was_stopped_goes_on_and_makes_nothing_twice(tiny_runs, whole, tmp_path):
  out = tmp_path / 'videos'
  assert (run(tiny_runs, out, process=0, processes=2).created, len(written(out))) == (3, 6)
  before = written(out)
  first, second = (SUITE.rows[index].file for index in (0, 2))
  (out / f'{first}.json').unlink()  # killed before it
  (out / f'{second}.mp4').unlink()
  (out / f'.{first}.mp4.x8f3').write_bytes(b'half')
  (out / '.others').write_bytes(b'')
  result = run(tiny_runs, out)
  assert (result.created, result.existing) == (4, 1)
  kept = {name for name, time in written(out).items() if before.get(name) == time}
  assert kept == {f'{SUITE.rows[4].file}.mp4', f'{SUITE.rows[4].file}.json'}
  assert [path.name for path in out.glob('.*')] == ['.others']
  assert pixels(out) == pixels(whole)  # in batches of other rows
  before = written(out)
  result = run(tiny_runs, out)
  assert (result.created, result.existing) == (0, 5) and written(out) == before


def test_processes_share_the_rows(tiny_runs, whole, tmp_path):
  for process in (0, 1):
    result = run(tiny_runs, tmp_path / 'out', process=process, processes=2)
    assert result.created == (3, 2)[process]
    assert (tmp_path / 'out' / 'sheet.png').exists() == bool(process)
  assert pixels(tmp_path / 'out') == pixels(whole)


@pytest.mark.parametrize(
  ('settings', 'what'), [({'seed': 7}, 'seed'), ({'steps': 3}, 'settings'), ({'scale': 2}, 'scale')]
)
def test_what_was_made_otherwise_is_refused_before_anything_is_made(
  tiny_runs, whole, tmp_path, settings, what
):
  out = shutil.copytree(whole, tmp_path / 'out')
  (out / f'{SUITE.rows[0].file}.json').unlink()
  before = written(out)
  with pytest.raises(ConfigError, match=f'was made with other {what}; take another --out'):
    run(tiny_runs, out, **settings)
  assert written(out) == before


def test_other_weights_are_refused_and_the_same_ones_elsewhere_are_not(tiny_runs, whole, tmp_path):
  moved = shutil.copytree(tiny_runs, tmp_path / 'runs')
  assert run(moved, shutil.copytree(whole, tmp_path / 'out'), samples=2).existing == 10
  record = tmp_path / 'out' / f'{SUITE.rows[4].file}.json'
  fields = json.loads(record.read_text())
  record.write_text(json.dumps(fields | {'fingerprint': 'of other weights'}))
  with pytest.raises(ConfigError, match='was made with other fingerprint'):
    run(moved, tmp_path / 'out')


def test_another_suite_or_another_kind_of_model_is_refused(tiny_runs, whole, tmp_path):
  other = Suite('other', 'video', SUITE.rows[:4])
  with pytest.raises(ConfigError, match='holds videos of another suite; take another --out'):
    run(tiny_runs, whole, other)
  edits = Suite('edits', 'edit', SUITE.rows)
  with pytest.raises(ConfigError, match="is a video model, and edits a suite of kind 'edit'; name"):
    run(tiny_runs, tmp_path / 'out', edits)
  with pytest.raises(ConfigError, match='is an autoencoder, and five'):
    run(tiny_runs, tmp_path / 'out', workdir='autoencoder')
  with pytest.raises(ConfigError, match='is for models of sound; leave it out'):
    run(tiny_runs, tmp_path / 'out', videos='videos')
  with pytest.raises(ConfigError, match='2 processes are called 0 to 1'):
    SuiteSettings(process=2, processes=2)
  assert not (tmp_path / 'out').exists()


def test_vbench_gets_every_sample_under_its_prompt_and_nothing_else(whole, tmp_path):
  count, unnamed = export_vbench(whole, tmp_path / 'vbench')
  assert (count, unnamed) == (10, ['a/b'])
  names = sorted(path.name for path in (tmp_path / 'vbench' / 'videos').iterdir())
  assert names == sorted(
    f'{prompt}-{sample}.mp4'
    for prompt, samples in ((PROMPTS[0], 2), ('a b', 4), (PROMPTS[2], 2), ('a dog', 2))
    for sample in range(samples)
  )
  prompts = json.loads((tmp_path / 'vbench' / 'prompts.json').read_text())
  assert sorted(prompts) == names and prompts['a b-2.mp4'] == 'a/b'
  second = (whole / 'sample_1' / f'{SUITE.rows[4].file}.mp4').read_bytes()
  assert (tmp_path / 'vbench' / 'videos' / 'a dog-1.mp4').read_bytes() == second
  assert export_vbench(whole, tmp_path / 'vbench')[0] == 10  # again
  (tmp_path / 'vbench' / 'videos' / 'x.mp4').write_bytes(b'')
  with pytest.raises(ConfigError, match=r"holds 'x\.mp4' and would be mixed up"):
    export_vbench(whole, tmp_path / 'vbench')


def test_what_is_not_whole_is_not_exported(whole, tmp_path):
  out = shutil.copytree(whole, tmp_path / 'out')
  (out / 'sample_1' / f'{SUITE.rows[2].file}.mp4').unlink()
  with pytest.raises(DataError, match='lacks 1 videos of five, first of prompt 2'):
    export_vbench(out, tmp_path / 'vbench')
  (out / FILE).unlink()
  with pytest.raises((DataError, ConfigError)):
    export_vbench(out, tmp_path / 'vbench')


def test_results_of_vbench_become_markdown_and_json(tmp_path):
  video = {'video_path': 'videos/a dog-0.mp4', 'video_results': 0.25}
  (tmp_path / 'r_eval_results.json').write_text(json.dumps({'scene': [0.25, [video]]}))
  table, paths = import_vbench(tmp_path, tmp_path / 'out')
  assert [path.name for path in paths] == ['vbench.md', 'vbench.json']
  assert paths[0].read_text() == f'{table}\n'
  cells = [cell.strip() for cell in next(csv.reader([table.splitlines()[2]], delimiter='|'))]
  assert cells[1:-1] == ['scene', '0.2500', '0.25 (n = 1)', '1', '1']
  assert json.loads(paths[1].read_text())['dimensions']['scene']['mean']['prompts'] == 1
