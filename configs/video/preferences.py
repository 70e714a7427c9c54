r"""Text to video that learns from votes about its own samples, by adapters.

python -m launch.data pairs --config=configs/video/preferences.py:30b --output=data/latents_votes \
  --config.autoencoder=runs/tae --config.preferences.votes=votes.jsonl --config.preferences.model=
python -m launch.train --config=configs/video/preferences.py:30b --workdir=runs/preferences \
  --config.autoencoder=runs/tae --config.data.latents=data/latents_votes
python -m launch.plan --config=configs/video/preferences.py:30b --topology=h100:8 \
  --config.lora.weights=int8

The size is one of configs/video/sizes.py. Votes are lines {"prompt", "chosen", "rejected"}, such as
launch.compare export writes. The paper has none of this.
"""

from ml_collections import ConfigDict

from ..base import preferences
from . import t2iv_768


def get_config(size: str = '30b') -> ConfigDict:
  config = preferences(t2iv_768.get_config(size), 'runs/t2iv_768')
  config.data.latents = 'data/latents_votes'
  for name in [name for name in config.buckets if not name.startswith('video')]:
    del config.buckets[name]
  for bucket in config.buckets.values():
    bucket.batch_size = 8
  config.optimizer.learning_rate = 1e-5
  config.train.steps = 1000
  return config
