r"""Audio model of the moving digits: a click and a tone at each impact, some minutes.

python -m launch.train --config=configs/digits/codec.py --workdir=runs/sound/codec
python -m launch.data encode --config=configs/digits/audio.py --output=runs/sound/latents \
  --config.autoencoder=runs/sound/codec
python -m launch.train --config=configs/digits/audio.py --workdir=runs/sound/audio \
  --config.autoencoder=runs/sound/codec --config.data.latents=runs/sound/latents
"""

from ml_collections import ConfigDict

from ..base import audio_model, encoding
from . import codec

SECONDS = 2.0


def get_config() -> ConfigDict:
  config = audio_model(
    dim=128,
    depth=4,
    heads=4,
    mlp_dim=512,
    positions=(round(SECONDS * 25), 1, 1),  # learned: not in public sources
    patch=(1, 1, 1),
    feed_forward='gelu',
    unroll=4,  # a loop over layers costs more than it saves at this size
    conditionings={
      'context': {'kind': 'known_latents'},
      'text': {'kind': 'byte_text', 'width': 64, 'depth': 2, 'heads': 2, 'length': 40},
      # Black pixels are -1.
      'video': {'kind': 'frame_features', 'features': 768, 'background': -1.0},
    },
  )
  config.autoencoder = 'runs/sound/codec'
  config.data = codec.get_config().data
  config.data.latents = 'runs/sound/latents'
  # Two that sound and three that do not.
  config.data.digits.motions = ('bounce', 'fall', 'still', 'left', 'right')
  config.buckets = ConfigDict(
    {'sound': {'seconds': SECONDS, 'height': 32, 'width': 32, 'batch_size': 8, 'weight': 1}}
  )
  # synthetic data train nearer to noise, as configs/digits/video.py
  config.objective.time.mean = -1.0
  config.encode = encoding(train=8192, validation=256)
  config.sample.steps = 16
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 2.2e-3
  config.optimizer.final_fraction = 0.02
  config.optimizer.beta2 = 0.99
  config.optimizer.weight_decay = 0.01
  config.train.steps = 14_000
  config.train.log_every = 100
  config.train.evaluate_every = 3500
  config.train.save_every = 3500
  return config
