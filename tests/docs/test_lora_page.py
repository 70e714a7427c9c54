"""docs/tutorials/lora.md: its table of included models, and the configuration that it prints."""

import pathlib
import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import mgjax
from mgjax.core.configuration.config_files import load_config
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.registry import make_spec

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
WEIGHTS = CHECKOUT / 'mgjax/weights'
TEXT = (CHECKOUT / 'docs/tutorials/lora.md').read_text()
INCLUDED = sorted(
  path.parent.relative_to(WEIGHTS).as_posix() for path in WEIGHTS.rglob('config.json')
)
# Of each kind of row; the others are slow.
QUICK = ('digits/video', 'digits/few_steps', 'digits/codec')
MODELS = [
  name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in INCLUDED
]
pytestmark = pytest.mark.usefixtures('on_one_device')


def rows():
  """Whether a model reads files of adapters, by name, of the rows that name models."""
  found = {}
  table = TEXT.partition('| Included model')[2].partition('\n\n')[0]
  for line in re.findall(r'^\| (?=`)(.*) \|$', table, re.M):
    names, reads, trains = line.split(' | ')
    assert trains.startswith('yes')
    for name in re.findall(r'`(\w+/\w+)`', names):
      found[name] = reads == 'yes'
    if 'autoencoders and codecs' in names:
      found |= {name: False for name in INCLUDED if re.search(r'(autoencoder|codec)$', name)}
  return found


@pytest.fixture(scope='module')
def adapters_config(tmp_path_factory):
  (body,) = re.findall(r'^```python title="configs/adapters.py"\n(.*?)^```$', TEXT, re.M | re.S)
  path = tmp_path_factory.mktemp('configs') / 'adapters.py'
  path.write_text(body)
  return path


def test_the_table_has_every_included_model():
  assert sorted(rows()) == INCLUDED


@pytest.mark.parametrize('name', MODELS)
def test_an_included_model_takes_adapters_as_the_table_says(name, adapters_config, tmp_path):
  spec = make_spec(load_config(f'{adapters_config}:{name}'), tmp_path)
  shapes = named_leaves(nn.unbox(jax.eval_shape(spec.adapters.init, jax.random.key(0))))
  module = next(
    key.removesuffix('/kernel/lora_a')
    for key, leaf in shapes.items()
    if key.endswith('/lora_a') and (leaf.ndim == 2 or not rows()[name])
  )
  inputs, outputs = (shapes[f'{module}/kernel/lora_{side}'].shape for side in 'ab')
  file = tmp_path / 'style.safetensors'
  a, b = (np.full(shape, 0.01, 'f4') for shape in ((8, inputs[0]), (outputs[-1], 8)))
  place = f'diffusion_model.{module.replace("/", ".")}.lora_'
  save_file({f'{place}A.weight': a, f'{place}B.weight': b}, file)
  if rows()[name]:
    mgjax.load(name, lora=f'{file}:0.5')
  else:
    with pytest.raises(ConfigError, match='lora is no option'):
      mgjax.load(name, lora=str(file))
