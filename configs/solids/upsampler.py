r"""Spatial upsampler of the solids dataset, twice as large, minutes of two CPU cores a part.

python -m launch.train --config=configs/solids/upsampler.py:autoencoder \
  --workdir=runs/solids_upsampler/autoencoder
python -m launch.data encode --config=configs/solids/upsampler.py \
  --output=runs/solids_upsampler/latents \
  --config.autoencoder=runs/solids_upsampler/autoencoder \
  --config.pairs.temporal_autoencoder=runs/solids/autoencoder
python -m launch.train --config=configs/solids/upsampler.py \
  --workdir=runs/solids_upsampler/model \
  --config.autoencoder=runs/solids_upsampler/autoencoder \
  --config.pairs.temporal_autoencoder=runs/solids/autoencoder \
  --config.data.latents=runs/solids_upsampler/latents
python -m launch.evaluate --workdir=runs/solids_upsampler/model --samples=16

It doubles clips of 32 px, and of 64 px again: it learns from whole clips of 64 px and from windows
of 64 px that are cut out of clips of 128 px. Half of what it enlarges are decoded from latents of
text to video that are not quite right, with the seams of its samples. Digits in soft strokes are in
it too, so that it draws no pattern where there was none. It answers what is missing in the bilinear
video. With :regression a net of the same size answers the mean.
"""

from ml_collections import ConfigDict

from ..digits import upsampler
from . import video

FRAMES = 8  # of a window, those of a latent frame of text to video
SIDE = 64


def get_config(part: str = 'model') -> ConfigDict:
  config = upsampler.get_config(part)
  plain = {**upsampler.WORLD, 'textures': ('soft',)}
  config.data = ConfigDict(
    {
      'kind': 'solids',
      'solids': {'solids': (1, 3), 'crop': 2},
      'latents': '',
      'fps': 8,
      'threads': 2,
      'sources': {
        'whole': {'solids': {'solids': (1, 3)}},
        'digits': {'kind': 'digits', 'digits': plain},
      },
    }
  )
  name, bucket = next(iter(config.buckets.items()))
  for source in config.data.sources:
    config.buckets[source] = {**bucket, 'source': source}
  config.buckets[name].weight = 3
  if part == 'autoencoder':
    # 24 numbers of 4 x 4 pixels: bicubic has 36.6 dB, and this must be well above.
    config.model.update(latent_channels=24, shortcut=True)
    config.objective.mse = 10.0
    config.optimizer.learning_rate = 4e-4
    config.train.steps = 2000
    config.train.evaluate_every = config.train.save_every = 1000
    return config
  config.autoencoder = 'runs/solids_upsampler/autoencoder'
  config.data.latents = 'runs/solids_upsampler/latents'
  for bucket in config.buckets.values():
    bucket.frames = FRAMES
  config.model.update(positions=(FRAMES, SIDE // 8, SIDE // 8), depthwise=True)
  config.model.conditionings.low_resolution.residual = True
  config.model.conditionings.text = video.get_config().model.conditionings.text
  config.pairs.temporal_autoencoder = 'runs/solids/autoencoder'
  config.pairs.reconstructed = 0.5
  config.pairs.noise = 0.5
  # Most others are clean: what is enlarged here is made by models, or drawn, and not compressed.
  first = {
    'blur': 0.1,
    'shrink': 0.1,
    'enlarge': 0.1,
    'scales': (0.8, 1.2),
    'noise': 0.3,
    'deviations': (0.5, 4.0),
    'photons': (0.02, 0.2),
    'jpeg': 0.1,
    'qualities': (80, 95),
    'video': 0.0,
  }
  config.pairs.degradation.first.update(first)
  config.pairs.degradation.second.update({**first, 'blur': 0.0, 'noise': 0.0, 'jpeg': 0.0})
  config.pairs.degradation.final_sinc = 0.05
  config.optimizer.schedule = 'linear'
  config.train.steps = 5000
  config.train.evaluate_every = config.train.save_every = 1000
  return config
