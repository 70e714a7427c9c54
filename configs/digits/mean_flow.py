"""Moving digits in one step, learned from data alone, with guidance inside.

python -m launch.train --config=configs/digits/mean_flow.py --workdir=runs/mean_flow
python -m launch.evaluate --workdir=runs/mean_flow/steps --steps=1

It stands on the autoencoder and the latents of `make quickstart`; no model is its teacher. First
the velocity is learned, then steps of any length, from where that ended.
"""

from ml_collections import ConfigDict

from ..base import mean_flow
from . import video


def get_config() -> ConfigDict:
  recipe = mean_flow(video.get_config(), guidance=4.0)
  recipe.autoencoder = 'runs/quickstart/autoencoder'
  recipe.latents = 'runs/quickstart/latents'
  recipe.stages.steps.train.steps = 3000
  return recipe
