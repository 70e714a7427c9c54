r"""Four models that one world cannot tell apart, and whether another one can.

python -m launch.scaling run --config=configs/scaling/worlds.py:digits --workdir=runs/worlds/digits
python -m launch.scaling run --config=configs/scaling/worlds.py:solids --workdir=runs/worlds/solids
python -m launch.scaling rank --records=runs/worlds/solids/sweep.jsonl --score=validation_loss

Text to video on what `make quickstart` made, and on latents of configs/solids/video.py:fast: the
same widths, depths and blocks on both datasets, with equal steps on each. In solids more arms
ask what the objective brings: `v_prediction`, diffusion in place of flow matching (Movie Gen
§3.6.2), and both at four times the learning rate, which shows how stable they are.
"""

from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

from ..digits import video as digits
from ..solids import video as solids
from ..video.stage import set_v_prediction

SIZES: dict[str, dict[str, Any]] = {
  'dim_128_depth_4': {'dim': 128, 'depth': 4, 'heads': 4, 'mlp_dim': 384, 'unroll': 4},
  'dim_192_depth_4': {'dim': 192, 'depth': 4, 'heads': 6, 'mlp_dim': 576, 'unroll': 4},
  'dim_192_depth_6': {'dim': 192, 'depth': 6, 'heads': 6, 'mlp_dim': 576, 'unroll': 6},
}
SIZES['depthwise'] = SIZES['dim_192_depth_6'] | {'depthwise': True}
STEPS = {'digits': 5600, 'solids': 700}
FAST = 4  # times the learning rate


def get_config(world: str = 'solids') -> ConfigDict:
  if world not in STEPS:
    raise ConfigError(f'world {world!r}: expected one of {", ".join(STEPS)}')
  config = ConfigDict({'arms': {}, 'seeds': {}, 'samples': {'digits': 216, 'solids': 12}[world]})
  for name, sizes in SIZES.items():
    config.arms[name] = arm(world, sizes)
    config.seeds[name] = (0,) if world == 'digits' else (0, 1, 2)
  if world == 'solids':
    ours = SIZES['depthwise']
    for name, diffusion, rate in (
      ('v_prediction', True, 1),
      ('fast', False, FAST),
      ('fast_v_prediction', True, FAST),
    ):
      config.arms[name] = arm(world, ours, diffusion, rate)
      config.seeds[name] = (0, 1, 2) if rate == 1 else (0,)
  return config


def arm(world: str, sizes: dict[str, Any], diffusion: bool = False, rate: int = 1) -> ConfigDict:
  if world == 'solids':
    config = solids.get_config('fast')
  else:
    config = digits.get_config()
    config.autoencoder = 'runs/quickstart/autoencoder'
    config.data.latents = 'runs/quickstart/latents'
  config.model.depthwise = False
  config.model.update(sizes)
  steps = STEPS[world]
  config.train.steps = config.train.evaluate_every = config.train.save_every = steps
  config.optimizer.learning_rate *= rate
  if diffusion:
    set_v_prediction(config)
  return config
