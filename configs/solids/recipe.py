r"""Solids in the report's stages (Movie Gen §3.2.2), a night on two CPU cores.

python -m launch.train --config=configs/solids/recipe.py --workdir=runs/solids_night
python -m launch.train --config=configs/solids/recipe.py:short --workdir=runs/solids_short

An autoencoder; images and videos of 32 px; the same at 64 px, from the weights of the stage before,
with spatial positions doubled; samples that are judged. The model has three times the parameters of
that of `make quickstart WORLD=solids`. The same command goes on where it stopped.

`short` trains the model of the quickstart in two thirds of its seconds, to a score lower by
.02 to .07 (docs/speedrun.md): a stage at 16 px in place of that at 32 px, then Muon at 64 px.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from .. import quickstart
from . import autoencoder, video

CLIPS = 50_000  # encoded, all that the training split has


def get_config(length: str = 'night') -> ConfigDict:
  if length not in ('night', 'short'):
    raise ConfigError(f'{length!r}: expected night or short')
  if length == 'short':
    return _short()
  first = autoencoder.get_config()
  first.train.steps = 4000
  first.train.evaluate_every = first.train.save_every = 1000
  samples = {'component': 'samples', 'of': 'video', 'judge': 'solids', 'samples': 200}
  stages = {
    'autoencoder': first,
    'half': _stage('half', 'latents_half', 30_000),
    'video': _stage('small', 'latents', 40_000, start_from='half'),
    'samples': ConfigDict(samples),
  }
  return ConfigDict({'stages': stages, 'order': tuple(stages)})


def _short() -> ConfigDict:
  config = quickstart.get_config('solids')
  quarter, last = video.get_config('quarter'), config.stages.video
  quarter.autoencoder, quarter.data.latents = 'autoencoder', 'latents_quarter'
  for stage in (quarter, last):
    stage.buckets.video.weight = 10
    stage.model.conditionings.text.length = 48  # of words; no caption has more
  last.optimizer.update(name='muon', learning_rate=3e-3)
  last.train.update(steps=4400, evaluate_every=1100, save_every=1100)
  last.start_from = 'quarter'
  config.stages.autoencoder.train.steps = 400
  del config.stages.half
  config.stages.quarter = quarter
  config.order = ('autoencoder', 'quarter', 'video', 'samples')
  return config


def _stage(what: str, latents: str, steps: int, start_from: str = '') -> ConfigDict:
  config = video.get_config(what)
  config.autoencoder, config.data.latents = 'autoencoder', latents
  config.start_from = start_from
  config.model.update(dim=320, depth=8, heads=10, mlp_dim=960, unroll=8)
  config.optimizer.learning_rate = 1.2e-3  # falls with the width
  config.encode.train = CLIPS
  config.train.steps = steps
  config.train.evaluate_every = config.train.save_every = 5000
  return config
