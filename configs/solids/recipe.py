r"""Solids in the paper's stages (Movie Gen §3.2.2), a night on two CPU cores.

python -m launch.train --config=configs/solids/recipe.py --workdir=runs/solids_night
python -m launch.train --config=configs/solids/recipe.py:short --workdir=runs/solids_short

An autoencoder; images and videos of 32 px; the same at 64 px, from the weights of the stage before,
with spatial positions doubled; samples that are judged. The model has three times the parameters of
that of `make quickstart WORLD=solids`. The same command goes on where it stopped.

`short` trains the model of the quickstart in two thirds of its seconds, to a score lower by
0.02 to 0.07 (docs/results/speedrun.md). It has a stage at 16 px in place of that at 32 px, and Muon
at 64 px.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from . import autoencoder, video

CLIPS = 50_000  # encoded, all that the training split has


def get_config(length: str = 'night') -> ConfigDict:
  if length not in ('night', 'short'):
    raise ConfigError(f'{length!r}: expected night or short')
  first = autoencoder.get_config()
  night = length == 'night'
  name = 'half' if night else 'quarter'
  smaller = _stage(name, f'latents_{name}')
  last = _stage('small', 'latents', start_from=name)
  if night:
    first.train.update(steps=4000, evaluate_every=1000, save_every=1000)
    _enlarge(smaller, 30_000)
    _enlarge(last, 40_000)
  else:
    first.train.steps = 400
    for stage in (smaller, last):
      stage.buckets.video.weight = 10
      stage.model.conditionings.text.length = 48  # of words; no caption has more
    last.optimizer.update(name='muon', learning_rate=3e-3)
    last.train.update(steps=4400, evaluate_every=1100, save_every=1100)
  samples = {'component': 'samples', 'of': 'video', 'judge': 'solids'}
  samples['samples'] = 200 if night else 72
  stages = {'autoencoder': first, name: smaller, 'video': last, 'samples': ConfigDict(samples)}
  return ConfigDict({'stages': stages, 'order': tuple(stages)})


def _stage(what: str, latents: str, start_from: str = '') -> ConfigDict:
  config = video.get_config(what)
  config.autoencoder = 'autoencoder'
  config.data.latents = latents
  config.start_from = start_from
  return config


def _enlarge(config: ConfigDict, steps: int) -> None:
  config.model.update(dim=320, depth=8, heads=10, mlp_dim=960, unroll=8)
  config.optimizer.learning_rate = 1.2e-3  # falls with the width
  config.encode.train = CLIPS
  config.train.steps = steps
  config.train.evaluate_every = config.train.save_every = 5000
