r"""Solids in the report's stages (Movie Gen §3.2.2), a night on two CPU cores.

python -m launch.train --config=configs/solids/recipe.py --workdir=runs/solids_night

An autoencoder; images and videos of 32 px; the same at 64 px, from the weights of the stage before,
with spatial positions doubled; samples that are judged. The model has three times the parameters of
that of `make quickstart WORLD=solids`. The same command goes on where it stopped.
"""

from ml_collections import ConfigDict

from . import autoencoder, video

CLIPS = 50_000  # encoded, all that the training split has


def get_config() -> ConfigDict:
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
