"""A small codec of real audio, 48 kHz to 25 latents a second, on CPU cores.

python -m launch.train --config=configs/audio/small.py:my_sounds/ --workdir=runs/small_codec
"""

from ml_collections import ConfigDict

from . import codec


def get_config(path: str = 'data/sounds') -> ConfigDict:
  config = codec.get_config(path)
  config.mesh.update(data=-1, fsdp=1)
  config.rules = 'single'
  config.data.threads = 2
  config.buckets.sound.batch_size = 8
  config.model.update(width=32, strides=(8, 10), latent_channels=32, decoder_width=128, patch=24)
  config.objective.update(adversarial=0.0, features=0.0)  # twice the time of a step on a CPU
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup = 50
  config.optimizer.final_fraction = 0.02
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip = 1.0
  config.train.steps = 1600
  config.train.ema_decay = 0.99
  config.train.log_every = 50
  config.train.evaluate_every = 400
  config.train.save_every = 400
  return config
