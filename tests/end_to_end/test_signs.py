"""Images of signs from a configuration to a judged model, by the binaries."""

import json

import pytest
from PIL import Image

from configs.digits import signs
from mgjax.api import train
from mgjax.core.errors import ConfigError
from mgjax.workflows.encode import encode
from tests import binaries
from tests.tiny import flags

SHARED = {
  'buckets.sign.height': 16,
  'buckets.sign.width': 24,
  'buckets.sign.batch_size': 8,
  'data.threads': 1,
  'optimizer.warmup': 1,
  'train.steps': 2,
  'train.evaluate_every': 2,
  'train.save_every': 2,
  'train.validation_batches': 1,
}
AUTOENCODER = SHARED | {
  'model.latent_channels': 4,
  'model.widths': (8,),
  'model.strides': ((2, 1, 1),),
  'model.groups': 4,
}
MODEL = SHARED | {
  'model.dim': 16,
  'model.depth': 1,
  'model.heads': 2,
  'model.mlp_dim': 32,
  'model.positions': (2, 2, 3),
  'model.conditionings.text.width': 8,
  'model.conditionings.text.depth': 1,
  'encode.train': 8,
  'encode.validation': 4,
  'sample.steps': 2,
}


def configuration(part, runs):
  config = signs.get_config(part)
  if part != 'autoencoder':
    config.autoencoder, config.data.latents = str(runs / 'autoencoder'), str(runs / 'latents')
  config.update_from_flattened_dict(AUTOENCODER if part == 'autoencoder' else MODEL)
  return config


def launch(binary, *arguments):
  done = binaries.run(binary, *arguments)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
def test_images_from_the_configuration_to_a_table(tmp_path):
  runs = tmp_path
  train(configuration('autoencoder', runs), runs / 'autoencoder')
  encode(configuration('words', runs), runs / 'latents')
  places = {'autoencoder': runs / 'autoencoder', 'data.latents': runs / 'latents'}
  config = '--config=configs/digits/signs.py:words_and_characters'
  workdir = runs / 'words_and_characters'
  launch('train', config, f'--workdir={workdir}', *flags(MODEL | places))
  lines = launch('evaluate', f'--workdir={workdir}', '--samples=10', '--guidance=2').splitlines()
  scores = ['characters', 'number', '2', 'digits', '3', 'digits', 'colour', 'direction']
  assert lines[0].split() == scores
  titles = ['seen in training', 'held out', 'real signs (ceiling)', 'shuffled (floor)']
  assert [line[:22].strip() for line in lines[1:5]] == titles
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


def test_a_part_that_there_is_not_is_refused():
  with pytest.raises(ConfigError, match="part 'letters': expected autoencoder, words"):
    signs.get_config('letters')
