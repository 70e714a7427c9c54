r"""What products of one byte a number cost in what is learnt, as arms: moving digits.

python -m launch.data encode --config=configs/digits/video.py --output=runs/claims/latents \
  --config.autoencoder=digits/autoencoder
python -m launch.scaling run --config=configs/scaling/products.py --workdir=runs/products
python -m launch.scaling compare --records=runs/products/sweep.jsonl --first=dtype \
  --second=int8_both --score=all

The large maps of layers multiply int8 or fp8 forward and backward; all else is as it is. Some
minutes a run of one core.
"""

from ml_collections import ConfigDict

from ..digits import video

STEPS = 4000


def get_config() -> ConfigDict:
  arms = {}
  for kind in ('dtype', 'int8_both', 'fp8_both'):
    arms[kind] = config = video.get_config()
    config.autoencoder, config.data.latents = 'digits/autoencoder', 'runs/claims/latents'
    config.model.products = kind
    config.train.steps = config.train.evaluate_every = config.train.save_every = STEPS
  return ConfigDict({'arms': arms, 'seeds': (0, 1, 2), 'samples': 216})
