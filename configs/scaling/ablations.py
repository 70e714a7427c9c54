"""The paper's ablations in small: objective, block, and a warm-up on images (Movie Gen §3.6.2).

python -m launch.scaling run --config=configs/scaling/ablations.py --workdir=runs/ablations
python -m launch.scaling compare --records=runs/ablations/sweep.jsonl --first=flow --second=dit

Text to video on the moving digits, on what `make quickstart` made, each arm of equal compute. The
first arm is the default: flow matching and Llama's block, without a warm-up. `warm` goes on from
`images`, a run on images alone that took a quarter of the compute, which its seeds share.
"""

from ml_collections import ConfigDict

from ..digits import video
from ..video.sizes import DIT
from ..video.stage import set_v_prediction

STEPS = 3000  # batches of images and of videos have as many tokens each


def get_config() -> ConfigDict:
  config = ConfigDict({'arms': {}, 'seeds': {}, 'samples': 216})
  for name in ('flow', 'v_prediction', 'dit', 'images', 'warm'):
    config.arms[name] = arm(name)
    config.seeds[name] = (0,) if name == 'images' else (0, 1, 2)
  return config


def arm(name: str, whole: int = STEPS) -> ConfigDict:
  config = video.get_config()
  config.autoencoder = 'runs/quickstart/autoencoder'
  config.data.latents = 'runs/quickstart/latents'
  steps = {'images': whole // 4, 'warm': whole - whole // 4}.get(name, whole)
  config.train.steps = config.train.evaluate_every = config.train.save_every = steps
  if name == 'v_prediction':
    set_v_prediction(config)
  elif name == 'dit':  # as many parameters and operations: two matrices, half as wide again
    config.model.update(DIT, mlp_dim=3 * config.model.mlp_dim // 2)
  elif name == 'images':
    del config.buckets['video']
  elif name == 'warm':
    config.start_from = 'runs/ablations/images/seed_0'
  return config
