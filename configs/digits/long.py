r"""Longer training on the moving digits: within two hours on two CPU cores.

python -m launch.train --config=configs/digits/long.py:autoencoder --workdir=runs/long/autoencoder
python -m launch.data encode --config=configs/digits/long.py:video --output=runs/long/latents
python -m launch.train --config=configs/digits/long.py:video --workdir=runs/long/video
python -m launch.evaluate --workdir=runs/long/video --samples=432
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from . import autoencoder, video


def get_config(part: str = 'video') -> ConfigDict:
  if part == 'autoencoder':
    config = autoencoder.get_config()
    config.train.steps = 6000
  elif part == 'video':
    config = video.get_config()
    config.autoencoder = 'runs/long/autoencoder'
    config.data.latents = 'runs/long/latents'
    config.encode.train = 12_288
    config.buckets.video.batch_size = 32
    config.model.dim = 192
    config.model.heads = 6
    config.model.mlp_dim = 512
    config.optimizer.learning_rate = 1.5e-3
    config.sample.guidance = (('text', 6.0),)
    config.train.steps = 9000
  else:
    raise ConfigError(f'part {part!r}: expected long.py:autoencoder or long.py:video')
  return config
