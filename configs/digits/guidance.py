r"""Moving digits, or their sound, guided in one pass a step, learned from a teacher's two or three.

python -m launch.train --config=configs/digits/guidance.py --workdir=runs/guidance
python -m launch.sample video --workdir=runs/guidance --guidance=text=4 \
  --prompt='the red digit 7 moves up'
python -m launch.evaluate --workdir=runs/guidance --guidance=2 --steps=8
python -m launch.train --config=configs/digits/guidance.py:sound --workdir=runs/guidance_sound

Goes on from the model of `make quickstart`, or of `make quickstart SOUND=1`, which is the teacher.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import distilled_guidance
from . import audio, video


def get_config(what: str = 'video') -> ConfigDict:
  if what not in ('video', 'sound'):
    raise ConfigError(f'{what!r}: expected video or sound')
  if what == 'sound':
    config = distilled_guidance(audio.get_config(), 'runs/sound/audio', highest=4.0)
  else:
    config = video.get_config()
    config.autoencoder = 'runs/quickstart/autoencoder'
    config.data.latents = 'runs/quickstart/latents'
    config = distilled_guidance(config, 'runs/quickstart/video', highest=6.0)
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 3000
  config.train.evaluate_every = config.train.save_every = 1000
  return config
