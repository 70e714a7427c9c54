"""The race counts what a recipe costs from nothing, keeps what ended, and takes recipes alone."""

import json

import pytest

from configs import quickstart
from configs.digits import video
from mgjax.core.errors import ConfigError
from mgjax.lab.benchmarks.speedrun import BARS, race
from tests import binaries, tiny

FLAGS = ['--config=configs/quickstart.py']


def kept(path, **changes):
  path.write_text(
    json.dumps(
      {
        'flags': FLAGS,
        'machine': '2 x',
        'bar': {'names': ['all'], 'least': 0.95},
        'steps': 9600,
        'date': '2026-01-01',
        'commit': '12345678',
        'seeds': [
          {'seed': seed, 'processor_seconds': 900.0 + seed, 'seconds': 500.0, 'score': score}
          for seed, score in enumerate((0.99, 0.92))
        ],
        **changes,
      }
    )
  )
  return str(path)


def test_seeds_that_ended_are_kept_and_their_mean_must_reach_the_bar(tmp_path, monkeypatch):
  monkeypatch.setattr('mgjax.lab.benchmarks.speedrun.machine', lambda: '2 x')
  path = kept(tmp_path / 'race.json')
  answer = race(quickstart.get_config().to_dict(), FLAGS, 2, path)
  row = answer.text.splitlines()[-1]
  assert '900 (900 to 901)' in row and '0.955 reached (0.990, 0.920)' in row
  assert '12345678' in row and '7,500' in row


def test_the_score_of_solids_is_of_captions_in_distribution_their_first_group():
  found = {'alignment': dict.fromkeys(BARS['solids'].names, 0.5)}
  assert BARS['solids'].score({'groups': {'in distribution': found, 'new value': {}}}) == 0.5


def test_what_is_kept_of_another_race_is_not_gone_on_with(tmp_path):
  path = kept(tmp_path / 'race.json', flags=[*FLAGS, '--config.stages.video.train.steps=9'])
  with pytest.raises(ConfigError, match=r'of another speedrun, .*steps=9 on 2 x; give'):
    race(quickstart.get_config().to_dict(), FLAGS, 3, path)


@pytest.mark.parametrize('config', [video.get_config(), quickstart.get_config('sound')])
def test_only_recipes_that_end_with_the_judge_of_a_world_race(config):
  with pytest.raises(ConfigError, match='a recipe that ends with the judge of digits or solids'):
    race(config.to_dict(), FLAGS, 1)


@pytest.mark.slow
def test_a_race_from_nothing_leaves_a_row_and_no_run(tmp_path):
  few = {'train.steps': 4, 'train.evaluate_every': 4, 'train.save_every': 4, 'optimizer.warmup': 1}
  sizes = {'autoencoder': tiny.AUTOENCODER | few, 'video': tiny.VIDEO | few}
  words = [
    f'--config.stages.{stage}.{name}={value}'
    for stage, fields in sizes.items()
    for name, value in fields.items()
  ]
  out = tmp_path / 'race.json'
  flags = [*FLAGS, *words, '--config.stages.samples.samples=27']
  told = binaries.finish('bench', '--what=speedrun', *flags, '--rounds=1', f'--out={out}')
  numbers = json.loads(out.read_text())
  (row,) = numbers['seeds']
  assert row['seed'] == 0 and row['processor_seconds'] > 0 and 0 <= row['score'] <= 1
  assert 'missed' in told.stdout and numbers['flags'] == flags and numbers['steps'] == 8
