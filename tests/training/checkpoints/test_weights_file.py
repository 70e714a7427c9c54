"""Files of finished weights: what is damaged or of another model is refused, by its name."""

import functools
import json
import os
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save

import mgjax
from mgjax.apps.weights.import_export import import_weights
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.safetensors_files import read_metadata, read_tensors
from mgjax.lab.worlds.solids.judges import video
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.training.checkpoints.find_run import SHIPPED
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE
from mgjax.training.checkpoints.workdir import open_checkpoints
from tests import binaries

JUDGES = pathlib.Path(video.__file__).parent
PROMPT = ['the green digit 3 moves left']
UP = 'backbone/layers/feed_forward/up/kernel'


def rewritten(place, change=lambda tensors: tensors, about=lambda header: header):
  """Changes the tensors and the header of a file of weights."""
  tensors, header = (
    load_file(place / WEIGHTS_FILE),
    json.loads(read_metadata(place / WEIGHTS_FILE)['mgjax']),
  )
  data = save(change(dict(tensors)), {'mgjax': json.dumps(about(header))})
  (place / WEIGHTS_FILE).write_bytes(data)
  return place


@pytest.fixture
def model(tmp_path):
  """A copy of a model that ships: kernels in int8 with scales, other tensors in bfloat16."""
  return shutil.copytree(SHIPPED / 'digits' / 'few_steps', tmp_path / 'model')


def spoilt(tensor, value):
  tensor = tensor.copy()
  tensor.reshape(-1)[tensor.size // 2] = value
  return tensor


def renamed(name):
  """With the scales that a tensor in int8 has under its name."""
  new = {name: 'x', f'{name}:scale': 'x:scale'}
  return lambda tensors: {new.get(each, each): t for each, t in tensors.items()}


def replaced(name, make):
  return lambda tensors: tensors | {name: make(tensors[name])}


@pytest.mark.parametrize('run', ['digits/few_steps', 'solids/codec'])
def test_one_number_that_is_not_finite_is_refused_whichever_tensor_it_is_in(run, tmp_path):
  """Scales of int8 kernels too, which stand under two names."""
  place = shutil.copytree(SHIPPED / run, tmp_path / 'model')
  whole, tensors = (place / WEIGHTS_FILE).read_bytes(), load_file(place / WEIGHTS_FILE)
  names = [name for name in tensors if tensors[name].dtype != np.int8]
  assert len(names) > 30 and any(name.endswith(('kernel/scale', ':scale')) for name in names)
  for index, name in enumerate(names):
    value = (np.nan, np.inf, -np.inf)[index % 3]
    rewritten(place, replaced(name, functools.partial(spoilt, value=value)))
    with pytest.raises(
      ConfigError, match=rf"^{name} in '.*{WEIGHTS_FILE}' has NaN or infinite numbers"
    ):
      load_params(place)
    (place / WEIGHTS_FILE).write_bytes(whole)
  load_params(place)


def test_the_command_ends_with_the_sentence(model):
  rewritten(model, replaced(f'{UP}/scale', functools.partial(spoilt, value=np.nan)))
  done = binaries.run(
    'sample', 'video', f'--workdir={model}', f'--prompt={PROMPT[0]}', f'--out={model}.mp4'
  )
  assert done.returncode == ConfigError.exit_code
  assert f'{UP}/scale in ' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('backbone/norm/scale', None, r'is missing, expected shape \(128,\)'),
    ('text/table', None, r'is missing, expected shape \(384, 64\)'),
    (f'{UP}/scale', None, r'is missing, expected shape \(384,\)'),
    ('backbone/norm/scale', lambda t: t[:1], r'is of shape \(1,\), expected shape \(128,\)'),
    ('step_size/out/kernel', lambda t: t[1:], r'is of shape \(127, 128\), expected shape'),
    (f'{UP}/scale', lambda t: t[:, :1], r'is of shape \(1,\), expected shape \(384,\)'),
    (f'{UP}/quantised', lambda t: t[:, 1:], r'is of shape \(127, 384\), expected shape'),
    (f'{UP}/quantised', lambda t: t[1:], r'is of shape \(3, 128, 384\), expected 4 layers'),
  ],
)
def test_tensors_of_another_model_are_refused_before_they_are_used(model, name, change, message):
  """Renamed where there is no change."""
  rewritten(model, renamed(name) if change is None else replaced(name, change))
  with pytest.raises(
    CheckpointError, match=f'^the weights are not of this model: {name} {message}'
  ):
    mgjax.load(model).generate(PROMPT)


