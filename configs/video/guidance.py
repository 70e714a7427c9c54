r"""Text to video guided in one pass a step, learned from the two of a teacher.

python -m launch.train --config=configs/video/guidance.py:30b --workdir=runs/guidance \
  --config.autoencoder=runs/tae --config.data.path=data/clips

The size is one of configs/video/sizes.py. What is distilled, and how, is not the paper's: it
samples with two function evaluations a step.
"""

from ml_collections import ConfigDict

from ..base import distilled_guidance
from . import t2iv_768


def get_config(size: str = '30b') -> ConfigDict:
  # Beyond the scale of 7.5 that the report samples with.
  config = distilled_guidance(t2iv_768.get_config(size), 'runs/t2iv_768', highest=9.0)
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 10_000
  return config
