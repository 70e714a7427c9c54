r"""What int8 and fp8 matrix multiplications cost in quality, as arms: moving digits.

python -m launch.data encode --config=configs/digits/video.py --output=runs/claims/latents \
  --config.autoencoder=digits/autoencoder
python -m launch.scaling run --config=configs/scaling/products.py --workdir=runs/products
python -m launch.scaling compare --records=runs/products/sweep.jsonl --first=dtype \
  --second=int8_both --score=all

The large maps of layers multiply int8 or fp8 forward and backward; all else is as it is. Some
minutes a run of one core.
"""

from ml_collections import ConfigDict

from .attention import arm


def get_config() -> ConfigDict:
  arms = {kind: arm(products=kind) for kind in ('dtype', 'int8_both', 'fp8_both')}
  return ConfigDict({'arms': arms, 'seeds': (0, 1, 2), 'samples': 216})
