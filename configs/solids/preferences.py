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

from . import video


def get_config() -> ConfigDict:
  config = video.get_config()
  config.start_from = 'runs/solids/video'
  config.data.latents = 'runs/solids_preferences/latents'
  del config.buckets.image
  config.buckets.video.batch_size = 8
  config.model.conditionings.rejected = ConfigDict({'kind': 'rejected'})
  config.objective.dropout.rejected = 0.0
  config.objective.preference = ConfigDict({'beta': 500.0, 'supervised': 0.1})
  config.preferences = ConfigDict(
    {
      'model': 'runs/solids/video',
      'votes': '',
      'prompts': 1024,
      'validation': 128,
      'strength': 0.9,
      'least': 0.05,
      'seed': 0,
    }
  )
  config.lora.update(rank=16, targets=('backbone/layers/*',))
  config.optimizer.learning_rate = 5e-4
  config.train.steps = 600
  config.train.evaluate_every = config.train.save_every = 200
  return config
