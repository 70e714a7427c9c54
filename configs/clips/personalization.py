r"""Personalized text to video of the people in your own clips, at 64 px on two CPU cores.

python -m launch.data references --input=my_clips/ --output=data/people --faces=dlib
python -m launch.train --config=configs/clips/personalization.py:data/people \
  --workdir=runs/mine/personalization --config.autoencoder=runs/mine/autoencoder
python -m launch.sample personalize --workdir=runs/mine/personalization --reference=face.jpg \
  --prompt='a person smiles' --out=out.mp4

Goes on from a model of configs/clips/video.py by --config.start_from=runs/mine/video; vision tower
and all are trained together, on references from the clip itself.
"""

from ml_collections import ConfigDict

from ..digits import clip
from . import video


def get_config(path: str = 'data/people') -> ConfigDict:
  config = video.get_config(path)
  config.component = 'personalization'
  config.data.kind = 'records'
  config.model.conditionings.identity = ConfigDict(
    {
      'kind': 'identity',
      'vision': {**clip.VISION, 'size': 64, 'patch': 8},
      'references': 1,
      'tokens': 'both',
      'class_tokens': 4,
    }
  )
  config.objective.dropout.identity = 0.1
  config.references = ConfigDict({'per_clip': 5, 'faces': 'dlib', 'margin': 0.3})
  config.sample.guidance = (('text', 3.0), ('identity', 3.0))
  return config
