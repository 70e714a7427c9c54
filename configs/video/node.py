"""Images and videos of about 256 px on your own data, on one GPU or the GPUs of one machine.

python -m launch.data encode --config=configs/video/node.py --output=data/latents \\
  --config.data.path=data/clips
python -m launch.train --config=configs/video/node.py --workdir=runs/node \\
  --config.data.path=data/clips --config.data.latents=data/latents

The second stage of the large recipe (t2iv_256.py) with one length of clips, two shapes and batches
of 32. The size is one of configs/video/sizes.py, 1b if none is given; docs/tutorials/your_clips.md
explains.
"""

from ml_collections import ConfigDict

from .stage import joint_buckets, stage

RATIOS = {'1x1': (256, 256), '16x9': (192, 352)}
# Frames, and from the lowest to the highest rate: clips of 4 s or longer, longer ones in windows.
DURATIONS = {'4s': (64, (8, 16))}
POSITIONS = (8, 32, 32)  # 64 frames / 8; 256 px / 16, doubled as in t2iv_256.py


def get_config(size: str = '1b') -> ConfigDict:
  config = stage(size, POSITIONS)
  config.buckets = joint_buckets(size, RATIOS, batch_size=32, durations=DURATIONS)
  config.model.remat = 'attention'  # 32 clips a step then fit one GPU of 40 GB
  # Of a small model in small batches, not of the report's 30B.
  config.optimizer.warmup = 1000
  config.train.steps = 100_000
  return config
