r"""Audio codec of the solids dataset, half an hour on two CPU cores.

python -m launch.train --config=configs/solids/codec.py --workdir=runs/solids_sound/codec
"""

from ml_collections import ConfigDict

from ..digits import codec


def get_config() -> ConfigDict:
  config = codec.get_config()
  config.data = ConfigDict(
    {'kind': 'solids', 'solids': {'solids': (1, 2)}, 'latents': '', 'fps': 8, 'threads': 2}
  )
  # Of windows of .4 s most hold an impact, of whole clips a few hundredths.
  config.buckets.sound.update(batch_size=16)
  config.data.solids.meetings = 1.0
  # An impact lasts a few hundredths of a second, so a new codec learns silence and stays there.
  # The codec of digits, which ships with mgjax, was trained on clicks and tones. A squared error of
  # samples needs the phase of each mode, which 32 numbers do not hold, and leads back to silence.
  config.start_from = 'digits/codec'
  config.objective.update(mel=15.0, mse=1000.0, spectral_floor=0.005)
  config.optimizer.learning_rate = 1e-3
  config.train.steps = 2800
  return config
