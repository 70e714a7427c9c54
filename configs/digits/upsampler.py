r"""Spatial upsampler of the moving digits: 32 to 64 px, minutes of two CPU cores a part.

python -m launch.train --config=configs/digits/upsampler.py:autoencoder \
  --workdir=runs/upsampler/autoencoder
python -m launch.data encode --config=configs/digits/upsampler.py --output=runs/upsampler/latents \
  --config.autoencoder=runs/upsampler/autoencoder
python -m launch.train --config=configs/digits/upsampler.py --workdir=runs/upsampler/model \
  --config.autoencoder=runs/upsampler/autoencoder --config.data.latents=runs/upsampler/latents
python -m launch.evaluate --workdir=runs/upsampler/model

With configs/digits/upsampler.py:regression a net of the same size answers the mean: the baseline
that every sampler is judged beside. With a size, as in `:autoencoder,128` and `:model,128`, it
enlarges to that size.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.sections.upsampler.section import Pairs

from ..base import encoding
from . import autoencoder as soft
from . import video

SIDE = 64  # textures are one pixel wide there, and nothing at 32
FRAMES = 6  # of a window; 14 in the report
# What text to video makes is soft and bright. Of clips with sharp edges alone, which are .65 as
# bright on average, a model learns to darken it and to draw a texture on it.
WORLD = {
  'colours': ('red', 'green', 'blue', 'yellow'),
  'motions': ('left', 'right', 'up', 'down', 'bounce'),
  'laps': 0.15,  # as slow in 6 frames as .4 is in 16
  'textures': ('soft', 'sharp', 'striped', 'barred', 'checked'),
  'background': 'black',
  'jitter': 3.0,
}


def get_config(argument: str = 'model') -> ConfigDict:
  part, _, side = argument.partition(',')
  if part not in ('model', 'autoencoder', 'regression') or side not in ('', '64', '128'):
    raise ConfigError(
      f'{argument!r}: expected model, autoencoder or regression, and the size, as in model,128'
    )
  side = int(side or SIDE)
  if part == 'autoencoder':
    return image_autoencoder(side)
  config = video.get_config()
  config.component = 'upsampler'
  config.autoencoder = 'runs/upsampler/autoencoder'
  config.data = image_autoencoder(side).data
  config.data.latents = 'runs/upsampler/latents'
  shape = {'frames': FRAMES, 'height': side, 'width': side}
  config.buckets = ConfigDict({'video': {**shape, 'batch_size': 4, 'weight': 1}})
  config.model.positions = (FRAMES, side // 8, side // 8)
  config.model.conditionings.text.length = 48
  config.model.conditionings.low_resolution = ConfigDict({'kind': 'low_resolution'})
  # Half the prompts are not read, so that videos without one can be enlarged.
  config.objective.dropout.update(text=0.4, low_resolution=0.0)
  config.objective.time.mean = 0.0
  # Milder than the defaults, which are for pictures of hundreds of pixels.
  first = {
    'blur': 0.7,
    'shrink': 0.5,
    'enlarge': 0.2,
    'scales': (0.6, 1.3),
    'deviations': (1.0, 10.0),
    'photons': (0.05, 0.5),
    'qualities': (60, 95),
    'video': 0.2,
    'rate_factors': (15.0, 28.0),
  }
  second = {**first, 'blur': 0.4, 'jpeg': 0.5}
  degradation = {'first': first, 'second': second, 'final_sinc': 0.4, 'blur_scale': 0.25}
  config.pairs = defaults(Pairs, degradation=degradation)
  config.windows = ConfigDict({'overlap': 2, 'feather': 16})
  config.encode = encoding(train=4096, validation=256)
  config.sample.steps = 20
  config.sample.guidance = ()
  config.train.steps = 7500
  config.train.evaluate_every = 1500
  config.train.save_every = 1500
  if part == 'regression':
    config.objective.time = ConfigDict({'name': 'uniform'})
    config.objective.prediction = ConfigDict({'name': 'regression'})
    config.sample.steps = 1
  return config


def image_autoencoder(side: int = SIDE) -> ConfigDict:
  """Returns the image autoencoder: 4 x 4 pixels to 8 numbers."""
  config = soft.get_config()
  config.data.digits = ConfigDict(WORLD)
  config.buckets = ConfigDict(
    {'image': {'frames': 1, 'height': side, 'width': side, 'batch_size': 4, 'weight': 1}}
  )
  config.model.update(temporal=False, widths=(64,), strides=(), blocks=1)
  config.train.steps = 6000
  return config
