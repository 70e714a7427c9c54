r"""Text to video in one to eight steps without guidance, learned from the guided ones of a teacher.

python -m launch.train --config=configs/video/few_steps.py:30b --workdir=runs/few_steps \
  --config.autoencoder=runs/tae --config.data.path=data/clips

The size is one of configs/video/sizes.py. What is distilled, and how, is not the paper's: it
samples in 50 steps.
"""

from ml_collections import ConfigDict

from ..base import few_steps
from . import t2iv_768


def get_config(size: str = '30b') -> ConfigDict:
  # The shift that open models of this size sample with.
  config = few_steps(t2iv_768.get_config(size), 'runs/t2iv_768', shift=7.0)
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 10_000
  return config
