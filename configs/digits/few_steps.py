"""Moving digits, or their sound, in one to eight steps without guidance, learned from guided ones.

python -m launch.train --config=configs/digits/few_steps.py --workdir=runs/few_steps
python -m launch.sample video --workdir=runs/few_steps --steps=4 --prompt='the red digit 7 moves up'
python -m launch.evaluate --workdir=runs/few_steps --steps=1
python -m launch.train --config=configs/digits/few_steps.py:sound --workdir=runs/few_steps_sound

Goes on from the model of `make quickstart`, or of `make quickstart SOUND=1`, which is the teacher;
with few_steps.py:bounce from one that bounces too, in runs/bounce/video, which
launch/recipes/digits_weights.sh trains.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import few_steps
from . import audio, video


def get_config(what: str = 'video') -> ConfigDict:
  if what not in ('video', 'bounce', 'sound'):
    raise ConfigError(f'{what!r}: expected video, bounce or sound')
  if what == 'sound':
    config = few_steps(audio.get_config(), 'runs/sound/audio', shift=1.0)
  else:
    place = 'runs/bounce' if what == 'bounce' else 'runs/quickstart'
    config = video.get_config('bounce' if what == 'bounce' else 'straight')
    config.autoencoder = 'runs/quickstart/autoencoder'
    config.data.latents = f'{place}/latents'
    # Many steps near the noise, where motion is settled.
    config = few_steps(config, f'{place}/video', shift=4.0)
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 8000 if what == 'bounce' else 4000
  config.train.evaluate_every = config.train.save_every = config.train.steps // 4
  return config
