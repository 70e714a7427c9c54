"""An upsampler small enough to train in seconds: 6 frames of 16 x 16 px, models 8 and 16 wide."""

import pathlib

from configs.digits import upsampler as upsampler_config
from mgjax.api import train
from mgjax.workflows.encode import encode
from tests import tiny

WINDOW, SIDE = 6, 16
AUTOENCODER = tiny.RUN | {
  'buckets.image.batch_size': 8,
  'buckets.image.height': SIDE,
  'buckets.image.width': SIDE,
  'model.latent_channels': 4,
  'model.widths': (8,),
  'model.blocks': 0,
  'model.groups': 4,
}
UPSAMPLER = tiny.RUN | {
  'buckets.video.batch_size': 8,
  'buckets.video.frames': WINDOW,
  'buckets.video.height': SIDE,
  'buckets.video.width': SIDE,
  'model.dim': 16,
  'model.depth': 1,
  'model.heads': 2,
  'model.mlp_dim': 32,
  'model.positions': (WINDOW, 2, 2),
  'model.patch': (1, 2, 2),
  'model.conditionings.text.width': 8,
  'model.conditionings.text.depth': 1,
  'windows.overlap': 2,
  'windows.feather': 8,
  'encode.train': 24,
  'encode.validation': 8,
  'sample.steps': 3,
}


def flags(overrides):
  """The overrides as arguments of a binary."""
  return tiny.flags(overrides)


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
