r"""Autoencoder of the solids dataset at 64 px, some minutes on two CPU cores.

python -m launch.train --config=configs/solids/autoencoder.py --workdir=runs/solids/autoencoder
python -m launch.train --config=solids/autoencoder:fast --workdir=runs/solids/fast/autoencoder
python -m launch.train --config=solids/autoencoder:sharp --workdir=runs/solids/sharp
python -m launch.train --config=solids/autoencoder:release --workdir=runs/solids/release

The second one makes half as many tokens, each of all 16 frames, for experiments. The third keeps 13
times as many numbers, for pictures of 30 dB inside of solids. Models of its latents need far more
steps.

The fourth one makes as many tokens as the first, of 256 numbers each, and adds residual blocks. It
takes about 200 minutes on one CPU core. With 256 numbers the linear shortcut alone reaches 34.8 dB
of a clip.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import autoencoder

# Numbers of a block and strides over patches of 1 x 4 x 4, in which it has t x h x w pixels.
BLOCKS = {
  # 8 x 8 x 8 as the report: judges read what happens through it, and a flow model learns few
  # numbers sooner than many (docs/experiments/solids_autoencoder.md).
  'small': (48, ((2, 2, 2), (2, 1, 1), (2, 1, 1))),
  'fast': (80, ((2, 2, 2), (2, 1, 1), (2, 1, 1), (2, 1, 1))),  # 16 x 8 x 8
  'sharp': (80, ((2, 1, 1), (2, 1, 1))),  # 4 x 4 x 4
  'release': (256, ((2, 2, 2), (2, 1, 1), (2, 1, 1))),  # 8 x 8 x 8
}


def get_config(what: str = 'small') -> ConfigDict:
  if what not in BLOCKS:
    raise ConfigError(f'{what!r}: expected {", ".join(BLOCKS)}')
  config = autoencoder.get_config()
  config.data = ConfigDict(
    {
      'kind': 'solids',
      'solids': {'solids': (1, 2)},
      'latents': '',
      'fps': 8,
      'threads': 2,
    }
  )
  for bucket in config.buckets.values():
    bucket.update(height=64, width=64)
  channels, strides = BLOCKS[what]
  config.model.update(
    latent_channels=channels, widths=(64,) * len(strides), strides=strides, shortcut=True
  )
  config.objective.mse = 10.0
  config.optimizer.name = 'adamw'  # the shortcut does most of it, and Muon 28.65 dB as well
  # Small: the shortcut starts as the best linear map there is, which large steps spoil.
  config.optimizer.learning_rate = 4e-4
  config.train.steps = 900
  config.train.evaluate_every = config.train.save_every = 450
  if what == 'release':
    _release(config)
  return config


def _release(config: ConfigDict) -> None:
  """Adds residual blocks, 3.7M parameters in all, and hours of training."""
  # Widest where pixels are. The file takes 3.7 MB in int8.
  config.model.update(widths=(96, 64, 48), blocks=1)
  config.buckets.video.weight = 7  # clips are harder than pictures
  # Three quarters of the squared error are inside of solids, which cover a tenth of the pixels. L1
  # would weigh the background more.
  config.objective.mse = 100.0
  config.optimizer.name = 'muon'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.rates = (('shortcut_*', 0.3),)  # large steps spoil its start
  config.train.steps = 12_000
  config.train.ema_decay = 0.998
  config.train.evaluate_every = 1000
  config.train.save_every = 200
