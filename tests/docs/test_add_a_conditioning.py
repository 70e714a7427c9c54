"""The exercise of docs/how_to/add_a_conditioning.md, done as it is written."""

import importlib
import json
import math
import pathlib
import re
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import configs.digits
import mgjax.models.conditioning
from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.records.reader import Records
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import prepare_samples
from mgjax.registry import make_spec
from mgjax.sections.flow.requests import read_prompts
from mgjax.sections.video.pipeline import VideoPipeline
from tests import test_size, tiny
from tests.random_parameters import random_parameters

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/how_to/add_a_conditioning.md').read_text()
BLOCKS = re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
FILES = {title: body for title, body in BLOCKS if title}
pytestmark = pytest.mark.usefixtures('on_one_device')

PROMPTS = ('red', 'the blue digit 3', 'no colour')


@pytest.fixture(scope='module', autouse=True)
def written(tmp_path_factory):
  """The written files, in a folder of their own, are part of their packages."""
  folder = tmp_path_factory.mktemp('written')
  with pytest.MonkeyPatch.context() as patch:
    for title, body in FILES.items():
      file = folder / title
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(body)
    for package in (mgjax.models.conditioning, configs.digits):
      place = str(folder / package.__name__.replace('.', '/'))
      patch.setattr(package, '__path__', [*package.__path__, place])
    yield folder
  for title in FILES:
    sys.modules.pop(title.removesuffix('.py').replace('/', '.'), None)


def test_its_files_fit_the_budgets_of_their_packages():
  added = {}
  for title, body in FILES.items():
    path = pathlib.PurePath(title)
    if path.parts[0] == 'mgjax':
      package = test_size.package_of(path.relative_to('mgjax'))
      read = test_size.read(body)
      size = test_size.Size(read.tokens, read.names, 1)
      added[package] = test_size.add(added.get(package) or test_size.measure(package), size)
  assert added
  for package, size in added.items():
    assert not test_size.excess(package, size)


@pytest.fixture(scope='module')
def labelled(written):
  return importlib.import_module('configs.digits.labelled')


def small(labelled):
  """The written configuration with a tiny budget."""
  config = labelled.get_config()
  shrunk = {key: value for key, value in tiny.VIDEO.items() if 'buckets.video' not in key}
  budget = {'train.steps': 3, 'train.validation_batches': 0, 'encode.train': 16}
  config.update_from_flattened_dict(shrunk | budget)
  return config


@pytest.fixture(scope='module')
def case(labelled):
  """The label, a velocity with it and one without, and parameters as training might leave them."""
  config = small(labelled)
  model = make_flow_model(config.model.to_dict())
  (label,) = (each for each in model.conditionings if each.name == 'colour')
  del config.model.conditionings.colour
  without = make_flow_model(config.model.to_dict())
  batch = prepare_samples(model, [{'caption': prompt} for prompt in PROMPTS])
  x = jax.random.normal(jax.random.key(0), (len(PROMPTS), 1, 4, 4, 4))
  inputs = (x, jnp.array([0.1, 0.5, 0.9]), batch)
  params = random_parameters(model.init, *inputs, {})
  rest = {name: tree for name, tree in params.items() if name != 'colour'}
  plain = jax.jit(without.apply)({'params': rest}, *inputs, {})
  apply = jax.jit(model.apply)

  def velocity(params, drop):
    return apply({'params': params}, *inputs, {'colour': jnp.array(drop)})

  return types.SimpleNamespace(
    label=label, batch=batch, params=params, plain=plain, velocity=velocity
  )


def close(ours, plain):
  # Two programs of the same sums: some hundred roundings apart.
  np.testing.assert_allclose(ours, plain, atol=100 * 2**-23 * np.abs(plain).max())


def test_one_new_file_is_enough():
  added = [title for title in FILES if title.startswith('mgjax/')]
  assert added == [
    'mgjax/models/conditioning/colour_label.py',
    'mgjax/models/conditioning/first_frame.py',
  ]
  others = ['configs/digits/first_frame.py', 'configs/digits/labelled.py']
  assert sorted(FILES) == sorted([*added, *others])
  for title in FILES:
    assert f'`{title}`' in TEXT


def test_a_caption_becomes_its_label(case):
  np.testing.assert_array_equal(case.batch['colour'], [0, 2, 4])


def test_a_dropped_label_is_no_label(case):
  ours = case.velocity(case.params, [True, False, True])
  close(ours[::2], case.plain[::2])
  assert np.abs(ours[1] - case.plain[1]).max() > 1e-3 * np.abs(case.plain).max()


def test_an_untrained_label_changes_nothing(case):
  keep = jnp.zeros(len(PROMPTS), bool)
  fresh = case.label.init(jax.random.key(0), case.batch, keep, (1, 4, 4, 4))
  close(case.velocity(case.params | {'colour': nn.unbox(fresh)['params']}, [False] * 3), case.plain)


