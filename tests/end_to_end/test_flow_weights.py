"""Models of videos and of sound in and out of work directories: every bit, and what they make."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.tree import named_leaves
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config
from mgjax.training.state import State
from tests import tiny, tiny_sound
from tests.random_parameters import random_parameters
from tests.tensors import assert_same

LATENTS = {'mean': [0.5, -1.0, 0.0, 2.0], 'std': [1.0, 2.0, 0.5, 1.5]}
CONFIGS = {'video': tiny.video, 'audio': tiny_sound.audio}


def a_run(config, workdir):
  """A work directory as launch.train leaves it: what trains and its average, which differ."""
  model = make_flow_model(config.model.to_dict())
  average = random_parameters(model.init, *small_inputs(model, len(LATENTS['mean'])))
  average = jax.tree.map(jnp.asarray, average)
  shapes = {name: list(leaf.shape) for name, leaf in named_leaves(average).items()}
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
  (workdir / 'parameters.json').write_text(json.dumps(shapes))
  params = jax.tree.map(lambda leaf: leaf + 1, average)
  state = State(jnp.array(7, jnp.int32), params=params, opt_state={}, average=average)
  with open_checkpoints(workdir, config.train.checkpoints) as checkpoints:
    checkpoints.save(state, {'step': 7, 'notes': {'latents': LATENTS, 'words': {'ul2': 'a1b2'}}})
  return average


@pytest.fixture(scope='module', params=CONFIGS)
def place(request, tmp_path_factory):
  """A run, run/, and what is exported of it, out.safetensors."""
  place = tmp_path_factory.mktemp(request.param)
  a_run(CONFIGS[request.param](place), place / 'run')
  export_weights(place / 'run', place / 'out.safetensors')
  return place


def other(place):
  """A configuration of the same part, of other sizes, that computes in other ways."""
  config = CONFIGS[read_config(place / 'run').component](place)
  config.model.dim, config.model.depth, config.model.remat = 32, 3, 'attention'
  config.sample.steps = 5
  return config


def test_exported_and_imported_every_bit_is_the_same(place, tmp_path):
  import_weights(other(place), place / 'out.safetensors', tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'again.safetensors')
  first, second = load_file(place / 'out.safetensors'), load_file(tmp_path / 'again.safetensors')
  average, meta = load_params(place / 'run')
  trained, again = load_params(tmp_path / 'run', 'params')
  for found in (first, second, named_leaves(trained)):
    assert_same(found, named_leaves(average))
  assert again['notes'] == meta['notes'] and again['step'] == 0


def test_the_model_is_the_file_s_and_how_it_is_computed_the_configuration_s(place, tmp_path):
  import_weights(other(place), place / 'out.safetensors', tmp_path / 'run')
  one, two = (read_config(path / 'run') for path in (place, tmp_path))
  assert two.model.remat == 'attention' and two.sample.steps == 5
  two.model.remat, two.sample.steps = one.model.remat, one.sample.steps
  assert two.to_json() == one.to_json()


@pytest.mark.slow
def test_a_trained_model_samples_the_same_after_a_move(tmp_path):
  """By files alone: autoencoder and model, on the way to a machine that never saw the runs."""
  (tmp_path / 'runs').mkdir()
  runs, moved = tiny.make_runs(tmp_path / 'runs'), tmp_path / 'moved'
  for name, config in (('autoencoder', tiny.autoencoder()), ('video', tiny.video(moved))):
    export_weights(runs / name, tmp_path / f'{name}.safetensors')
    import_weights(config, tmp_path / f'{name}.safetensors', moved / name)
  one, two = (VideoPipeline(path / 'video').generate(['a']) for path in (runs, moved))
  np.testing.assert_array_equal(one, two)
