r"""Autoencoder of your own clips at 64 px for a first picture, a minute on two CPU cores.

python -m launch.train --config=configs/clips/fast/autoencoder.py:my_clips/ \
  --workdir=runs/first/autoencoder
"""

from ml_collections import ConfigDict

from .. import autoencoder


def get_config(path: str = '') -> ConfigDict:
  config = autoencoder.get_config(path)
  config.data.in_memory = 64
  del config.buckets.image  # a program less to compile
  config.buckets.video.batch_size = 2
  config.model.patch = (1, 8, 8)  # a fourth of the places, each with twice as many channels
  config.model.latent_channels = 32
  config.train.steps = 450
  config.train.ema_decay = 0.98
  config.train.validation_batches = 0  # as are these; the quickstart measures what comes of it
  return config
