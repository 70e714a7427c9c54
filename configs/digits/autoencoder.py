r"""Autoencoder of the moving digits, a few minutes on two CPU cores.

python -m launch.train --config=configs/digits/autoencoder.py --workdir=runs/digits/autoencoder
python -m launch.train --config=digits/autoencoder:decoder --workdir=runs/quickstart/decoder

The second command goes on with the decoder of `make quickstart`, also with digits that bounce. The
encoder is frozen, so models of its latents take the new decoder: its path becomes `autoencoder` in
their config.json.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from .. import base


def get_config(what: str = 'all') -> ConfigDict:
  if what not in ('all', 'decoder'):
    raise ConfigError(f'{what!r}: expected all or decoder')
  config = base.autoencoder(
    latent_channels=8,  # enough for strokes, and half as much for the flow model to learn
    widths=(64, 64),
    strides=((2, 1, 1), (2, 1, 1)),
    blocks=0,
    groups=8,
    patch=(1, 4, 4),  # four times cheaper than convolutions on the full frame
  )
  config.data = ConfigDict(
    {
      'kind': 'digits',
      'digits': {
        'colours': ('red', 'green', 'blue', 'yellow'),
        'motions': ('left', 'right', 'up', 'down'),  # also: 'still', 'bounce'
        'background': 'black',  # or 'coloured', 'gradient'
        'jitter': 3.0,
      },
      'latents': '',
      'fps': 8,
      'threads': 2,
    }
  )
  config.buckets = ConfigDict(
    {
      'video': {'frames': 16, 'height': 32, 'width': 32, 'batch_size': 2, 'weight': 3},
      'image': {'frames': 1, 'height': 32, 'width': 32, 'batch_size': 16, 'weight': 1},
    }
  )
  config.objective.mse = 4.0
  config.discriminator.widths = (16, 32)
  config.optimizer.name = 'muon'  # 33.0 dB after 1,500 steps; AdamW 32.5 after 4,000
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup = 50
  config.optimizer.final_fraction = 0.02
  config.optimizer.beta2 = 0.99
  config.optimizer.weight_decay = 1e-4
  config.train.steps = 1500
  config.train.ema_decay = 0.995
  config.train.log_every = 100
  if what == 'decoder':
    config.start_from = '=runs/quickstart/autoencoder'
    config.optimizer.name = 'adamw'
    config.optimizer.rates = (('encoder/*', 0.0),)
    config.optimizer.learning_rate = 1e-3
    # Bounces twice: they are a sixth of the motions and the hardest.
    motions = (*config.data.digits.motions, 'bounce', 'bounce')
    config.data.digits.update(motions=motions, laps=0.4)
    config.train.steps = 12_000
    config.train.evaluate_every = config.train.save_every = 3000
  return config
