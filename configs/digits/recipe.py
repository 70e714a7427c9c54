"""The paper's stages in small: moving digits, some minutes on one or two CPU cores.

python -m launch.train --config=configs/digits/recipe.py --workdir=runs/recipe
python -m launch.train --config=configs/digits/recipe.py:scratch --workdir=runs/recipe
python -m launch.train --config=configs/digits/recipe.py:finetunes --workdir=runs/recipe

An autoencoder for both sizes, then three stages: images of 32 px; images and videos of 32 px, with
temporal positions added and spatial ones doubled; and images and videos of 64 px. There spatial
positions double once more, where the paper triples them. The second command uses the same folder
and trains the last stage from nothing, for as much compute as the three together. The third
fine-tunes the result of the stages three times and averages: docs/experiments/training_stages.md
compares.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from . import autoencoder, video

FRAMES = 16
STEPS = {'images': 600, 'joint': 1200, 'double': 500}
# At least as many operations as the three together (tests/apps/test_recipe.py counts them).
SCRATCH = 1130
# Of time, height and width. As in the report, the tables of the second stage are twice as long as
# its grid, 4 x 4, which leaves room for clips of other shapes; those of the last one follow.
IMAGES, JOINT, DOUBLE = (1, 4, 4), (4, 8, 8), (4, 16, 16)
RATES = (2e-4, 4e-4, 8e-4)  # of the finetunes


def get_config(what: str = 'stages') -> ConfigDict:
  stages = {
    'autoencoder': _autoencoder(),
    'images': _stage(32, 32, IMAGES, STEPS['images'], videos=False),
    'joint': _stage(32, 32, JOINT, STEPS['joint'], start_from='images'),
    'double': _stage(64, 16, DOUBLE, STEPS['double'], start_from='joint'),
  }
  if what == 'scratch':
    stages['scratch'] = _stage(64, 16, DOUBLE, SCRATCH)
  elif what == 'finetunes':
    names = [f'finetune_{number}' for number in range(1, len(RATES) + 1)]
    for seed, (name, rate) in enumerate(zip(names, RATES, strict=True), 1):
      stages[name] = tuned = _stage(64, 16, DOUBLE, 150, start_from='double')
      tuned.seed, tuned.optimizer.learning_rate = seed, rate
    stages['average'] = ConfigDict({'component': 'average', 'of': tuple(names), 'greedy': False})
  elif what != 'stages':
    raise ConfigError(f'{what!r}: expected recipe.py, recipe.py:scratch or recipe.py:finetunes')
  return ConfigDict({'stages': stages, 'order': tuple(stages)})


def _bucket(frames: int, pixels: int, batch_size: int, weight: int) -> dict[str, int]:
  shape = {'frames': frames, 'height': pixels, 'width': pixels}
  return {**shape, 'batch_size': batch_size, 'weight': weight}


def _autoencoder() -> ConfigDict:
  config = autoencoder.get_config()
  config.buckets = ConfigDict(
    {
      'small': _bucket(FRAMES, 32, 2, 2),
      'large': _bucket(FRAMES, 64, 1, 2),
      'image': _bucket(1, 64, 4, 1),
    }
  )
  config.train.steps = 2000
  return config


def _stage(
  pixels: int,
  batch_size: int,
  positions: tuple[int, int, int],
  steps: int,
  videos: bool = True,
  start_from: str = '',
) -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'autoencoder'
  config.data.latents = f'latents_{pixels}'
  buckets = {'image': _bucket(1, pixels, batch_size, 1)}
  if videos:
    buckets['video'] = _bucket(FRAMES, pixels, batch_size, 10)
  config.buckets = ConfigDict(buckets)
  config.model.positions = positions
  config.start_from = start_from
  config.encode.train = 4096
  config.encode.validation = 256
  config.optimizer.learning_rate = 2e-3
  config.train.steps = steps
  config.train.ema_decay = 0.997
  config.train.log_every = 20
  config.train.evaluate_every = 100
  config.train.save_every = 200
  config.train.validation_batches = 8
  return config
