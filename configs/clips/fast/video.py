r"""Text to video on your own clips at 64 px, half a minute on two CPU cores.

python -m launch.train --config=configs/clips/fast/video.py:my_clips/ --workdir=runs/fast/video \
  --config.autoencoder=runs/fast/autoencoder
"""

from ml_collections import ConfigDict

from .. import video


def get_config(path: str = '') -> ConfigDict:
  config = video.get_config(path)
  config.autoencoder = 'runs/fast/autoencoder'
  config.data.in_memory = 64
  config.model.positions = (4, 4, 4)
  config.train.steps = 400
  return config
