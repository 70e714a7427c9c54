"""Models of videos and of sound in and out of work directories: every bit, and what they make."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mgjax.checkpoints.workdir import load_params, open_checkpoints, read_config
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.flow_models.build import make_flow_model
from mgjax.flow_models.conditions import small_inputs
from mgjax.training.state import State
from mgjax.video.pipeline import VideoPipeline
from mgjax.workflows.weights import export_weights, import_weights
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


def test_what_is_no_such_file_is_a_sentence(place, tmp_path):
  config = read_config(place / 'run')
  values = load_file(place / 'out.safetensors')
  with safe_open(place / 'out.safetensors', 'numpy') as file:
    header = json.loads(file.metadata()['mgjax'])
  name = next(iter(values))
  wrong = header['model'] | {'conditionings': {'text': {'kind': 'os.path.join'}}}
  another = header['model'] | {'heads': 0}
  cases = {
    'is not of launch.weights export; nothing else': (values, None),
    r'1 missing \(': ({key: x for key, x in values.items() if key != name}, header),
    r'1 unknown \(more': (values | {'more': np.ones(2, np.float32)}, header),
    'unknown conditioning os.path.join': (values, header | {'model': wrong}),
    'does not know the model that the header of the file': (values, header | {'model': another}),
    'the statistics of the latents are': (values, header | {'latents': {'mean': 4}}),
    "holds the component 'voice'; expected": (values, header | {'component': 'voice'}),
  }
  sizes = ('dim', 10**12), ('depth', -1), ('positions', [2] * 10**4), ('epsilon', float('nan'))
  for field, value in (*sizes, ('mlp_dim', '9' * 5000), ('heads', True), ('patch', [[[1]]])):
    cases[rf'model\.{field}.* = .*(expected|at most)|does not know .*Error'] = (
      values, header | {'model': header['model'] | {field: value}},
    )  # fmt: skip
  for field, value in (('depth', 10**4), ('length', 10**9), ('\x1b', 1)):
    text = header['model']['conditionings']['text'] | {field: value}
    told = header['model'] | {'conditionings': header['model']['conditionings'] | {'text': text}}
    cases[f'conditionings.text(.{field} = | has the field .*x1b)'] = (
      values, header | {'model': told},
    )  # fmt: skip
  for note in ({'encoders': 7}, {'more': float('inf')}, {'more': [[[[[1]]]]]}, {'model': []}):
    cases[f'the header of .* is damaged .*{next(iter(note))} = {next(iter(note.values()))!r:.1}'
          .replace('[', r'\[')] = (values, header | note)  # fmt: skip
  cases['nested too deep'] = (values, '[' * 10**5)
  for message, (tensors, told) in cases.items():
    path = tmp_path / 'bad.safetensors'
    told = told if told is None or isinstance(told, str) else json.dumps(told)
    save_file(tensors, path, {'mgjax': told} if told else {})
    with pytest.raises(ConfigError, match=message):
      import_weights(config, path, tmp_path / 'run')
  with pytest.raises(ConfigError, match=r'is not of launch\.weights export; nothing else'):
    import_weights(config, tmp_path, tmp_path / 'run')
  assert [path.name for path in tmp_path.iterdir()] == ['bad.safetensors']
  with pytest.raises(
    ConfigError, match=r"no format 'diffusers' for the component .*; expected mgjax or workdir, or"
  ):
    export_weights(place / 'run', tmp_path / 'out', 'diffusers')


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
