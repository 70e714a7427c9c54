"""Moving digits in one to four steps without guidance, distributed as a teacher's guided samples.

python -m launch.train --config=configs/digits/distribution_matching.py --workdir=runs/matching
python -m launch.sample video --workdir=runs/matching --steps=4 --prompt='the red digit 7 moves up'
python -m launch.evaluate --workdir=runs/matching --steps=1

Goes on from the model of `make quickstart`, which is the teacher; with
distribution_matching.py:bounce from one that bounces too, with :sound from the one of sound.
"""

from ml_collections import ConfigDict

from ..base import distribution_matching
from . import few_steps


def get_config(what: str = 'video') -> ConfigDict:
  config = few_steps.get_config(what)
  config.optimizer.update(learning_rate=1e-4, schedule='constant', beta1=0.0)
  return distribution_matching(config, critic_rate=5.0)
