"""A personalized model small enough to train in seconds, on what `tests.tiny` trains."""

import pathlib

from configs.digits import personalization as personalization_config
from mgjax.api import train
from mgjax.workflows.encode import encode
from tests import tiny

SIDE = 16  # of clips and references
VISION = {
  'size': SIDE, 'patch': 8, 'dim': 16, 'depth': 1, 'heads': 2, 'mlp_dim': 32, 'projection': 8,
}  # fmt: skip
PERSONALIZATION = {
  **{key: value for key, value in tiny.VIDEO.items() if not key.startswith('buckets.image')},
  'model.conditionings.identity.vision': VISION,
  'objective.dropout.identity': 0.25,
}


def personalization(runs: pathlib.Path, latents: bool = True, **changes):
  """The configuration on the autoencoder, the video model and the latents in `runs`."""
  config = personalization_config.get_config()
  config.autoencoder = str(runs / 'autoencoder')
  config.start_from = str(runs / 'video')
  config.data.latents = str(runs / 'pairs') if latents else ''
  config.update_from_flattened_dict(PERSONALIZATION | tiny.dotted(changes))
  return config


def make_runs(runs: pathlib.Path) -> pathlib.Path:
  """Trains all in `runs`: autoencoder/, latents/, video/, pairs/, personalization/."""
  tiny.make_runs(runs)
  encode(personalization(runs), runs / 'pairs')
  train(personalization(runs), runs / 'personalization')
  return runs
