r"""Autoencoder of the world of solids at 64 px, some minutes on two CPU cores.

python -m launch.train --config=configs/solids/autoencoder.py --workdir=runs/solids/autoencoder
python -m launch.train --config=solids/autoencoder:sharp --workdir=runs/solids/sharp

The second one keeps 16 times as many numbers, for pictures of 30 dB inside of solids; models of its
latents need far more steps.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import autoencoder


def get_config(what: str = 'small') -> ConfigDict:
  if what not in ('small', 'sharp'):
    raise ConfigError(f'{what!r}: expected small or sharp')
  config = autoencoder.get_config()
  config.data = ConfigDict(
    {
      'kind': 'solids',
      'solids': {'solids': (1, 2)},
      'latents': '',
      'fps': 8,
      'threads': 2,
    }
  )
  for bucket in config.buckets.values():
    bucket.update(height=64, width=64)
  # Blocks of a whole clip's 16 frames and 8 x 8 pixels in 80 numbers: judges read what happens
  # through them, and a flow model learns few numbers sooner than many (docs/results.md).
  config.model.update(
    latent_channels=80,
    widths=(64, 64, 64, 64),
    strides=((2, 2, 2), (2, 1, 1), (2, 1, 1), (2, 1, 1)),
    shortcut=True,
  )
  if what == 'sharp':  # blocks of 4 x 4 x 4
    config.model.update(widths=(64, 64), strides=((2, 1, 1), (2, 1, 1)))
  config.objective.mse = 10.0
  # Small: the shortcut starts as the best linear map there is, which large steps spoil.
  config.optimizer.learning_rate = 4e-4
  config.train.steps = 900
  config.train.evaluate_every = config.train.save_every = 450
  return config
