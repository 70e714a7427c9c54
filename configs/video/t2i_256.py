"""First stage: images of 256 px (Movie Gen §3.2.2, Table 3).

python -m launch.train --config=configs/video/t2i_256.py:30b --workdir=runs/t2i_256 \\
  --config.autoencoder=runs/tae --config.data.path=data/images

The size is one of configs/video/sizes.py; :30b,encoders reads the paper's encoders of text, which
launch.weights imports and launch.data encode runs (docs/reference/text_encoders.md), where :30b
reads bytes.
"""

from ml_collections import ConfigDict

from .stage import stage

# 256 px are 32 latent places, 16 patches, a side; an image is one frame.
POSITIONS = (1, 16, 16)


def get_config(size: str = '30b') -> ConfigDict:
  config = stage(size, POSITIONS)
  config.buckets = ConfigDict(
    {'image': {'frames': 1, 'height': 256, 'width': 256, 'batch_size': 9216, 'weight': 1}}
  )
  config.train.steps = 210_000  # 1.94B images seen
  return config
