"""Text to video in one step, learned from data alone, with guidance inside.

python -m launch.train --config=configs/video/mean_flow.py:30b --workdir=runs/mean_flow \\
  --config.autoencoder=runs/tae --config.path=data/clips

The size is one of configs/video/sizes.py. The paper samples in 50 steps.
"""

from ml_collections import ConfigDict

from ..base import mean_flow
from . import t2iv_768


def get_config(size: str = '30b') -> ConfigDict:
  recipe = mean_flow(t2iv_768.get_config(size), guidance=7.5)
  recipe.path = 'data/clips'
  for stage in recipe.stages.values():
    stage.data.path = recipe.get_oneway_ref('path')
  return recipe
