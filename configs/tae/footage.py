r"""Autoencoder of footage at 128 px, 8 x 8 x 8 with 16 channels, in half an hour of two cores.

python -m launch.train --config=configs/tae/footage.py:my_clips/ --workdir=runs/footage
  --config.objective.adversarial=0.05 adds the discriminators, --config.objective.outlier=1e5 the
  outlier penalty.
"""

from ml_collections import ConfigDict

from ..base import clips
from . import tae


def get_config(path: str = '') -> ConfigDict:
  config = tae.get_config('128')
  config.mesh.update(data=-1, fsdp=1)
  config.rules = 'single'
  config.data = clips(path, fps=16, threads=4)
  config.buckets = ConfigDict(
    {
      'video': {'frames': 8, 'height': 128, 'width': 128, 'batch_size': 1, 'weight': 3},
      'image': {'frames': 1, 'height': 128, 'width': 128, 'batch_size': 1, 'weight': 1},
    }
  )
  # As with moving digits, pixels are folded into channels first: a third of the time on a CPU.
  config.model.update(widths=(32, 64, 64), blocks=1, groups=8, dtype='float32')
  config.model.update(patch=(1, 2, 2), strides=((2, 2, 2), (2, 2, 2), (2, 1, 1)))
  config.objective.update(mse=4.0, perceptual=0.0, adversarial=0.0)
  config.discriminator.update(widths=(16, 32, 64), start=200)
  config.discriminator.optimizer.learning_rate = 5e-4
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup = 50
  config.optimizer.final_fraction = 0.02
  config.optimizer.beta2 = 0.99
  config.train.steps = 800
  config.train.ema_decay = 0.995
  config.train.log_every = 50
  config.train.evaluate_every = 400
  config.train.save_every = 400
  return config
