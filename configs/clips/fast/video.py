r"""Text to video on your own clips at 64 px for a first picture, a minute on two CPU cores.

python -m launch.train --config=configs/clips/fast/video.py:my_clips/ --workdir=runs/first/video \
  --config.autoencoder=runs/first/autoencoder
"""

from ml_collections import ConfigDict

from .. import video


def get_config(path: str = '') -> ConfigDict:
  config = video.get_config(path)
  config.autoencoder = 'runs/first/autoencoder'
  config.data.in_memory = 64
  config.model.positions = (4, 4, 4)
  config.encode.validation = 1
  config.buckets.video.batch_size = 4  # many small steps learn sooner than few large ones
  config.sample.guidance = (('text', 2.0),)
  config.optimizer.learning_rate = 3e-3
  config.train.steps = 1000
  config.train.ema_decay = 0.99
  config.train.validation_batches = 0
  return config
