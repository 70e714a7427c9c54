"""Files of adapters in the forms of other projects, and what kernels they have to make.

The oracle is W + s B A in float64, of DoRA m V / |V| with V = W + s B A.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.nn.lora import merge
from mgjax.sections.flow.lora_files import read_adapters

QUERY, KEY = (f'backbone.layers.{{}}.attention.{name}' for name in ('query', 'key'))
Q0, Q1, K0 = QUERY.format(0), QUERY.format(1), KEY.format(0)
LINEAR, CONV = 'head', 'patch'
SHAPES = {
  'backbone/layers/attention/query/kernel': (2, 8, 6),
  'backbone/layers/attention/key/kernel': (2, 8, 8),
  'head/kernel': (8, 4),
  'head/bias': (4,),
  'patch/kernel': (2, 3, 5, 8),
}


def make_base():
  random = np.random.default_rng(0)
  return nest({name: random.normal(size=shape).astype('f4') for name, shape in SHAPES.items()})


def place(module):
  """The kernel of a map, and its layer."""
  if '.layers.' in module:
    layer = int(module.split('.')[2])
    return module.replace(f'.{layer}.', '.').replace('.', '/') + '/kernel', layer
  return f'{module}/kernel', ...


def kernel_of(base, module):
  """The kernel as PyTorch has it, (out, in) or (out, in, h, w), in float64."""
  name, layer = place(module)
  kernel = np.asarray(named_leaves(base)[name], np.float64)[layer]
  return np.moveaxis(kernel, (-1, -2), (0, 1))


def factors(base, modules, rank=4, dtype=np.float32, seed=1):
  """A and B of maps in PyTorch's order."""
  random = np.random.default_rng(seed)
  found = {}
  for module in modules:
    out, inputs, *window = kernel_of(base, module).shape
    a = random.normal(size=(rank, inputs, *window)).astype(dtype)
    found[module] = a, random.normal(size=(out, rank, *[1] * len(window))).astype(dtype)
  return found


def change(pair):
  a, b = (np.asarray(each, np.float64) for each in pair)
  return np.tensordot(b.reshape(len(b), -1), a, 1)


def named(pairs, form='transformer.{}.lora_{}.weight', names='AB'):
  return {
    form.format(module, name): each
    for module, pair in pairs.items()
    for name, each in zip(names, pair, strict=True)
  }


def check_merged(base, path, wanted):
  """The file changes these kernels into those wanted, in PyTorch's order, and no other."""
  merged = named_leaves(merge(read_adapters(path, base), base))
  expected = {name: np.array(leaf, np.float64) for name, leaf in named_leaves(base).items()}
  for module, kernel in wanted.items():
    name, layer = place(module)
    expected[name][layer] = np.moveaxis(kernel, (0, 1), (-1, -2))
  for name, kernel in expected.items():
    np.testing.assert_allclose(merged[name], kernel, rtol=1e-5, atol=1e-5, err_msg=name)


def check_scaled(base, path, pairs, scale):
  scale = scale if callable(scale) else lambda module, scale=scale: scale
  wanted = {m: kernel_of(base, m) + scale(m) * change(pair) for m, pair in pairs.items()}
  check_merged(base, path, wanted)


def refused(base, path, said):
  with pytest.raises(ConfigError, match=said) as caught:
    read_adapters(path, base)
  assert str(caught.value).isprintable() and len(str(caught.value)) < 1500


def write_peft(folder, tensors, **settings):
  folder.mkdir(exist_ok=True)
  save_file(tensors, folder / 'adapter_model.safetensors')
  config = {'peft_type': 'LORA', 'r': 4, 'lora_alpha': 7, 'bias': 'none', **settings}
  (folder / 'adapter_config.json').write_text(json.dumps(config))
  return folder


def peft_of(pairs):
  return named(pairs, 'base_model.model.{}.lora_{}.weight')


def of_peft(tmp_path, base, where, settings, modules=(Q0, Q1, K0, LINEAR)):
  """The same adapters and settings as a folder of peft, or as a file of diffusers."""
  pairs = factors(base, modules)
  if where == 'peft':
    return write_peft(tmp_path / 'out', peft_of(pairs), **settings), pairs
  settings = {'r': 4, 'lora_alpha': 7, **settings}
  said = json.dumps({f'transformer.{field}': value for field, value in settings.items()})
  save_file(named(pairs), tmp_path / 'out.safetensors', {'lora_adapter_metadata': said})
  return tmp_path / 'out.safetensors', pairs
