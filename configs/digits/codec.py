"""Audio codec of the moving digits' audio, a few minutes on two CPU cores.

python -m launch.train --config=configs/digits/codec.py --workdir=runs/digits/codec
"""

from ml_collections import ConfigDict

from .. import base


def get_config() -> ConfigDict:
  config = base.codec(
    width=48,
    strides=(4, 10),
    latent_channels=32,
    decoder_width=192,
    patch=48,  # several times cheaper than convolutions at the full rate
  )
  config.data = ConfigDict(
    {
      'kind': 'digits',
      'digits': {'colours': ('red', 'green', 'blue', 'yellow'), 'motions': ('bounce', 'fall')},
      'fps': 25,
      'threads': 2,
    }
  )
  config.buckets = ConfigDict({'sound': {'seconds': 0.4, 'batch_size': 8, 'weight': 1}})
  # What digital silence and impacts have in common is what a short training finds first; squares
  # and a floor under what counts make it listen to impacts (mgjax/models/codec/objective.py).
  config.objective.update(adversarial=0.0, features=0.0, mel=1.0, mse=10_000.0, spectral_floor=0.01)
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 1.5e-3
  config.optimizer.warmup = 50
  config.optimizer.final_fraction = 0.02
  config.optimizer.beta1 = 0.8
  config.optimizer.beta2 = 0.99
  config.optimizer.weight_decay = 0.0
  config.train.ema_decay = 0.99
  config.train.log_every = 50
  return config
