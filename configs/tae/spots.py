r"""Spots: an autoencoder that keeps a few latent places far from all others, with and without the
outlier penalty (Movie Gen §3.1.1, Fig. 5); some minutes on two cores.

python -m launch.train --config=configs/tae/spots.py:my_clips/ --workdir=runs/spots/base
python -m launch.train --config=configs/tae/spots.py:my_clips/ --workdir=runs/spots/without \
  --config.start_from=runs/spots/base --config.train.steps=400
python -m launch.train --config=configs/tae/spots.py:my_clips/ --workdir=runs/spots/with \
  --config.start_from=runs/spots/base --config.train.steps=400 --config.objective.outlier=1e5
Then launch.evaluate --workdir=... shows the norm maps of each (docs/results.md).
"""

from ml_collections import ConfigDict

from configs.tae import footage


def get_config(path: str = '') -> ConfigDict:
  config = footage.get_config(path)
  config.buckets = ConfigDict(
    {'video': {'frames': 8, 'height': 64, 'width': 64, 'batch_size': 2, 'weight': 1}}
  )
  # Few channels behind norms that take a frame's brightness away: what tells it apart has to be
  # carried past them, and a few places with large numbers do that.
  config.model.update(latent_channels=4, widths=(16, 32, 32))
  config.model.update(patch=(1, 1, 1), strides=((2, 2, 2), (2, 2, 2)))
  config.model.groups = 2
  config.objective.prior = 0.0
  config.optimizer.peak = 3e-3
  config.train.steps = 1200
  return config
