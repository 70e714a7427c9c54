r"""Sound in one to eight steps without guidance, learned from the guided ones of a teacher.

python -m launch.train --config=configs/audio/few_steps.py:13b --workdir=runs/audio_few_steps \
  --config.autoencoder=runs/codec --config.data.path=data/clips

The size is one of configs/audio/sizes.py. What is distilled, and how, is not the paper's: it
samples in 64 midpoint steps.
"""

from ml_collections import ConfigDict

from ..base import few_steps
from . import audio


def get_config(argument: str = '13b') -> ConfigDict:
  config = few_steps(audio.get_config(argument), 'runs/audio', shift=1.0)
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 10_000
  return config