@pytest.mark.parametrize(
  ('name', 'make', 'message'),
  [
    (f'{UP}/scale', lambda t: np.full_like(t, 3e38), 'has the scale 3e.38, which makes numbers'),
    ('text/table:scale', lambda t: np.full_like(t, 3e38), 'which makes numbers that are not fin'),
    (f'{UP}/scale', np.negative, 'has the scale -.*expected scales of at least 0'),
    ('text/table:scale', np.negative, 'has the scale -.*expected scales of at least 0'),
    ('text/table', lambda t: t.astype(np.int64), 'is of int64 and has scales of'),
    ('text/table:scale', lambda t: t.astype(np.int8), 'is of int8 and has scales of int8'),
  ],
)
def test_scales_that_make_no_finite_numbers_or_are_none_are_refused(model, name, make, message):
  rewritten(model, replaced(name, make), lambda header: header | {'checksums': None})
  with pytest.raises((CheckpointError, ConfigError), match=message):
    mgjax.load(model).generate(PROMPT)
  found = binaries.run('weights', 'verify', f'--workdir={model}')
  assert found.returncode == CheckpointError.exit_code
  assert re.search(message, found.stdout + found.stderr) and 'Traceback' not in found.stderr


def test_what_has_scales_of_its_own_is_not_scaled_twice(model):
  add = {f'{UP}/quantised:scale': np.full(384, 2, np.float32)}
  rewritten(model, lambda tensors: tensors | add, lambda header: header | {'checksums': None})
  with pytest.raises((CheckpointError, ConfigError), match='scale'):
    mgjax.load(model).generate(PROMPT)


def test_a_configuration_of_more_layers_is_refused(model):
  config = json.loads((model / 'config.json').read_text())
  config['model']['depth'] += 1
  (model / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ConfigError, match=r'is not of weights\.safetensors beside it: model\.depth'):
    mgjax.load(model)
  # A header that describes no model leaves it to the tensors.
  rewritten(model, about=lambda header: {k: v for k, v in header.items() if k != 'model'})
  with pytest.raises(CheckpointError, match=rf'expected {config["model"]["depth"]} layers as its'):
    mgjax.load(model).generate(PROMPT)


def test_an_autoencoder_of_other_shapes_is_refused(tmp_path):
  place = shutil.copytree(SHIPPED / 'digits' / 'autoencoder', tmp_path / 'autoencoder')
  name = next(each for each in load_file(place / WEIGHTS_FILE) if each.startswith('decoder/'))
  rewritten(place, renamed(name))
  codec = load_codec(place)
  latents = jnp.zeros((1, 1, 2, 2, len(codec.statistics.mean)))
  with pytest.raises(CheckpointError, match=r'^the weights are not of this model: decoder/'):
    codec.decode(latents)


@pytest.mark.parametrize(
  ('change', 'about', 'message'),
  [
    (replaced('backbone/norm/scale', lambda t: t.astype(np.int32)), {}, 'is of I32; expected BF16'),
    (replaced('backbone/norm/scale', lambda t: t.astype(np.int8)), {}, 'is of I8; expected BF16'),
    (renamed(f'{UP}/quantised'), {}, '^x in .* is of I8; expected BF16'),
    (
      lambda t: t | {'backbone/norm/scale/x': t['backbone/norm/scale']},
      {},
      'as a group of tensors',
    ),
    (lambda t: t, {'step': None}, 'step is None; expected int'),
    (lambda t: t, {'version': 3}, 'version is 3; expected str'),
  ],
)
def test_a_header_that_describes_no_weights_is_a_sentence(model, change, about, message):
  rewritten(model, change, lambda header: header | about)
  with pytest.raises(ConfigError, match=message):
    load_params(model)


