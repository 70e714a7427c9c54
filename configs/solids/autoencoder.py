r"""Autoencoder of the world of solids at 64 px, some minutes on two CPU cores.

python -m launch.train --config=configs/solids/autoencoder.py --workdir=runs/solids/autoencoder
"""

from ml_collections import ConfigDict

from ..digits import autoencoder


def get_config() -> ConfigDict:
  config = autoencoder.get_config()
  config.data = ConfigDict(
    {
      'kind': 'solids',
      'solids': {'solids': (1, 3)},
      'latents': '',
      'fps': 8,
      'threads': 2,
    }
  )
  for bucket in config.buckets.values():
    bucket.update(height=64, width=64)
  # 4 x 4 x 4 pixels a place, where the report has 8 x 8 x 8: of 64 px a solid covers 15, and whole
  # solids are lost in 8 x 8 places (docs/results.md).
  config.model.latent_channels = 32
  config.model.shortcut = True
  config.objective.mse = 10.0
  config.train.steps = 2400
  config.train.evaluate_every = config.train.save_every = 600
  return config
