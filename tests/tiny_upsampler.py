"""An upsampler small enough to train in seconds: 6 frames of 16 x 16 px, models 8 and 16 wide."""

import pathlib

from configs.digits import upsampler as upsampler_config
from mgjax.api import train
from mgjax.apps.encode import encode
from tests import tiny
from tests.tiny import under

WINDOW, SIDE = 6, 16
AUTOENCODER = tiny.RUN | under('buckets.image', **tiny.SQUARE)
AUTOENCODER |= under('model', latent_channels=4, widths=(8,), blocks=0, groups=4)
UPSAMPLER = tiny.RUN | tiny.BACKBONE | under('buckets.video', frames=WINDOW, **tiny.SQUARE)
UPSAMPLER |= under('model', positions=(WINDOW, 2, 2), patch=(1, 2, 2))
UPSAMPLER |= under('windows', overlap=2, feather=8) | under('encode', train=24, validation=8)
UPSAMPLER['sample.steps'] = 3


def autoencoder(**changes):
  config = upsampler_config.get_config('autoencoder')
  config.update_from_flattened_dict(AUTOENCODER | tiny.dotted(changes))
  return config


def upsampler(runs: pathlib.Path, latents: bool = True, part: str = 'model', **changes):
  """The upsampler's configuration on the autoencoder and the latents in `runs`."""
  config = upsampler_config.get_config(part)
  config.autoencoder = str(runs / 'autoencoder')
  config.data.latents = str(runs / 'latents') if latents else ''
  config.update_from_flattened_dict(UPSAMPLER | tiny.dotted(changes))
  return config


def make_runs(runs: pathlib.Path) -> pathlib.Path:
  """Trains both models in `runs`: autoencoder/, latents/, upsampler/."""
  train(autoencoder(), runs / 'autoencoder')
  encode(upsampler(runs), runs / 'latents')
  train(upsampler(runs), runs / 'upsampler')
  return runs
