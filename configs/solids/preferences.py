r"""Adapters that learn which of two samples a judge of solids prefers, minutes of two CPU cores.

python -m launch.data pairs --config=configs/solids/preferences.py \
  --output=runs/solids_preferences/latents
python -m launch.train --config=configs/solids/preferences.py \
  --workdir=runs/solids_preferences/model
python -m launch.evaluate --workdir=runs/solids_preferences/model --samples=200

It changes what `make quickstart WORLD=solids WORKDIR=runs/solids` trained. Votes of people, lines
{"prompt": ..., "chosen": "a.mp4", "rejected": "b.mp4"}, take the place of the judge:
--config.preferences.model= --config.preferences.votes=votes.jsonl
"""

from ml_collections import ConfigDict

from ..base import preferences
from . import video


def get_config() -> ConfigDict:
  config = preferences(video.get_config(), 'runs/solids/video')
  config.data.latents = 'runs/solids_preferences/latents'
  del config.buckets.image
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 600
  config.train.evaluate_every = config.train.save_every = 200
  return config
