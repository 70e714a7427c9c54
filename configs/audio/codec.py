"""The audio codec in the paper's size: 48 kHz to 25 latents a second (§6).

python -m launch.train --config=configs/audio/codec.py:my_sounds/ --workdir=runs/codec
The folder holds audio files, or videos with audio. Public sources say that DAC's training code was
used, with a prior in place of the quantisation. What is not public is taken from DAC.
"""

from ml_collections import ConfigDict

from .. import base

STEPS = 400_000  # borrowed


def get_config(path: str = 'data/sounds') -> ConfigDict:
  config = base.codec()
  config.mesh.update(data=1, fsdp=-1)
  config.rules = 'fsdp'
  config.data = sounds(path)
  # Borrowed, but for the length: 0.38 s there, here a whole number of latents.
  config.buckets = ConfigDict({'sound': {'seconds': 0.4, 'batch_size': 72, 'weight': 1}})
  for optimizer in (config.optimizer, config.discriminator.optimizer):  # borrowed, all of it
    optimizer.schedule = 'exponential'
    optimizer.warmup = 0
    optimizer.final_fraction = 0.999996**STEPS
    optimizer.beta1 = 0.8
    optimizer.beta2 = 0.99
    optimizer.weight_decay = 0.01
  config.optimizer.clip = 1e3
  config.train.steps = STEPS
  config.train.save_every = 1000
  config.train.evaluate_every = 1000
  return config


def sounds(path: str) -> ConfigDict:
  """Returns data that are files of sound: a folder."""
  return ConfigDict(
    {
      'kind': 'sounds',
      'path': path,
      'validation_path': '',  # '' validates on the training sounds
      'threads': 16,
    }
  )
