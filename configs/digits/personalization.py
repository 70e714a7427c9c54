r"""Personalization of the moving digits: a picture of a digit in some hand, and a video of it.

python -m launch.encode --config=configs/digits/personalization.py \
  --workdir=runs/personalization/latents
python -m launch.train --config=configs/digits/personalization.py \
  --workdir=runs/personalization/model
python -m launch.evaluate --workdir=runs/personalization/model

It begins with what `make quickstart` trained and with the vision tower of configs/digits/clip.py,
in runs/clip. configs/digits/personalization.py:images trains on images as well, so that the model
can make the pictures of `launch.personalize make_pairs`.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import encoding
from . import clip, video

POSES = {'turns': 10.0, 'weights': 0.5}  # of the clips; other references are turned by up to 30


def get_config(buckets: str = 'videos') -> ConfigDict:
  if buckets not in ('videos', 'images'):
    raise ConfigError(f'{buckets!r}: expected videos, or images to train on images as well')
  config = video.get_config()
  config.component = 'personalization'
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.start_from = '=runs/quickstart/video,identity/vision=runs/clip:vision'
  config.data.latents = 'runs/personalization/latents'
  # A number in the caption would tell the digit, and the reference would not be looked at.
  config.data.digits.update(extras=('reference',), numbered=False, **POSES)
  if buckets == 'videos':
    del config.buckets.image
  config.model.conditionings.identity = ConfigDict(
    {'kind': 'identity', 'vision': clip.VISION, 'references': 1, 'tokens': 'both'}
  )
  config.references = ConfigDict({'per_clip': 1, 'faces': '', 'margin': 0.0})
  config.objective.dropout = ConfigDict({'text': 0.1, 'identity': 0.1})
  config.encode = encoding(train=8192, validation=512)
  config.sample.guidance = (('text', 3.0), ('identity', 3.0))
  config.optimizer.learning_rate = 1e-3
  config.optimizer.rates = (('identity/vision/*', 0.1),)
  config.train.steps = 3000
  config.train.evaluate_every = 1000
  config.train.save_every = 1000
  return config
