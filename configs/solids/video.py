r"""Text to video in the world of solids at 64 px, an hour on two CPU cores.

python -m launch.data encode --config=configs/solids/video.py --output=runs/solids/latents \
  --config.autoencoder=runs/solids/autoencoder
python -m launch.train --config=configs/solids/video.py --workdir=runs/solids/video \
  --config.autoencoder=runs/solids/autoencoder --config.data.latents=runs/solids/latents

With configs/solids/video.py:fast, on solids/autoencoder:fast, clips are half as many tokens, for
experiments: motions and the camera are followed as well after half the time, solids less whole. All
of it lies in runs/solids/fast.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import video
from . import autoencoder


def get_config(what: str = 'small') -> ConfigDict:
  if what not in ('small', 'fast'):
    raise ConfigError(f'{what!r}: expected small or fast')
  folder = 'runs/solids' if what == 'small' else 'runs/solids/fast'
  config = video.get_config()
  config.autoencoder = f'{folder}/autoencoder'
  config.data = autoencoder.get_config().data
  config.data.latents = f'{folder}/latents'
  for bucket in config.buckets.values():
    bucket.update(height=64, width=64)
  # 128 tokens of 8 x 8 x 8 pixels. Convolved with their neighbours they draw whole solids; without,
  # each token by itself decides whether it shows some of one, and solids fall to pieces.
  config.model.update(
    dim=192,
    depth=6,
    heads=6,
    mlp_dim=576,
    unroll=6,
    patch=(1, 1, 1),
    positions=(2, 8, 8),
    depthwise=True,
  )
  # Words, not bytes: captions are up to three sentences.
  config.model.conditionings.text = ConfigDict(
    {
      'kind': 'word_text',
      'vocabulary': 6007,  # no two of its words share a token
      'width': 96,
      'depth': 2,
      'heads': 3,
      'length': 64,
    }
  )
  config.buckets.video.weight = 3  # of images 1: what solids look like is learnt from both
  config.buckets.image.batch_size = 16
  config.optimizer.learning_rate = 2e-3
  config.train.steps = 16_000
  config.train.evaluate_every = config.train.save_every = 4000
  config.encode.train = 12_000
  config.encode.validation = 256
  if what == 'fast':
    config.model.positions = (1, 8, 8)
    config.objective.time.update(mean=-1.5, std=1.1)
    config.train.steps = 11_000
    config.train.evaluate_every = config.train.save_every = 2750
  return config
