r"""Personalized text to video: stages of training and a fine-tuning (Movie Gen §4).

python -m launch.data encode --config=configs/personalization/personalization.py:30b,identity \
  --output=data/paired_latents --config.autoencoder=runs/tae --config.data.path=data/people
python -m launch.train --config=configs/personalization/personalization.py:30b,identity \
  --workdir=runs/identity --config.autoencoder=runs/tae \
  --config.data.path=data/people --config.data.latents=data/paired_latents \
  --config.start_from==runs/t2iv_768,identity/vision=runs/metaclip_vision
python -m launch.sample personalize --workdir=runs/identity --reference=face.jpg \
  --prompt='a person plays the violin' --out=out.mp4

The size is one of configs/video/sizes.py, and the stage one of those below; recipe.py has all of
them in a row. data/people are records of launch.data references.

  identity     64 frames    tower frozen    pairs: references from the clip itself
  long         256 frames   tower frozen    the same
  naturalness  256 frames   tower trained   cross pairs: references of the person elsewhere
  finetune     256 frames   tower trained   pairs and real cross pairs 1 : 1, by hand-picked clips
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..text import metaclip_vision
from ..video.stage import DURATIONS, joint_buckets, stage
from ..video.t2iv_768 import POSITIONS, RATIOS

SHORT = {'4s': (64, (16, 16))}  # 8 latent frames
LONG = {name: DURATIONS[name] for name in ('16s', '12_16s')}
# 30,000 steps of 512 clips in all. How many each stage has is not in public sources.
STEPS = {'identity': 15_000, 'long': 5_000, 'naturalness': 10_000, 'finetune': 2_000}


def get_config(argument: str = '30b,identity') -> ConfigDict:
  size, _, name = argument.rpartition(',')
  if name not in STEPS or not size:
    raise ConfigError(
      f'{argument!r}: expected a size and a stage of {", ".join(STEPS)}, as in 30b,identity'
    )
  config = stage(size, POSITIONS)
  config.component = 'personalization'
  config.data.update(kind='records', path='data/people')
  config.data.only = 'not cross' if name in ('identity', 'long') else 'cross'
  config.mesh.context = 2 if name == 'identity' else 8
  durations = SHORT if name == 'identity' else LONG
  config.buckets = joint_buckets(size, RATIOS, 512, durations=durations, images=False)
  vision = metaclip_vision.get_config().model
  config.model.conditionings.identity = ConfigDict(
    {
      'kind': 'identity',
      'vision': vision,
      'references': 1,
      'tokens': 'both',  # of the class and the patches; not in public sources
      'class_tokens': 4,  # not in public sources
    }
  )
  config.objective.dropout.identity = 0.1  # not in public sources
  config.references = ConfigDict(
    {
      'per_clip': 5,
      'faces': 'dlib',  # or arcface:FILE.onnx, which the report has
      'margin': 0.3,  # around a face, of its box; not in public sources
    }
  )
  config.sample.guidance = (('text', 7.5), ('identity', 3.0))  # not in public sources
  config.optimizer.learning_rate = 1e-5  # not in public sources
  trained = name in ('naturalness', 'finetune')
  config.optimizer.rates = (('identity/vision/*', 1.0 if trained else 0.0),)
  config.train.steps = STEPS[name]
  if name == 'finetune':
    _mix(config)
  return config


def _mix(config: ConfigDict) -> None:
  """Makes half the batches of pairs and half of real cross pairs, O(1000) clips in the paper."""
  config.data.path = 'data/selected'
  paired = {'kind': 'records', 'path': 'data/selected', 'latents': '', 'only': 'not cross'}
  config.data.sources = ConfigDict({'paired': paired})
  for key in list(config.buckets):
    bucket = config.buckets[key]
    bucket.batch_size = 64  # not in public sources
    config.buckets[f'{key}_paired'] = {**bucket.to_dict(), 'source': 'paired'}
