r"""Text to video on your own clips at 64 px, some minutes on two CPU cores.

python -m launch.train --config=configs/clips/video.py:my_clips/ --workdir=runs/mine/video \
  --config.autoencoder=runs/mine/autoencoder
Encodes on the fly; for more than a few epochs encode once (launch.data encode) and add
--config.data.latents=runs/mine/latents.
"""

from ml_collections import ConfigDict

from ..base import clips
from ..digits import video


def get_config(path: str = '') -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/mine/autoencoder'
  config.data = clips(path, fps=8, threads=4)
  config.buckets = ConfigDict(
    {'video': {'frames': 16, 'height': 64, 'width': 64, 'batch_size': 8, 'weight': 1}}
  )
  config.model.positions = (4, 8, 8)
  config.model.conditionings.text.length = 64
  config.sample.guidance = (('text', 3.0),)
  config.train.steps = 1500
  config.train.ema_decay = 0.997
  config.train.evaluate_every = 500
  config.train.save_every = 500
  return config
