r"""Autoencoder of your own clips at 64 px, some minutes on two CPU cores.

python -m launch.train --config=configs/clips/autoencoder.py:my_clips/ \
  --workdir=runs/mine/autoencoder
The argument is a folder of videos with captions (clip.mp4, clip.txt) or a .csv or .jsonl manifest.
"""

from ml_collections import ConfigDict

from ..base import clips
from ..digits import autoencoder


def get_config(path: str = '') -> ConfigDict:
  config = autoencoder.get_config()
  config.data = clips(path, fps=8, threads=4)
  config.buckets = ConfigDict(
    {
      'video': {'frames': 16, 'height': 64, 'width': 64, 'batch_size': 1, 'weight': 3},
      'image': {'frames': 1, 'height': 64, 'width': 64, 'batch_size': 8, 'weight': 1},
    }
  )
  config.model.latent_channels = 16  # footage has more to say than strokes
  config.train.steps = 3000
  return config
