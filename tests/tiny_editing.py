"""An editor of 4 frames of 16 x 16 pixels with random weights, on what `tests.tiny` trains."""

import pathlib
import shutil

import flax.linen as nn
import jax

from configs.digits import editing as editing_config
from mgjax.core.settings import fields_of
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import write_workdir
from tests import tiny
from tests.random_parameters import random_parameters

WINDOW, SIDE = 4, 16
OVERRIDES = {
  **{key: value for key, value in tiny.VIDEO.items() if not key.startswith('buckets.image')},
  'buckets.video.weight': 1,
  'model.positions': (2, 4, 4),  # up to 32 x 32 pixels
  'model.conditionings.text.length': tiny.video(pathlib.Path()).model.conditionings.text.length,
}


def editing(runs: pathlib.Path, **changes):
  """The configuration of an editor learnt from pairs, on the models in `runs`, without latents."""
  config = editing_config.get_config('paired')
  config.autoencoder = str(runs / 'autoencoder')
  config.start_from, config.data.latents = str(runs / 'video'), ''
  config.update_from_flattened_dict(OVERRIDES | tiny.dotted(changes))
  return config


def backtranslation(runs: pathlib.Path, recogniser: pathlib.Path, **changes):
  """The configuration of the third stage, which keeps every pair that the editor of `runs` makes.

  Its data are the pairs alone, without clips that are made of a caption.
  """
  config = editing_config.get_config('backtranslation')
  del config.data.sources
  config.buckets = {'backtranslated': config.buckets.backtranslated}
  config.edits.animated = ()
  fields = {key.replace('.video.', '.backtranslated.'): v for key, v in OVERRIDES.items()}
  places = {'editor': runs / 'editing', 'recogniser': recogniser}
  fields |= {f'backtranslation.{name}': str(place) for name, place in places.items()}
  config.autoencoder, config.start_from = str(runs / 'autoencoder'), str(runs / 'editing')
  config.data.latents = ''
  kept = {'clips': 12, 'validation': 8, 'direction': -1.0, 'structure': -1.0}
  config.backtranslation.update(**kept, noise=0.0)
  config.update_from_flattened_dict(fields | tiny.dotted(changes))
  return config


def make_editor(runs: pathlib.Path, workdir: pathlib.Path, **changes) -> pathlib.Path:
  """Writes an editor with random weights, none of them zero; returns its work directory."""
  config = editing(runs, **changes)
  model = make_flow_model(fields_of(config, 'model'))
  return _write(runs, workdir, config, random_parameters(model.init, *small_inputs(model, 4)))


def make_beginning(runs: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
  """Writes an editor as it is before its first step: the video model's weights and new ones."""
  config = editing(runs, model__positions=tiny.VIDEO['model.positions'])
  model = make_flow_model(fields_of(config, 'model'))
  made = nn.unbox(jax.jit(model.init)(jax.random.key(0), *small_inputs(model, 4)))['params']
  return _write(runs, workdir, config, {**made, **load_params(runs / 'video')[0]})


def _write(runs, workdir, config, params):
  _, meta = load_params(runs / 'video')
  write_workdir(config.to_dict(), params, meta['notes'], workdir, origin={'order': 'made'})
  return workdir


def make_runs(tiny_runs: pathlib.Path, runs: pathlib.Path) -> pathlib.Path:
  """Makes editing/ in `runs`, beside copies of what `tiny.make_runs` made."""
  shutil.copytree(tiny_runs, runs)
  make_editor(runs, runs / 'editing')
  return runs
