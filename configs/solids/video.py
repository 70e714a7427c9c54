r"""Text to video on the solids dataset at 64 px, after a stage at 32 px, seventy minutes.

python -m launch.train --config=configs/quickstart.py:solids --workdir=runs/solids

That trains an autoencoder, then the stage of this file at 32 px, then that at 64 px from its
weights, as the paper goes from 256 to 768 px (Movie Gen §3.2.2). One by one:

python -m launch.data encode --config=solids/video:half --output=runs/solids/latents_half \
  --config.autoencoder=runs/solids/autoencoder
python -m launch.train --config=solids/video:half --workdir=runs/solids/half \
  --config.autoencoder=runs/solids/autoencoder --config.data.latents=runs/solids/latents_half
python -m launch.data encode --config=solids/video --output=runs/solids/latents \
  --config.autoencoder=runs/solids/autoencoder
python -m launch.train --config=solids/video --workdir=runs/solids/video \
  --config.autoencoder=runs/solids/autoencoder --config.data.latents=runs/solids/latents \
  --config.start_from=runs/solids/half

With :quarter and latents_quarter in place of :half a stage is at 16 px, where directions are read
sooner (docs/decisions/0035). Give the next stage a rate of 1.5e-3 by AdamW, which may forget them
at larger ones, or use Muon, as configs/solids/recipe.py:short does.

With solids/video:fast, on solids/autoencoder:fast, clips are half as many tokens, for
experiments: motions and the camera are followed as well after half the time, solids less whole. All
of it lies in runs/solids/fast.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import video
from . import autoencoder


def get_config(what: str = 'small') -> ConfigDict:
  if what not in ('small', 'half', 'quarter', 'fast'):
    raise ConfigError(f'{what!r}: expected small, half, quarter or fast')
  folder = 'runs/solids/fast' if what == 'fast' else 'runs/solids'
  config = video.get_config()
  config.autoencoder = f'{folder}/autoencoder'
  config.data = autoencoder.get_config().data
  config.data.latents = f'{folder}/latents'
  for bucket in config.buckets.values():
    bucket.update(height=64, width=64)
  # 128 tokens of 8 x 8 x 8 pixels. Convolved with their neighbours they draw whole solids; without,
  # each token by itself decides whether it shows some of one, and solids fall to pieces.
  config.model.update(
    dim=192,
    depth=6,
    heads=6,
    mlp_dim=576,
    unroll=6,
    patch=(1, 1, 1),
    positions=(2, 8, 8),
    depthwise=True,
  )
  # Words, not bytes: captions are up to three sentences.
  config.model.conditionings.text = ConfigDict(
    {
      'kind': 'word_text',
      'vocabulary': 6007,  # no two of its words share a token
      'width': 96,
      'depth': 2,
      'heads': 3,
      'length': 64,
    }
  )
  config.buckets.video.weight = 3  # of images 1: what solids look like is learnt from both
  config.buckets.image.batch_size = 16
  # Two clips that differ in a direction are told apart from t = .03 on, in a colour from .04 on, so
  # that what words decide is decided below (docs/decisions/0035); solids are drawn above.
  config.objective.time.update(mean=-1.8, std=1.8)
  config.optimizer.learning_rate = 2e-3
  config.train.steps = 8000
  config.train.evaluate_every = config.train.save_every = 2000
  config.encode.train = 12_000
  config.encode.validation = 256
  if what in ('half', 'quarter'):
    _shrink(config, what)
  if what == 'fast':
    config.model.positions = (1, 8, 8)
    config.objective.time.update(mean=-1.5, std=1.1)
    config.train.steps = 11_000
    config.train.evaluate_every = config.train.save_every = 2750
  return config


def _shrink(config: ConfigDict, what: str) -> None:
  """Makes of the configuration that of a stage at 32 or 16 px.

  What a word decides is as many bits in a quarter of the numbers, so that with each halving it is
  four times as much of the loss. Directions are read at 16 px after 3,000 steps. At 32 px they need
  at least as many, and at 64 px more than an hour (docs/decisions/0035).
  """
  by, mean, steps = {'half': (2, -2.5, 6000), 'quarter': (4, -1.8, 3000)}[what]
  config.data.latents = f'runs/solids/latents_{what}'
  for bucket in config.buckets.values():
    bucket.update(height=64 // by, width=64 // by, batch_size=by * bucket.batch_size)
  config.model.positions = (2, 8 // by, 8 // by)
  config.objective.time.update(mean=mean, std=1.5)
  config.train.steps = steps
  config.train.evaluate_every = config.train.save_every = steps // 3
