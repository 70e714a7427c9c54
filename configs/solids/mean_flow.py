"""Solids in one step, learnt from data alone, with guidance inside.

python -m launch.train --config=configs/solids/mean_flow.py --workdir=runs/solids/mean_flow
python -m launch.evaluate --workdir=runs/solids/mean_flow/steps --steps=1

It stands on the autoencoder and the latents of `make quickstart WORLD=solids
WORKDIR=runs/solids`; no model is its teacher.
"""

from ml_collections import ConfigDict

from ..base import mean_flow
from . import video


def get_config() -> ConfigDict:
  return mean_flow(video.get_config(), guidance=4.0)