@pytest.mark.slow
def test_it_trains_and_shows_its_scales(labelled, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = small(labelled)
  train(tiny.autoencoder(), config.autoencoder, stop_at=1)
  encode(config, config.data.latents)
  workdir = pathlib.Path(re.search(r'--workdir=(\S+)', TEXT)[1])
  train(config, workdir)
  losses = [row['loss'] for row in tiny.metrics(workdir) if 'loss' in row]
  assert len(losses) == 3
  assert all(map(math.isfinite, losses))
  look = next(body for title, body in BLOCKS if not title)
  exec(compile(look, 'docs/how_to/add_a_conditioning.md', 'exec'), {})
  assert pathlib.Path('runs/labelled/scales.png').exists()


@pytest.fixture(scope='module')
def first_frame(tiny_runs, on_one_device, tmp_path_factory):
  """The configuration of first frames, tiny, on latents of its own; and where they are."""
  config = importlib.import_module('configs.digits.first_frame').get_config()
  runs = tmp_path_factory.mktemp('first_frame')
  shrunk = {key: value for key, value in tiny.VIDEO.items() if 'buckets.image' not in key}
  config.update_from_flattened_dict(
    shrunk
    | {
      'autoencoder': str(tiny_runs / 'autoencoder'),
      'start_from': str(tiny_runs / 'video'),
      'data.latents': str(runs / 'latents'),
      'train.steps': 4,
    }
  )
  encode(config, config.data.latents)
  return config, runs


def batches_of(config, workdir):
  """What the model is trained on, of the same four clips whatever they are read from."""
  spec = make_spec(config, workdir)
  bucket = spec.validation[0]
  rows = [bucket.transform(bucket.source[index]) for index in range(4)]
  return spec.prepare({name: np.stack([row[name] for row in rows]) for name in rows[0]})


def test_a_first_frame_is_encoded_beside_its_video_stored_or_on_the_fly(first_frame, tmp_path):
  config, runs = first_frame
  records = Records(runs / 'latents' / 'train' / 'video')
  assert records.meta['clips'] == {'first_frame': [1, 4, 4, 4]}
  assert records[0]['first_frame'].shape == (1, 4, 4, 4)
  stored = batches_of(config, tmp_path)
  fresh = batches_of(tiny_copy(config, {'data.latents': ''}), tmp_path)
  assert stored.keys() == fresh.keys() == {'latents', 'text', 'first_frame'}
  for name in ('latents', 'first_frame'):  # latents on disk are bfloat16
    np.testing.assert_allclose(stored[name], fresh[name], rtol=2**-8, atol=1e-4)


def test_latents_without_first_frames_are_refused(first_frame, tiny_runs, tmp_path):
  config = tiny_copy(first_frame[0], {'data.latents': str(tiny_runs / 'latents')})
  with pytest.raises(DataError, match=r'clips.*encode the data again'):
    make_spec(config, tmp_path)


def tiny_copy(config, changes):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope='module')
def sampler(first_frame):
  """A model that went on with first frames; its projection is no longer zero."""
  config, runs = first_frame
  train(config, runs / 'video')
  return VideoPipeline(runs / 'video')


def test_a_picture_is_given_as_an_array_a_file_or_one_for_each(sampler, tmp_path):
  pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
  files = [tmp_path / f'{index}.png' for index in range(2)]
  for file, picture in zip(files, pictures, strict=True):
    Image.fromarray(picture).save(file)
  options = {'seed': 3, 'shape': (4, 16, 16)}
  arrays = sampler.generate(['a', 'b'], first_frame=pictures, **options)
  np.testing.assert_array_equal(sampler.generate(['a', 'b'], first_frame=files, **options), arrays)
  same = sampler.generate(['a', 'b'], first_frame=str(files[0]), **options)
  np.testing.assert_array_equal(same[0], arrays[0])
  assert (same[1] != arrays[1]).any()
  without = sampler.generate(['a', 'b'], **options)
  half = sampler.generate(['a', 'b'], first_frame=[None, files[1]], **options)
  np.testing.assert_array_equal(half[1], arrays[1])
  np.testing.assert_array_equal(half[0], without[0])
  assert (without[1] != arrays[1]).any()


@pytest.mark.parametrize(
  ('conditions', 'said'),
  [
    (
      {'last_frame': 'a.png'},
      'last_frame is no option of a video model: .* not trained to read it',
    ),
    ({'first_frame': 'none.png'}, 'there is no file'),
    ({'first_frame': ['a.png'] * 3}, '3 values .* for 2 samples'),
    ({'first_frame': np.zeros((8, 8, 3), np.uint8)}, r'uint8 .* of shape \(1, 16, 16, 3\)'),
    ({'first_frame': np.zeros((16, 16, 3))}, 'is float64'),
    ({'first_frame': np.zeros(3, np.uint8)}, 'has 1 axes; expected 4'),
  ],
)
def test_a_condition_that_cannot_be_is_refused(sampler, conditions, said):
  with pytest.raises((ConfigError, DataError), match=said):
    sampler.generate(['a', 'b'], shape=(4, 16, 16), **conditions)


def test_a_list_of_prompts_has_a_picture_on_each_line(sampler, written, tmp_path):
  Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(tmp_path / 'a.png')
  rows = [{'prompt': 'x', 'first_frame': str(tmp_path / 'a.png')}, {'prompt': 'y'}]
  listed = tmp_path / 'list.jsonl'
  listed.write_text('\n'.join(map(json.dumps, rows)))
  prompts, conditions = read_prompts(listed)
  assert prompts == ['x', 'y'] and conditions == {'first_frame': [rows[0]['first_frame'], None]}
  paths = sampler.save(prompts, tmp_path / 'out', shape=(4, 16, 16), **conditions)
  record = json.loads(paths[-1].read_text())
  assert record['conditions'] == conditions
  listed.write_text('{"prompt": 3}')
  with pytest.raises(DataError, match=r'line 1 of .* has no "prompt"'):
    read_prompts(listed)
