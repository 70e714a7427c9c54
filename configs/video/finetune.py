"""Supervised fine-tuning on selected clips of 768 px (Movie Gen §3.3).

python -m launch.train --config=configs/video/finetune.py:30b --workdir=runs/finetune_1 \\
  --config.autoencoder=runs/tae --config.data.path=data/selected --config.start_from=runs/t2iv_768

The paper averages several of these, of other data, other numbers and other starts; which, and with
what weights, is not in public sources. The size is one of configs/video/sizes.py.
"""

from ml_collections import ConfigDict

from .stage import DURATIONS, joint_buckets, stage
from .t2iv_768 import POSITIONS, RATIOS

# Clips of 10.6 to 16 s at 24 frames a second, and of 16 s, half of all, at 16.
SELECTED = {name: DURATIONS[name] for name in ('11s', '16s')}


def get_config(size: str = '30b') -> ConfigDict:
  config = stage(size, POSITIONS)
  config.mesh.context = 8  # 512 devices in the report: 64 groups
  # A small batch, and of videos alone; how small is not in public sources.
  config.buckets = joint_buckets(
    size, RATIOS, batch_size=64, multiple=64, durations=SELECTED, images=False
  )
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 1e-5  # not in public sources
  config.train.steps = 5000  # not in public sources
  return config
