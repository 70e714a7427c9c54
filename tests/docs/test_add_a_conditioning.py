"""The exercise of docs/add_a_conditioning.md, done as it is written."""

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

import configs.digits
import mgjax.conditioning
from mgjax.api import train
from mgjax.flow_models.build import make_flow_model, prepare_samples
from mgjax.workflows.encode import encode
from tests import tiny
from tests.random_parameters import random_parameters

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/add_a_conditioning.md').read_text()
BLOCKS = re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
FILES = {title: body for title, body in BLOCKS if title}
PROMPTS = ('red', 'the blue digit 3', 'no colour')


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
  """The module of the written configuration; both files lie in a folder of their own."""
  folder = tmp_path_factory.mktemp('written')
  with pytest.MonkeyPatch.context() as patch:
    for title, body in FILES.items():
      file = folder / title
      file.parent.mkdir(parents=True)
      file.write_text(body)
    for package in (mgjax.conditioning, configs.digits):
      place = str(folder / package.__name__.replace('.', '/'))
      patch.setattr(package, '__path__', [*package.__path__, place])
    yield __import__('configs.digits.labelled', fromlist=['labelled'])
  for name in ('configs.digits.labelled', 'mgjax.conditioning.colour_label'):
    sys.modules.pop(name, None)


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
  assert len(added) == 1
  assert sorted(FILES) == sorted([*added, 'configs/digits/labelled.py'])
  for title in FILES:
    assert f'`{title}`' in TEXT


def test_a_caption_becomes_its_label(case):
  np.testing.assert_array_equal(case.batch['colour'], [0, 2, 4])


def test_a_dropped_label_is_no_label(case):
  ours = case.velocity(case.params, [True, False, True])
  close(ours[::2], case.plain[::2])
  assert np.abs(ours[1] - case.plain[1]).max() > 1e-3 * np.abs(case.plain).max()


def test_an_untrained_label_changes_nothing(case):
  fresh = case.label.init(jax.random.key(0), case.batch, jnp.zeros(len(PROMPTS), bool))
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
  (look,) = [body for title, body in BLOCKS if not title]
  exec(compile(look, 'docs/add_a_conditioning.md', 'exec'), {})
  assert pathlib.Path('runs/labelled/scales.png').exists()
