r"""Text to video on the moving digits, a few minutes on two CPU cores.

python -m launch.data encode --config=configs/digits/video.py --output=runs/digits/latents \
  --config.autoencoder=runs/digits/autoencoder
python -m launch.train --config=configs/digits/video.py --workdir=runs/digits/video \
  --config.autoencoder=runs/digits/autoencoder --config.data.latents=runs/digits/latents

With configs/digits/video.py:bounce digits bounce too, slowly, and training takes six times as long:
after 12,000 steps a digit that bounces still changes its shape on the way.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..base import encoding, flow_model
from . import autoencoder


def get_config(motions: str = 'straight') -> ConfigDict:
  if motions not in ('straight', 'bounce'):
    raise ConfigError(f'{motions!r}: expected straight or bounce')
  config = flow_model(
    'video',
    dim=128,
    depth=4,
    heads=4,
    mlp_dim=384,
    positions=(4, 4, 4),
    unroll=4,  # a loop over layers costs more than it saves at this size
    conditionings={
      'text': {'kind': 'byte_text', 'width': 64, 'depth': 2, 'heads': 2, 'length': 40}
    },
  )
  config.autoencoder = 'runs/digits/autoencoder'
  config.data = autoencoder.get_config().data
  config.data.latents = 'runs/digits/latents'
  config.buckets = ConfigDict(
    {
      # Few rows a step and many steps: for the same work a third of the errors of a batch of 32.
      'video': {'frames': 16, 'height': 32, 'width': 32, 'batch_size': 8, 'weight': 10},
      'image': {'frames': 1, 'height': 32, 'width': 32, 'batch_size': 32, 'weight': 1},
    }
  )
  # The report draws times around mean 0. Which way the digit moves is settled while hardly anything
  # can be seen of it, t < 0.1, and mean 0 seldom trains there: with mean -1 the model follows the
  # words for motion many times sooner (docs/experiments/digits_quickstart.md).
  config.objective.time.mean = -1.0
  config.encode = encoding(train=6144, validation=512)
  config.sample.steps = 25
  config.sample.guidance = (('text', 4.0),)
  config.optimizer.schedule = 'cosine'
  config.optimizer.learning_rate = 2.2e-3
  config.optimizer.final_fraction = 0.02
  config.optimizer.beta2 = 0.99
  config.optimizer.weight_decay = 0.01
  config.train.steps = 6000
  config.train.log_every = 100
  config.train.evaluate_every = 1000
  config.train.save_every = 1000
  if motions == 'bounce':
    config.data.digits.update(motions=(*config.data.digits.motions, 'bounce'), laps=0.4)
    config.encode.train = 50_000
    config.train.steps = 36_000
    config.train.evaluate_every = config.train.save_every = 6000
  return config
