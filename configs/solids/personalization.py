r"""Personalization with solids: a picture of an object, and a video in which this object moves.

python -m launch.train --config=configs/solids/clip.py:objects --workdir=runs/solids_objects
python -m launch.data encode --config=configs/solids/personalization.py \
  --output=runs/solids_personalization/latents
python -m launch.train --config=configs/solids/personalization.py \
  --workdir=runs/solids_personalization/model
python -m launch.evaluate --workdir=runs/solids_personalization/model --clip=runs/solids_objects

It begins with what `make quickstart WORLD=solids WORKDIR=runs/solids` trained and with the vision
tower of a CLIP that tells objects by pattern and colours. Captions say 'this object' and how it
moves; references show it turned and lit otherwise.
"""

from ml_collections import ConfigDict

from ..base import encoding
from ..digits.personalization import with_identity
from . import clip, video


def get_config() -> ConfigDict:
  config = video.get_config()
  config.start_from = '=runs/solids/video,identity/vision=runs/solids_objects:vision'
  config.data.latents = 'runs/solids_personalization/latents'
  config.data.solids.update(clip.OBJECTS, extras=('reference',), named=False)
  with_identity(config, clip.VISION)
  config.encode = encoding(train=24_576, validation=256)
  return config
