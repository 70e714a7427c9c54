"""The exercise of docs/how_to/add_a_block.md, done as it is written."""

import importlib
import math
import pathlib
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs.scaling
import mgjax.models.backbone
from mgjax.api import train
from mgjax.core.configuration.keys import flatten
from mgjax.core.errors import ConfigError
from mgjax.models.backbone import transformer
from mgjax.models.conditioning.ports import Ports
from tests import tiny
from tests.random_parameters import random_parameters

TEXT = (pathlib.Path(__file__).parent.parent.parent / 'docs/how_to/add_a_block.md').read_text()
PARTS = re.findall(r'^```python(?: title="([^"]+)")?\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
FILES = {title: body for title, body in PARTS if title}
(ROW,) = [body for title, body in PARTS if not title]
LATENTS = (2, 1, 4, 4, 3)


@pytest.fixture(scope='module', autouse=True)
def written(tmp_path_factory):
  """The written files are part of their packages, and the lines part of the transformer's."""
  folder = tmp_path_factory.mktemp('written')
  with pytest.MonkeyPatch.context() as patch:
    for title, body in FILES.items():
      (folder / title).parent.mkdir(parents=True, exist_ok=True)
      (folder / title).write_text(body)
    for package in (mgjax.models.backbone, configs.scaling):
      place = str(folder / package.__name__.replace('.', '/'))
      patch.setattr(package, '__path__', [*package.__path__, place])
    names = {'Block': transformer.Block}
    exec(ROW, names)
    patch.setattr(transformer, 'BLOCKS', names['BLOCKS'])
    yield
  for title in FILES:
    sys.modules.pop(title.removesuffix('.py').replace('/', '.'), None)


def model(block):
  return transformer.Transformer(16, 2, 2, 32, (1, 2, 2), block=block)


def answer(block):
  network = model(block)
  latents = jax.random.normal(jax.random.key(0), LATENTS)
  inputs = (latents, jnp.full(2, 0.5), Ports(context=jnp.ones((2, 3, 16))))
  params = random_parameters(network.init, *inputs)
  return params, network.apply({'params': params}, *inputs)


def test_it_takes_two_lines_outside_of_its_files():
  assert len([line for line in ROW.splitlines() if line]) == 2
  assert len(FILES) == 2
  for title in FILES:
    assert f'`{title}`' in TEXT


def test_it_has_one_norm_less_and_another_answer():
  usual, parallel = answer('sequential'), answer('parallel')
  count = [sum(leaf.size for leaf in jax.tree.leaves(params)) for params, _ in (usual, parallel)]
  assert count[0] - count[1] == 2 * 16  # the weights of a norm, in two layers
  assert np.isfinite(parallel[1]).all()
  assert (np.asarray(usual[1]) != np.asarray(parallel[1])).any()


def test_every_parameter_has_its_axes():
  shapes = jax.eval_shape(
    model('parallel').init, jax.random.key(0), jnp.ones(LATENTS), jnp.ones(2), Ports()
  )
  boxes = jax.tree.leaves(shapes, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
  assert all(len(box.names) == box.value.ndim for box in boxes)


def test_a_block_that_is_not_there_is_refused_by_name():
  with pytest.raises(ConfigError, match=r"model.block = 'crossed'; expected sequential or parall"):
    answer('crossed')


def test_the_arms_differ_in_their_block_alone():
  arms = importlib.import_module('configs.scaling.blocks').get_config().arms
  one, other = (flatten(arm.to_dict()) for arm in arms.values())
  assert {key for key in one if one[key] != other[key]} == {'model.block'}


@pytest.mark.usefixtures('on_one_device')
def test_a_model_of_such_layers_trains(tiny_runs, tmp_path):
  train(
    tiny.video(tiny_runs, model__block='parallel', train__steps=2, optimizer__warmup=1), tmp_path
  )
  losses = [row['loss'] for row in tiny.metrics(tmp_path) if 'loss' in row]
  assert losses
  assert all(map(math.isfinite, losses))
