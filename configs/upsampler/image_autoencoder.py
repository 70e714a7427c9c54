"""The image autoencoder of the upsampler and of text to image (Movie Gen §3.1.5, §3.7).

python -m launch.train --config=configs/upsampler/image_autoencoder.py \\
  --workdir=runs/image_autoencoder_256 --config.data.path=data/images
A curriculum, from small to large: :256, then :512 with --config.start_from=<the work directory
before>. The first may start from a run of configs/tae/tae.py, of which it takes the spatial layers,
or from an image autoencoder in diffusers' format; that one may also be used as it is:
python -m launch.weights import --input=vae/ --config=configs/upsampler/image_autoencoder.py \\
  --workdir=runs/image_autoencoder
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..tae import tae

# Sizes, batches and steps are not in public sources: as many pixels a batch in both.
STAGES = {'256': {'side': 256, 'images': 256}, '512': {'side': 512, 'images': 64}}


def get_config(stage: str = '256') -> ConfigDict:
  if stage not in STAGES:
    raise ConfigError(f'there is no stage {stage!r}; choose one of {", ".join(STAGES)}')
  fields = STAGES[stage]
  # The report says no more than that it encodes each frame by itself. Widths, blocks, losses and
  # rates are the TAE's, and so are 8 x 8 compression and 16 channels: one backbone reads both.
  config = tae.get_config(stage)
  config.data.path = 'data/images'
  config.data.intervals = (1,)
  config.buckets = ConfigDict(
    {
      'image': {
        'frames': 1,
        'height': fields['side'],
        'width': fields['side'],
        'batch_size': fields['images'],
        'weight': 1,
      }
    }
  )
  config.model.strides = ((1, 2, 2),) * 3
  config.model.temporal = False
  # 8 frames of 1080 x 1920 are a little less than the 32 of 768 x 768 that fit a chip.
  config.tiling.update(frames=8, overlap=0)
  return config
