r"""Solids, or their sound, in one to eight steps without guidance, learned from guided ones.

python -m launch.train --config=configs/solids/few_steps.py --workdir=runs/solids/few_steps
python -m launch.sample video --workdir=runs/solids/few_steps --steps=4 \
  --prompt="a red metal ball rolls left"
python -m launch.train --config=configs/solids/few_steps.py:adversarial \
  --workdir=runs/solids/adversarial
python -m launch.train --config=configs/solids/few_steps.py:sound \
  --workdir=runs/solids_sound/few_steps

With :adversarial the student of the first command goes on against a discriminator of data. The
teacher is what `make quickstart WORLD=solids WORKDIR=runs/solids` trained, or that of
configs/solids/audio.py.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import adversarial, few_steps
from . import audio, video


def get_config(what: str = 'video') -> ConfigDict:
  if what not in ('video', 'adversarial', 'sound'):
    raise ConfigError(f'{what!r}: expected video, adversarial or sound')
  if what == 'sound':
    config = few_steps(audio.get_config(), 'runs/solids_sound/audio', shift=1.0)
  else:
    config = few_steps(video.get_config(), 'runs/solids/video', shift=4.0)
    # Without, solids fall to pieces where tokens meet (mgjax/sections/video/shifts.py).
    config.sample.update(shifts=4, shift_time=0.15)
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 4000
  config.train.evaluate_every = config.train.save_every = 1000
  if what == 'adversarial':
    config = adversarial(config, 'runs/solids/few_steps')
  return config
