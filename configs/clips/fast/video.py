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
  config.model.dim = 160
  config.model.depth = 3
  config.model.mlp_dim = 416
  config.model.positions = (4, 4, 4)
  # Single words are soon learnt; what takes long is how the few clips look, at all times.
  config.objective.time.mean = 0.0
  config.encode.validation = 1
  config.sample.guidance = (('text', 2.0),)
  config.optimizer.warmup = 50
  config.train.steps = 500
  config.train.ema_decay = 0.98
  config.train.validation_batches = 0
  return config
