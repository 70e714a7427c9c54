r"""Personalization of the moving digits: a picture of a digit in some hand, and a video of it.

python -m launch.train --config=configs/digits/clip.py --workdir=runs/clip_turned \
  --config.data.digits.turns=30 --config.data.digits.weights=1 \
  --config.objective.identity_weight=0.5 --config.train.steps=8000
python -m launch.data encode --config=configs/digits/personalization.py \
  --output=runs/personalization/latents
python -m launch.train --config=configs/digits/personalization.py \
  --workdir=runs/personalization/model
python -m launch.evaluate --workdir=runs/personalization/model

It begins with what `make quickstart` trained and with the vision tower of a CLIP that has seen
digits turned and in strokes of any weight, as references show them. With personalization.py:paired
references are frames of the clip itself; personalization_stages.py trains in the paper's stages.
"""

from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import encoding
from . import clip, video

POSES = {'turns': 10.0, 'weights': 0.5}  # of the clips; other references are turned by up to 30
REFERENCES = {'cross': 'other', 'paired': 'own'}


def get_config(argument: str = 'cross') -> ConfigDict:
  if argument not in REFERENCES:
    raise ConfigError(f'{argument!r}: expected cross or paired')
  config = video.get_config()
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.start_from = '=runs/quickstart/video,identity/vision=runs/clip_turned:vision'
  config.data.latents = 'runs/personalization/latents'
  # A number in the caption would tell the digit, and the reference would not be looked at.
  config.data.digits.update(
    extras=('reference',), reference=REFERENCES[argument], numbered=False, **POSES
  )
  # An image shows a hand as well as a video does, at a quarter of the operations.
  config.buckets.image.weight = 2 * config.buckets.video.weight
  with_identity(config, clip.VISION)
  config.encode = encoding(train=24576, validation=512)
  config.train.steps = 12_000
  config.train.evaluate_every = 2000
  config.train.save_every = 2000
  return config


def with_identity(config: ConfigDict, vision: dict[str, Any]) -> None:
  """Makes of a configuration of text to video one that reads a reference by a vision tower."""
  config.component = 'personalization'
  config.model.conditionings.identity = ConfigDict(
    {
      'kind': 'identity',
      'vision': vision,
      'references': 1,
      'tokens': 'class',
      'class_tokens': 16,
    }
  )
  config.references = ConfigDict({'per_clip': 1, 'faces': '', 'margin': 0.0})
  config.objective.dropout = ConfigDict({'text': 0.1, 'identity': 0.1})
  config.sample.guidance = (('text', 3.0), ('identity', 3.0))
  config.optimizer.learning_rate = 1e-3
  # Not the tower: it has seen more pictures than there are pairs. A model that stays as it is too
  # (('identity/vision/*', 0.0), ('identity/*', 1.0), ('*', 0.0)) says which digit, by no hand.
  config.optimizer.rates = (('identity/vision/*', 0.0), ('*', 1.0))
