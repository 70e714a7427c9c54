r"""Autoencoder of your own clips at 64 px, half a minute on two CPU cores.

python -m launch.train --config=configs/clips/fast/autoencoder.py:my_clips/ \
  --workdir=runs/fast/autoencoder
"""

from ml_collections import ConfigDict

from .. import autoencoder


def get_config(path: str = '') -> ConfigDict:
  config = autoencoder.get_config(path)
  config.data.in_memory = 64
  del config.buckets.image  # a program less to compile
  config.buckets.video.batch_size = 2
  config.model.patch = (1, 8, 8)
  config.model.latent_channels = 32
  config.train.steps = 400
  return config
