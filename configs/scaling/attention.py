r"""What attention to some tiles of tokens costs and keeps, as arms: digits, 64 tokens, solids, 128.

python -m launch.data encode --config=configs/digits/video.py --output=runs/claims/latents \
  --config.autoencoder=digits/autoencoder
python -m launch.scaling run --config=configs/scaling/attention.py --workdir=runs/attention
python -m launch.scaling rank --records=runs/attention/sweep.jsonl --score=validation_loss
python -m launch.data encode --config=configs/solids/video.py --output=runs/solids/latents \
  --config.autoencoder=solids/autoencoder
python -m launch.scaling run --config=configs/scaling/attention.py:solids \
  --workdir=runs/attention_solids

Of eight tiles of 2 x 2 x 2 tokens, of solids sixteen, a head reads its own and some it chooses;
windows are the 3 x 3 x 3 tokens around each. Two minutes a run of digits and ten of solids, of one
core.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import video
from ..solids import video as solids

# Steps, chosen tiles of seven and of fifteen others, seeds, videos that are judged.
WORLDS = {
  'digits': (3000, (1, 2, 3, 5), (0, 1, 2), 216),
  'solids': (2000, (2, 4, 8), (0,), 0),
}


def get_config(world: str = 'digits') -> ConfigDict:
  if world not in WORLDS:
    raise ConfigError(f'{world!r}: expected {" or ".join(WORLDS)}')
  steps, counts, seeds, samples = WORLDS[world]
  arms = {'whole': {}, 'windows': {'tile': (1, 1, 1), 'window': (3, 3, 3)}}
  for chosen in counts:
    arms[f'chosen_{chosen}'] = {'tile': (2, 2, 2), 'window': (1, 1, 1), 'chosen': chosen}
  arms = {name: arm(world, steps, **model) for name, model in arms.items()}
  return ConfigDict({'arms': arms, 'seeds': dict.fromkeys(arms, seeds), 'samples': samples})


def arm(world: str = 'digits', steps: int = WORLDS['digits'][0], **model) -> ConfigDict:
  config = {'digits': video, 'solids': solids}[world].get_config()
  config.autoencoder = f'{world}/autoencoder'
  if world == 'digits':
    config.data.latents = 'runs/claims/latents'
  config.model.update(model)
  config.train.steps = config.train.evaluate_every = config.train.save_every = steps
  return config
