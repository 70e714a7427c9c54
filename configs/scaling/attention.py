r"""What attention to some tiles of tokens costs and keeps, as arms: moving digits, 64 tokens.

python -m launch.data encode --config=configs/digits/video.py --output=runs/claims/latents \
  --config.autoencoder=digits/autoencoder
python -m launch.scaling run --config=configs/scaling/attention.py --workdir=runs/attention
python -m launch.scaling rank --records=runs/attention/sweep.jsonl --score=validation_loss

Of eight tiles of 2 x 2 x 2 tokens a head reads its own and one to five that it chooses; windows are
the 3 x 3 x 3 tokens around each. Two minutes a run of one core.
"""

from ml_collections import ConfigDict

from ..digits import video

STEPS = 3000
CHOSEN = (1, 2, 3, 5)  # of seven others


def get_config() -> ConfigDict:
  arms = {'whole': arm(), 'windows': arm(tile=(1, 1, 1), window=(3, 3, 3))}
  for chosen in CHOSEN:
    arms[f'chosen_{chosen}'] = arm(tile=(2, 2, 2), window=(1, 1, 1), chosen=chosen)
  return ConfigDict({'arms': arms, 'seeds': dict.fromkeys(arms, (0, 1, 2)), 'samples': 216})


def arm(**model) -> ConfigDict:
  config = video.get_config()
  config.autoencoder, config.data.latents = 'digits/autoencoder', 'runs/claims/latents'
  config.model.update(model)
  config.train.steps = config.train.evaluate_every = config.train.save_every = STEPS
  return config
