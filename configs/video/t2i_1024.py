"""Text to image at 1024 px, and its tuning on selected images (Movie Gen §3.7).

python -m launch.train --config=configs/video/t2i_1024.py:30b --workdir=runs/t2i_1024 \\
  --config.autoencoder=runs/image_autoencoder --config.data.path=data/images \\
  --config.start_from=runs/t2iv_768
python -m launch.train --config=configs/video/t2i_1024.py:30b,tuning --workdir=runs/t2i_tuned \\
  --config.autoencoder=runs/image_autoencoder --config.data.path=data/selected_images \\
  --config.start_from=runs/t2i_1024

The jointly trained model goes on with images, of an image autoencoder in place of the temporal one
(configs/upsampler/image_autoencoder.py). The 7B upsampler starts from the first of the two, of size
:7b (§3.1.5). The size is one of configs/video/sizes.py; :30b,encoders reads the paper's encoders
of text (launch.weights imports them, launch.data encode runs them:
docs/reference/text_encoders.md), where :30b reads bytes.
"""

from ml_collections import ConfigDict

from ..text.encoders import split
from .sizes import WORDS
from .stage import stage

# (height, width) of at most 1024 x 1024 pixels, in multiples of 16, so that an image is at most
# 64 x 64 = 4,096 tokens. The ratios are those of the stages before; which the report has here is
# not in public sources.
RATIOS = {
  '1x1': (1024, 1024),
  '4x3': (880, 1184),
  '3x4': (1184, 880),
  '16x9': (768, 1360),
  '9x16': (1360, 768),
}

# The spatial tables of the stage before times 1024 / 768, 96 x 4 / 3 = 128: 1024 px use the first
# 64, the stretch of just those entries that 768 px used, and the 1920 px of the upsampler use 120.
# The temporal one stays, of which an image reads the first entry: the upsampler reads 14.
POSITIONS = (32, 128, 128)


def get_config(size: str = '30b') -> ConfigDict:
  _, words = split(size, *WORDS, 'tuning')
  if 'tuning' in words:
    return quality_tuning(size.replace(',tuning', ''))
  config = stage(size, POSITIONS)
  config.autoencoder = 'runs/image_autoencoder'
  config.data.path = 'data/images'
  # Rows of a batch, rate and steps of both are not in public sources.
  config.buckets = _buckets(batch_size=1536)
  config.optimizer.learning_rate = 3e-5  # where the 768 px stage began its smaller batches
  config.train.steps = 50_000
  return config


def quality_tuning(size: str = '30b') -> ConfigDict:
  """Returns the last stage: O(1000) images that artists selected, few steps with small batches.

  Emu has 64 rows and stops early, by people's judgement, after 15,000 steps at the most.
  """
  config = get_config(size)
  config.data.path = 'data/selected_images'
  config.buckets = _buckets(batch_size=64)
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 5000
  config.train.save_every = config.train.evaluate_every = 500
  config.train.keep = 10  # for people to choose among
  return config


def _buckets(batch_size: int) -> ConfigDict:
  return ConfigDict(
    {
      f'image_{name}': {
        'frames': 1,
        'height': height,
        'width': width,
        'batch_size': batch_size,
        'weight': 1,
      }
      for name, (height, width) in RATIOS.items()
    }
  )
