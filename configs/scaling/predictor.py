"""Does validation loss tell which run people would like? (Movie Gen, Fig. 15)

python -m launch.scaling run --config=configs/scaling/predictor.py --workdir=runs/predictor
python -m launch.scaling correlate --workdir=runs/predictor

Text to video on the moving digits, on what `make quickstart` made: runs of other sizes, learning
rates, batches and times, all of as many steps, for checkpoints of one run would correlate whatever
they are. The judge of moving digits stands in for people.
"""

from typing import Any

from ml_collections import ConfigDict

from ..digits import video

STEPS = 1600
ARMS: dict[str, dict[str, Any]] = {
  'plain': {},
  'dim_64': {'model.dim': 64, 'model.heads': 2, 'model.mlp_dim': 192},
  'dim_96': {'model.dim': 96, 'model.heads': 3, 'model.mlp_dim': 288},
  'dim_192': {'model.dim': 192, 'model.heads': 6, 'model.mlp_dim': 576},
  'depth_1': {'model.depth': 1},
  'depth_2': {'model.depth': 2},
  'depth_8': {'model.depth': 8},
  'rows_2': {'buckets.video.batch_size': 2},
  'rows_4': {'buckets.video.batch_size': 4},
  'rows_16': {'buckets.video.batch_size': 16},
  'rate_3e-4': {'optimizer.learning_rate': 3e-4},
  'rate_1e-3': {'optimizer.learning_rate': 1e-3},
  'rate_5e-3': {'optimizer.learning_rate': 5e-3},
  'rate_1e-2': {'optimizer.learning_rate': 1e-2},
  # The report's times. These learn last which way a digit moves, however low their loss.
  'times_0': {'objective.time.mean': 0.0},
  'times_0_rows_32': {
    'objective.time.mean': 0.0,
    'buckets.video.batch_size': 32,
    'optimizer.learning_rate': 5e-3,
  },
}


def get_config() -> ConfigDict:
  config = ConfigDict({'arms': {}, 'seeds': (0,), 'samples': 216})
  for name, changes in ARMS.items():
    arm = video.get_config()
    arm.autoencoder = 'runs/quickstart/autoencoder'
    arm.data.latents = 'runs/quickstart/latents'
    arm.train.steps = arm.train.evaluate_every = arm.train.save_every = STEPS
    arm.update_from_flattened_dict(changes)
    config.arms[name] = arm
  return config
