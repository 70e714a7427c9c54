r"""Autoencoder of your own clips at 64 px, some minutes on two CPU cores.

python -m launch.train --config=configs/clips/autoencoder.py:my_clips/ \
  --workdir=runs/mine/autoencoder
The argument is a folder of videos with captions (clip.mp4, clip.txt) or a .csv or .jsonl manifest.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config(path: str = '') -> ConfigDict:
  config = base()
  config.part = 'autoencoder'
  config.data = ConfigDict(
    {'kind': 'clips', 'path': path, 'validation_path': '', 'latents': '', 'fps': 8, 'threads': 4}
  )
  config.buckets = ConfigDict(
    {
      'video': {'frames': 16, 'height': 64, 'width': 64, 'batch_size': 1, 'weight': 3},
      'image': {'frames': 1, 'height': 64, 'width': 64, 'batch_size': 8, 'weight': 1},
    }
  )
  config.model = ConfigDict(
    {
      'latent_channels': 16,
      'widths': (64, 64),
      'strides': ((2, 1, 1), (2, 1, 1)),
      'blocks': 0,
      'groups': 8,
      'patch': (1, 4, 4),
      'compute': 'float32',
    }
  )
  config.objective = ConfigDict({'squared_weight': 4.0, 'prior_weight': 1e-6})
  config.optimizer.kind = 'cosine'
  config.optimizer.peak = 2e-3
  config.optimizer.warmup = 50
  config.optimizer.final = 0.02
  config.optimizer.beta2 = 0.99
  config.optimizer.weight_decay = 1e-4
  config.train.steps = 3000
  config.train.decay = 0.995
  config.train.log_every = 100
  config.train.evaluate_every = 1000
  config.train.save_every = 1000
  config.train.validation_batches = 4
  return config
