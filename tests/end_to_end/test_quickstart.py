"""The quickstart from nothing to a report, with a budget of seconds."""

import functools
import json
import os
import shutil

import numpy as np
import pytest

from configs import quickstart as quickstart_config
from mgjax.apps import recipe as recipes
from mgjax.apps.recipe import run_recipe
from mgjax.core.errors import ConfigError
from mgjax.data.media.video import write_video
from mgjax.lab.evaluation import quickstart
from mgjax.lab.worlds.digits.judges import digit as digit_judge
from mgjax.sections.video.pipeline import VideoPipeline
from tests import binaries, tiny


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two clips of a second and a file that is none."""
  folder = tmp_path_factory.mktemp('clips')
  ramp = np.arange(16, dtype=np.uint8)[:, None, None, None] * 8
  for name, colour in (('red', (1, 0, 0)), ('blue', (0, 0, 1))):
    frames = np.broadcast_to((100 + ramp) * np.array(colour, np.uint8), (16, 32, 32, 3))
    write_video(folder / f'{name}.mp4', frames, 16)
    (folder / f'{name}.txt').write_text(f'a {name} screen grows brighter')
  (folder / 'broken.mp4').write_bytes(b'not a video' * 99)
  return folder


def recipe(first, second, **judged):
  """The quickstart with other models."""
  config = quickstart_config.get_config()
  second.autoencoder, second.data.latents = first.component, 'latents'
  config.stages = {first.component: first, second.component: second, 'samples': judged}
  config.stages.samples.update(component='samples', of=second.component)
  config.order = (first.component, second.component, 'samples')
  return config


@pytest.mark.slow
def test_your_own_clips_from_nothing_to_a_report(folder, tmp_path):
  config = quickstart_config.get_config(str(folder))
  del config.stages.autoencoder.buckets.image
  for name, overrides in (('autoencoder', tiny.AUTOENCODER), ('video', tiny.VIDEO)):
    keep = {k: v for k, v in overrides.items() if not k.startswith('buckets.image')}
    stage = config.stages[name]
    stage.update_from_flattened_dict(keep | {'train.steps': 2, 'optimizer.warmup': 1})
  assert run_recipe(config.to_dict(), tmp_path)
  text, model = quickstart.describe_result(config.to_dict(), tmp_path), tmp_path / 'video'
  report = json.loads((tmp_path / 'report.json').read_text())
  assert sorted(report['captions']) == [
    'a blue screen grows brighter',
    'a red screen grows brighter',
  ]
  assert report['nearest_is_own'] in (0, 0.5, 1) and report['reconstruction_psnr'] > 0
  assert f'{tmp_path}/samples.png' in text and (tmp_path / 'samples.png').exists()
  assert 'nearest is its own clip' in text and f"--prompt='{report['captions'][0]}'" in text
  place = shutil.copytree(folder, tmp_path / 'moved')
  output = binaries.finish(
    'evaluate', f'--workdir={model}', f'--clips={place}', '--steps=2', '--samples=1'
  )
  assert 'nearest is its own clip' in output.stdout
  record = json.loads((model / 'evaluation.json').read_text())
  assert len(record['captions']) == 1 and record['settings']['steps'] == 2
  rejected = (tmp_path / 'autoencoder' / 'rejected.jsonl').read_text().splitlines()
  assert [json.loads(row)['entry'] for row in rejected] == ['broken.mp4']


def test_digits_are_judged_and_a_second_call_ends_at_once(tiny_runs, tmp_path, monkeypatch):
  judge = functools.partial(digit_judge.train_judge, clips=300)  # a tenth of the usual training
  monkeypatch.setattr(digit_judge, 'train_judge', judge)
  workdir = shutil.copytree(tiny_runs, tmp_path / 'quickstart')  # trained already, and moved
  config = recipe(tiny.autoencoder(), tiny.video(workdir, images=True), judge='digits', samples=27)
  assert run_recipe(config.to_dict(), workdir)
  report = json.loads((workdir / 'report.json').read_text())
  for name in ('alignment', 'ceiling', 'floor'):
    assert report[name].keys() == {'digit', 'colour', 'direction', 'all'}
    assert all(0 <= value <= 1 for value in report[name].values())
  assert report['ceiling']['all'] > report['floor']['all']
  assert report['samples'] == report['captions'] == 27
  text = quickstart.describe_result(config.to_dict(), workdir)
  paths = [line for line in text.splitlines() if line.startswith(str(workdir))]
  assert '27 videos of 27 captions' in text and paths and all(map(os.path.exists, paths))
  assert f'\ntensorboard --logdir={workdir}\n' in text
  monkeypatch.delattr(recipes, 'judge_samples')  # what is judged is not judged again
  assert (
    run_recipe(config.to_dict(), workdir)
    and quickstart.describe_result(config.to_dict(), workdir) == text
  )


def test_a_run_says_how_to_see_its_curves_where_tensorboard_got_them(tiny_runs, tmp_path):
  config, workdir = tiny.video(tiny_runs).to_dict(), tiny_runs / 'video'
  assert quickstart.describe_result(config, workdir).endswith(f'\ntensorboard --logdir={workdir}\n')
  assert quickstart.describe_result(config, tmp_path) == ''


def test_a_moved_model_finds_its_own_autoencoder_and_no_other(tiny_runs, tmp_path):
  moved = shutil.copytree(tiny_runs, tmp_path / 'moved')
  config = json.loads((moved / 'video' / 'config.json').read_text())
  config['autoencoder'] = str(tmp_path / 'gone' / 'autoencoder')
  (moved / 'video' / 'config.json').write_text(json.dumps(config))
  here = VideoPipeline(moved / 'video').generate(['a'], seed=1)
  np.testing.assert_array_equal(here, VideoPipeline(tiny_runs / 'video').generate(['a'], seed=1))
  shutil.rmtree(moved / 'autoencoder')
  with pytest.raises(ConfigError, match=r'learned with is not there; .*moved.*gone/autoencoder'):
    VideoPipeline(moved / 'video')
  tiny.make_another_autoencoder(tiny_runs, moved / 'autoencoder')
  with pytest.raises(ConfigError, match=r'the autoencoder, of the .*another, of the'):
    VideoPipeline(moved / 'video')


def test_the_binaries_encode_and_judge(tiny_runs, tmp_path):
  latents = tmp_path / 'latents'
  flags = tiny.flags(tiny.VIDEO | {'autoencoder': tiny_runs / 'autoencoder'})
  config = '--config=configs/digits/video.py'
  binaries.finish('data', 'encode', config, f'--output={latents}', *flags)
  for path in (tiny_runs / 'latents').rglob('*.arrayrecord'):
    again = latents / path.relative_to(tiny_runs / 'latents')
    assert again.read_bytes() == path.read_bytes()
  workdir = shutil.copytree(tiny_runs / 'video', tmp_path / 'video')
  words = (f'--workdir={workdir}', '--samples=27', '--guidance=1', '--mesh=context=8')
  assert 'real clips' in binaries.finish('evaluate', *words).stdout
  record = json.loads((workdir / 'evaluation.json').read_text())
  assert record['settings']['guidance'] == [['text', 1.0]] and 'alignment' in record
