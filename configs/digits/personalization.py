r"""Personalization of the moving digits: one picture of a digit, and a video of it.

python -m launch.encode --config=configs/digits/personalization.py \
  --workdir=runs/personalization/latents --config.autoencoder=runs/quickstart/autoencoder
python -m launch.train --config=configs/digits/personalization.py \
  --workdir=runs/personalization/model
"""

from ml_collections import ConfigDict

from ..base import encoding
from . import clip, video

POSES = {'turns': 10.0, 'weights': 0.5}  # of the clips; a reference is turned by up to 30 degrees


def get_config() -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.start_from = '=runs/quickstart/video,identity/vision=runs/clip:vision'
  config.data.latents = 'runs/personalization/latents'
  # A number in the caption would tell the digit, and the reference would be ignored.
  config.data.digits.update(extras=('reference',), numbered=False, **POSES)
  del config.buckets.image  # its captions have no motion
  config.model.conditionings.identity = ConfigDict(
    {'kind': 'identity', 'vision': clip.VISION, 'tokens': 'both'}
  )
  config.objective.dropout = ConfigDict({'text': 0.1, 'identity': 0.1})
  config.encode = encoding(train=8192, validation=512)
  config.sample.guidance = (('text', 3.0), ('identity', 3.0))
  config.optimizer.learning_rate = 1e-3
  config.optimizer.rates = (('identity/vision/*', 0.1),)
  config.train.steps = 3000
  config.train.evaluate_every = 1000
  config.train.save_every = 1000
  return config
