r"""Spots: an autoencoder with a few latent places far from all others, with and without the outlier
penalty (Movie Gen §3.1.1, Fig. 5); some minutes on two cores.

python -m launch.train --config=configs/tae/spots.py --workdir=runs/spots/base
python -m launch.train --config=configs/tae/spots.py:tuned --workdir=runs/spots/without \
  --config.start_from=runs/spots/base
python -m launch.train --config=configs/tae/spots.py:tuned --workdir=runs/spots/with \
  --config.start_from=runs/spots/base --config.objective.outlier=1e5
Then launch.evaluate --workdir=... shows the norm maps of each
(docs/experiments/outlier_penalty.md).
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import autoencoder


def get_config(stage: str = 'base') -> ConfigDict:
  config = autoencoder.get_config()
  # A small digit on a large black ground: what few places say is all that there is to say.
  config.data.digits.digit_size = 8.0
  config.buckets = ConfigDict(
    {'video': {'frames': 8, 'height': 64, 'width': 64, 'batch_size': 2, 'weight': 1}}
  )
  if stage == 'base':
    config.train.steps = 1000
  elif stage == 'tuned':
    config.train.steps = 400
    config.optimizer.learning_rate = 5e-4
  else:
    raise ConfigError(f'stage {stage!r}: expected spots.py or spots.py:tuned')
  return config
