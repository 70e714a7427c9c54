r"""Text to video in the world of solids at 64 px, some 40 minutes on two CPU cores.

python -m launch.data encode --config=configs/solids/video.py --output=runs/solids/latents \
  --config.autoencoder=runs/solids/autoencoder
python -m launch.train --config=configs/solids/video.py --workdir=runs/solids/video \
  --config.autoencoder=runs/solids/autoencoder --config.data.latents=runs/solids/latents
"""

from ml_collections import ConfigDict

from ..digits import video
from . import autoencoder


def get_config() -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/solids/autoencoder'
  config.data = autoencoder.get_config().data
  config.data.solids = {'solids': (1, 2)}
  config.data.latents = 'runs/solids/latents'
  for bucket in config.buckets.values():
    bucket.update(height=64, width=64)
  config.model.update(dim=192, heads=6, mlp_dim=576, positions=(4, 8, 8))
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
  config.optimizer.learning_rate = 1.8e-3
  config.train.steps = 3000
  config.objective.time.mean = -0.3
  config.train.evaluate_every = config.train.save_every = 1000
  config.encode.train = 5000
  config.encode.validation = 256
  return config
