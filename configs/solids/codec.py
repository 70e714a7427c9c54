r"""Audio codec of the sounds of solids, some minutes on two CPU cores.

python -m launch.train --config=configs/solids/codec.py --workdir=runs/solids_sound/codec
"""

from ml_collections import ConfigDict

from ..digits import codec


def get_config() -> ConfigDict:
  config = codec.get_config()
  config.data = ConfigDict(
    {'kind': 'solids', 'solids': {'solids': (1, 2)}, 'latents': '', 'fps': 8, 'threads': 2}
  )
  # Whole clips: what is struck is struck after the first half second.
  config.buckets.sound.update(seconds=2.0, batch_size=3)
  config.data.solids.meetings = 1.0
  # They have .0085 of the full scale on average, those of digits .07: with the weights of digits
  # silence is what a codec finds first, and it stays there.
  config.objective.mse, config.objective.spectral_floor = 500_000.0, 0.001
  config.train.steps = 1500
  return config
