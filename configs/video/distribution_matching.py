r"""Text to video in one to four steps without guidance, distributed as a teacher's guided samples.

python -m launch.train --config=configs/video/distribution_matching.py:30b --workdir=runs/matching \
  --config.autoencoder=runs/tae --config.data.path=data/clips

The size is one of configs/video/sizes.py. Three networks of that size, of which two learn: the
student, its critic and the teacher. What is distilled, and how, is not the paper's: it samples in
50 steps.
"""

from ml_collections import ConfigDict

from ..base import distribution_matching
from . import few_steps


def get_config(size: str = '30b') -> ConfigDict:
  config = few_steps.get_config(size)
  config.optimizer.learning_rate = 1e-6
  return distribution_matching(config, critic_rate=5.0)
