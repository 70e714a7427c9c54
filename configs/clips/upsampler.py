r"""Spatial upsampler of your own clips, 48 to 96 px, minutes of two CPU cores a part.

python -m launch.train --config=configs/clips/upsampler.py:autoencoder,my_clips/ \
  --workdir=runs/enlarge/autoencoder
python -m launch.data encode --config=configs/clips/upsampler.py:model,my_clips/ \
  --output=runs/enlarge/latents --config.autoencoder=runs/enlarge/autoencoder
python -m launch.train --config=configs/clips/upsampler.py:model,my_clips/ \
  --workdir=runs/enlarge/model --config.autoencoder=runs/enlarge/autoencoder \
  --config.data.latents=runs/enlarge/latents
python -m launch.sample upsample --workdir=runs/enlarge/model --video=small.mp4 --out=large.mp4

The part `regression` is the baseline, as in configs/digits/upsampler.py. So small a model on a few
clips shows that everything works, and no more.
"""

from ml_collections import ConfigDict

from ..base import clips
from ..digits import upsampler

SIDE = 96
FPS = 24


def get_config(argument: str = 'model') -> ConfigDict:
  part, _, path = argument.partition(',')
  config = upsampler.get_config(part)
  config.data = clips(path, fps=FPS, threads=2)
  for bucket in config.buckets.values():
    bucket.height = bucket.width = SIDE
  if part == 'autoencoder':
    config.model.latent_channels = 16
    config.train.steps = 4000
    return config
  config.autoencoder = 'runs/enlarge/autoencoder'
  config.data.latents = 'runs/enlarge/latents'
  config.model.positions = (upsampler.FRAMES, 12, 12)
  config.pairs.variants = 16  # of a clip, degraded otherwise
  # As the footage that people have: a real encoder at a low bitrate.
  for order in ('first', 'second'):
    config.pairs.degradation[order].update(video=0.5, rate_factors=(20.0, 34.0))
  config.encode.train = 1024
  config.encode.validation = 32
  config.train.steps = 3000
  return config
