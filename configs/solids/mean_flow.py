"""Solids in one step, learned from data alone, with guidance inside.

python -m launch.train --config=configs/solids/mean_flow.py --workdir=runs/solids/mean_flow
python -m launch.evaluate --workdir=runs/solids/mean_flow/steps --steps=1

It stands on the autoencoder and the latents of `make quickstart WORLD=solids
WORKDIR=runs/solids`; no model is its teacher. With mean_flow.py:further the velocity continues from
a model that ships with mgjax and was trained on one solid, on the autoencoder that ships too. It
takes an hour of a CPU core, after
python -m launch.data encode --config=configs/solids/video.py --output=runs/solids/latents \\
  --config.autoencoder=solids/autoencoder
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import mean_flow
from . import video


def get_config(begin: str = 'nothing') -> ConfigDict:
  if begin not in ('nothing', 'further'):
    raise ConfigError(f'{begin!r}: expected nothing or further')
  recipe = mean_flow(video.get_config(), guidance=4.0)
  if begin == 'further':
    known = 'solids/personalization'
    recipe.autoencoder = 'solids/autoencoder'
    recipe.stages.velocity.start_from = f'backbone={known}:backbone,text={known}:text'
    for stage, rate in (('velocity', 1.2e-3), ('steps', 1e-3)):
      recipe.stages[stage].optimizer.learning_rate = rate
      recipe.stages[stage].train.update(steps=5000, evaluate_every=1000, save_every=1000)
  return recipe
