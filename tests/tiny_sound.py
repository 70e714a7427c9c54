"""Moving digits that sound, small enough to train in seconds: 0.4 s of sound, models 8 wide."""

import pathlib

from configs.digits import audio as audio_config
from configs.digits import codec as codec_config
from mgjax.api import train
from mgjax.apps.encode import encode
from tests import tiny
from tests.tiny import under

SHARED = tiny.RUN | {'buckets.sound.batch_size': 8}
CODEC = SHARED | under('model', width=2, latent_channels=4, decoder_width=16)
CODEC['buckets.sound.seconds'] = 0.16
AUDIO = SHARED | tiny.BACKBONE | under('buckets.sound', seconds=0.4, height=16, width=16)
AUDIO |= under('encode', train=48, validation=16)
AUDIO |= {'model.positions': (20, 1, 1), 'sample.steps': 2}


def codec(**changes):
  config = codec_config.get_config()
  config.update_from_flattened_dict(CODEC | tiny.dotted(changes))
  return config


def audio(runs: pathlib.Path, latents: bool = True, **changes):
  """The audio model's configuration on the codec and the latents in `runs`."""
  config = audio_config.get_config()
  config.autoencoder = str(runs / 'codec')
  config.data.latents = str(runs / 'latents') if latents else ''
  config.update_from_flattened_dict(AUDIO | tiny.dotted(changes))
  return config


def make_runs(runs: pathlib.Path) -> pathlib.Path:
  """Trains both models in `runs`: codec/, latents/, audio/."""
  train(codec(), runs / 'codec')
  encode(audio(runs), runs / 'latents')
  train(audio(runs), runs / 'audio')
  return runs
