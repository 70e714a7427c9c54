r"""Adapters that learn which of two samples a judge of digits prefers, minutes of two CPU cores.

python -m launch.data pairs --config=configs/digits/preferences.py \
  --output=runs/digits_preferences/latents
python -m launch.train --config=configs/digits/preferences.py \
  --workdir=runs/digits_preferences/model
python -m launch.evaluate --workdir=runs/digits_preferences/model --samples=216

What it changes is a model that still errs, of a third of the quickstart's steps:
python -m launch.train --config=configs/quickstart.py --workdir=runs/quickstart \
  --config.stages.video.train.steps=2000
The judge of votes has learned from other handwriting than the judge that evaluates, and evaluation
asks for captions that no pair had.
"""

from ml_collections import ConfigDict

from ..base import preferences
from . import video


def get_config() -> ConfigDict:
  config = preferences(video.get_config(), 'runs/quickstart/video')
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.data.latents = 'runs/digits_preferences/latents'
  del config.buckets.image
  config.preferences.update(prompts=1600, validation=160, strength=1.0)
  config.buckets.video.batch_size = 16
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 300
  config.train.evaluate_every = config.train.save_every = 100
  return config
