"""A personalized model small enough to train in seconds, on what `tests.tiny` trains."""

import pathlib
import shutil

from configs.digits import clip as clip_config
from configs.digits import personalization as personalization_config
from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.core.settings import fields_of
from mgjax.models.clip.model import clip_model_inputs, make_clip_model
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import write_workdir
from tests import tiny
from tests.random_parameters import random_parameters

SIDE = 16  # of clips and references
VISION = {
  'size': SIDE,
  'patch': 8,
  'dim': 16,
  'depth': 1,
  'heads': 2,
  'mlp_dim': 32,
  'projection': 8,
}
IMAGES = {key: value for key, value in tiny.VIDEO.items() if key.startswith('buckets.image')}
PERSONALIZATION = {
  **{key: value for key, value in tiny.VIDEO.items() if key not in IMAGES},
  'model.conditionings.identity.vision': VISION,
  'objective.dropout.identity': 0.25,
}


def personalization(runs: pathlib.Path, latents: bool = True, **changes):
  """The configuration on the autoencoder, the video model and the latents in `runs`."""
  config = personalization_config.get_config()
  del config.buckets.image  # one program less to compile
  config.autoencoder = str(runs / 'autoencoder')
  config.start_from = str(runs / 'video')
  config.data.latents = str(runs / 'pairs') if latents else ''
  config.update_from_flattened_dict(PERSONALIZATION | tiny.dotted(changes))
  return config


def make_runs(tiny_runs: pathlib.Path, runs: pathlib.Path) -> pathlib.Path:
  """Makes pairs/ and personalization/ in `runs`, beside copies of what `tiny.make_runs` made."""
  shutil.copytree(tiny_runs, runs)
  encode(personalization(runs), runs / 'pairs')
  train(personalization(runs), runs / 'personalization')
  return runs


def untrained(runs: pathlib.Path, side: int = SIDE, **changes):
  """The configuration of a model that makes videos and images, on the autoencoder in `runs`."""
  config = personalization_config.get_config()
  config.autoencoder, config.start_from = str(runs / 'autoencoder'), ''
  tower = VISION | {'size': side}
  more = {'model.conditionings.identity.vision': tower, **tiny.dotted(changes)}
  config.update_from_flattened_dict({**PERSONALIZATION, **IMAGES, **more})
  return config


def make_untrained(runs: pathlib.Path, workdir: pathlib.Path, side: int = SIDE, **changes):
  """Writes such a model with random weights; returns its work directory."""
  config = untrained(runs, side, **changes)
  model = make_flow_model(fields_of(config, 'model'))
  params = random_parameters(model.init, *small_inputs(model, 4))
  _, meta = load_params(runs / 'video')
  write_workdir(config.to_dict(), params, meta['notes'], workdir, origin={'order': 'made'})
  return workdir


def make_recogniser(workdir: pathlib.Path, seed: int = 0) -> pathlib.Path:
  """Writes a CLIP with random weights and a head for identities."""
  config = clip_config.get_config()
  config.model.vision.update(VISION)
  text = {'positions': 48, 'dim': 8, 'depth': 1, 'heads': 2, 'mlp_dim': 8}
  config.model.text.update(**text, projection=VISION['projection'])
  model = make_clip_model(fields_of(config, 'model'))
  params = random_parameters(model.init, *clip_model_inputs(model), seed=seed)
  write_workdir(config.to_dict(), params, {}, workdir, origin={'order': 'made'})
  return workdir
