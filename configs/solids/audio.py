r"""Audio model of the solids dataset: impacts, rolling and silence, seen at 8 frames a second.

python -m launch.train --config=configs/solids/codec.py --workdir=runs/solids_sound/codec
python -m launch.data encode --config=configs/solids/audio.py \
  --output=runs/solids_sound/latents --config.autoencoder=runs/solids_sound/codec
python -m launch.train --config=configs/solids/audio.py --workdir=runs/solids_sound/audio \
  --config.autoencoder=runs/solids_sound/codec --config.data.latents=runs/solids_sound/latents

What ships with mgjax went on from there for 14,000 steps at a rate of 1e-3, as
launch/recipes/solids_weights.sh does: materials are learned last.
"""

from ml_collections import ConfigDict

from ..digits import audio
from . import codec, video


def get_config() -> ConfigDict:
  config = audio.get_config()
  config.autoencoder = 'runs/solids_sound/codec'
  config.data = codec.get_config().data
  config.data.latents = 'runs/solids_sound/latents'
  config.buckets.sound.batch_size = 16
  config.model.update(dim=192, heads=6, mlp_dim=768)
  config.data.solids.update(wording='heard', frames=16)  # whole clips, of which captions are true
  # Where solids meet, bounce and stop is in velocities, which single frames do not show.
  config.vision = 'motion'
  config.model.conditionings.video.features = 1280
  config.model.conditionings.text = video.get_config().model.conditionings.text
  config.model.conditionings.video.background = 0.0  # there is a sky and a floor
  config.encode.train = 40_960
  config.train.steps = 16_000
  return config