def test_shapes_that_are_asked_for_are_compared_with_those_of_the_file(model):
  wanted = jax.eval_shape(lambda: load_params(model)[0])
  checkpoints = open_checkpoints(model)
  checkpoints.restore_params(wanted)
  wanted['backbone']['norm']['scale'] = jax.ShapeDtypeStruct((3,), jnp.float32)
  with pytest.raises(CheckpointError, match=r'norm/scale is float32 \(\d+,\) in the check.*\(3,\)'):
    checkpoints.restore_params(wanted)


def shipped_files():
  return [*sorted(SHIPPED.rglob(WEIGHTS_FILE)), *sorted(JUDGES.glob('*.safetensors'))]


@pytest.mark.parametrize('path', shipped_files(), ids=lambda path: '/'.join(path.parts[-4:-1]))
def test_any_byte_that_changed_in_a_file_that_ships_is_found(path, tmp_path):
  """A sample of them: in the header, in the tensors and at both ends."""
  data = path.read_bytes()
  header = 8 + int.from_bytes(data[:8], 'little')
  chance = np.random.default_rng(len(data))
  places = [0, header - 1, header, len(data) - 1]
  places += [*chance.integers(8, header, 4), *chance.integers(header, len(data), 4)]
  copy = tmp_path / WEIGHTS_FILE
  for place in places:
    damaged = bytearray(data)
    damaged[place] ^= chance.integers(1, 256)
    copy.write_bytes(damaged)
    with pytest.raises(ConfigError):
      read_tensors(copy, anything=True)
  read_tensors(path, anything=True)


@pytest.mark.parametrize(('place', 'named'), [(-1000, 'text/'), (900, 'its header')])
def test_verify_and_list_read_exported_shipped_and_local_folders(model, place, named):
  for folder in ('digits/few_steps', model):
    assert binaries.run('weights', 'verify', f'--workdir={folder}').stdout.split() == [
      '8000',
      'good',
    ]
    listed = binaries.run('weights', 'list', f'--workdir={folder}')
    assert listed.returncode == 0 and '8000' in listed.stdout
  data = bytearray((model / WEIGHTS_FILE).read_bytes())
  data[place] ^= 4
  (model / WEIGHTS_FILE).write_bytes(data)
  found = binaries.run('weights', 'verify', f'--workdir={model}')
  assert found.returncode == CheckpointError.exit_code
  assert f'is damaged: {named}' in found.stdout + found.stderr and 'Traceback' not in found.stderr


def test_verify_reads_the_runs_inside_of_a_folder(tmp_path):
  place = shutil.copytree(SHIPPED / 'digits' / 'upsampler', tmp_path / 'model')
  whole = binaries.finish('weights', 'verify', f'--workdir={place}').stdout
  assert whole.splitlines()[1].endswith('autoencoder: good')
  inner = place / 'autoencoder' / WEIGHTS_FILE
  data = bytearray(inner.read_bytes())
  data[-9] ^= 1
  inner.write_bytes(data)
  found = binaries.run('weights', 'verify', f'--workdir={place}')
  assert found.returncode == CheckpointError.exit_code
  assert 'is damaged: ' in found.stdout and os.fspath(inner.parent) in found.stderr


def test_a_link_that_leads_nowhere_is_told_as_such(model):
  (model / WEIGHTS_FILE).unlink()
  (model / WEIGHTS_FILE).symlink_to('nowhere')
  with pytest.raises(ConfigError, match=f'{WEIGHTS_FILE}.*it is no regular file'):
    mgjax.load(model)


def test_a_folder_that_was_exported_is_imported(tmp_path):
  shipped = SHIPPED / 'digits' / 'autoencoder'
  import_weights(mgjax.config('digits/autoencoder'), shipped, tmp_path / 'run')
  imported, shipped = (load_params(place)[0] for place in (tmp_path / 'run', shipped))
  jax.tree.map(np.testing.assert_array_equal, imported, shipped)
