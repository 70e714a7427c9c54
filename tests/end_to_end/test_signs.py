"""Images of signs from a configuration to a judged model, by the binaries."""

import json

import pytest
from PIL import Image

from configs.digits import signs
from mgjax.api import train
from mgjax.apps.encode import encode
from tests import binaries, tiny
from tests.tiny import flags, under

SHARED = tiny.RUN | under('train', steps=2, evaluate_every=2, save_every=2)
SHARED |= under('buckets.sign', height=16, width=24, batch_size=8) | {'optimizer.warmup': 1}
AUTOENCODER = SHARED | tiny.OF_AN_AUTOENCODER
MODEL = SHARED | tiny.BACKBONE | under('encode', train=8, validation=4)
MODEL |= {'model.positions': (2, 2, 3), 'sample.steps': 2}


def configuration(part, runs):
  config = signs.get_config(part)
  if part != 'autoencoder':
    config.autoencoder, config.data.latents = str(runs / 'autoencoder'), str(runs / 'latents')
  config.update_from_flattened_dict(AUTOENCODER if part == 'autoencoder' else MODEL)
  return config


@pytest.mark.slow
def test_images_from_the_configuration_to_a_table(tmp_path):
  runs = tmp_path
  train(configuration('autoencoder', runs), runs / 'autoencoder')
  encode(configuration('words', runs), runs / 'latents')
  places = {'autoencoder': runs / 'autoencoder', 'data.latents': runs / 'latents'}
  config = '--config=configs/digits/signs.py:words_and_characters'
  workdir = runs / 'words_and_characters'
  binaries.finish('train', config, f'--workdir={workdir}', *flags(MODEL | places))
  words = (f'--workdir={workdir}', '--samples=10', '--guidance=2')
  lines = binaries.finish('evaluate', *words).stdout.splitlines()
  assert lines[0].endswith('real clips  shuffled')
  for name in ('characters', 'number', '2 digits', '3 digits', 'colour', 'direction'):
    assert all(
      any(line.startswith(f'{name}, {group}') for line in lines)
      for group in ('seen in training', 'held out')
    )
  assert lines[-3:] == [
    str(workdir / 'evaluation' / 'samples.png'),
    str(workdir / 'evaluation.html'),
    str(workdir / 'evaluation.json'),
  ]
  found = json.loads((workdir / 'evaluation.json').read_text())
  assert found['settings']['guidance'] == [['characters', 2.0], ['text', 2.0]]
  assert set(found['groups']) == {'seen in training', 'held out'} and found['samples'] == 10
  metrics = found['measured']['metrics']
  for kind, group in found['groups'].items():
    assert group['ceiling']['number'] > 0.9 > 0.1 > group['floor']['number']
    for name, score in group['alignment'].items():
      assert metrics[f'alignment/{kind}/{name}']['value'] == pytest.approx(score)
  with Image.open(workdir / 'evaluation' / 'samples.png') as sheet:
    assert sheet.width > 8 * 24 and sheet.height > 4 * 16
