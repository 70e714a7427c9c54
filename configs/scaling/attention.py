r"""What attention to some tiles of tokens costs and keeps, as arms: digits, 64 tokens, solids, 128.

python -m launch.data encode --config=configs/digits/video.py --output=runs/claims/latents \
  --config.autoencoder=digits/autoencoder
python -m launch.scaling run --config=configs/scaling/attention.py --workdir=runs/attention
python -m launch.scaling rank --records=runs/attention/sweep.jsonl --score=validation_loss
python -m launch.data encode --config=configs/solids/video.py --output=runs/solids/latents \
  --config.autoencoder=solids/autoencoder
python -m launch.scaling run --config=configs/scaling/attention.py:solids \
  --workdir=runs/attention_solids

A head reads its own tile of 2 x 2 x 2 tokens, the first of eight or sixteen, and so many that it
selects. Arms 'fine' have tiles of 1 x 2 x 2, 'near' also the eight around their own. Windows are
the 3 x 3 x 3 tokens around each. Two minutes a run of digits, of one core, and ten of solids, of
two.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import video
from ..solids import video as solids

WHOLE = {'whole': {}, 'windows': {'tile': (1, 1, 1), 'window': (3, 3, 3)}}
CHOSEN = {
  f'chosen_{n}': {'tile': (2, 2, 2), 'window': (1, 1, 1), 'chosen': n} for n in (1, 2, 3, 4, 5)
}
FINE = {
  'fine_9': {'tile': (1, 2, 2), 'window': (1, 1, 1), 'chosen': 9},
  'near_2': {'tile': (1, 2, 2), 'window': (1, 3, 3), 'chosen': 2},
}
# Arms, steps, seeds, videos that are judged.
WORLDS = {
  'digits': (WHOLE | CHOSEN, 3000, (0, 1, 2), 216),
  'solids': (WHOLE | CHOSEN | FINE, 2000, (0,), 0),
}


def get_config(world: str = 'digits') -> ConfigDict:
  if world not in WORLDS:
    raise ConfigError(f'{world!r}: expected {" or ".join(WORLDS)}')
  models, steps, seeds, samples = WORLDS[world]
  arms = {name: arm(world, steps, **model) for name, model in models.items()}
  return ConfigDict({'arms': arms, 'seeds': dict.fromkeys(arms, seeds), 'samples': samples})


def arm(world: str = 'digits', steps: int = 3000, **model) -> ConfigDict:
  config = {'digits': video, 'solids': solids}[world].get_config()
  config.autoencoder = f'{world}/autoencoder'
  if world == 'digits':
    config.data.latents = 'runs/claims/latents'
  config.model.update(model)
  config.train.steps = config.train.evaluate_every = config.train.save_every = steps
  return config
