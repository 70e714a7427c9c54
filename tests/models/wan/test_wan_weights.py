"""Wan's files in and out of work directories: names, sizes, types, every bit."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.wan import text_to_video
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.models.wan import names
from mgjax.models.wan.published import LATENTS
from mgjax.training.checkpoints.load_params import load_params
from tests.oracles import wan as oracle
from tests.tensors import assert_same
from tests.torch_files import Storage, dumps, tensor, write

TORCH = {'float32': 'FloatStorage', 'float16': 'HalfStorage', 'bfloat16': 'BFloat16Storage'}


def drawn(model, layout='diffusers', dtype='float32'):
  """Tensors of an oracle by the names of a layout."""
  with np.load(oracle.VECTORS) as file:
    shapes = json.loads(str(file[f'{model}/shapes']))
  tensors = {name: oracle.draw(name, tuple(shape)).astype(dtype) for name, shape in shapes.items()}
  return tensors if layout == 'diffusers' else {to_original(n): t for n, t in tensors.items()}


def to_original(name):
  """The name in the original's layout of a tensor of diffusers' transformer."""
  for row in names.ROWS:
    for layer in range(3):
      theirs = [each.replace('{layer}', str(layer)) for each in row.names]
      if name == theirs[0]:
        return theirs[-1]
  raise KeyError(name)


def config_of(model='text_to_video', **more):
  fields = oracle.TRANSFORMERS[model] | {'text_dim': oracle.TEXT}
  config = text_to_video.get_config('debug')
  config.model.update(fields)
  config.model.conditionings.text.features = oracle.TEXT
  config.update(more)
  return config


def torch_file(path, tensors):
  """A file as torch.save writes it."""
  found, storages = {}, []
  for key, (name, array) in enumerate(tensors.items()):
    steps = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    storage = Storage(TORCH[str(array.dtype)], key, array.size)
    found[name] = tensor(storage, 0, array.shape, tuple(steps))
    storages.append(array)
  return write(path, dumps(found), storages)


def shards(folder, tensors):
  """Two files with an index, as published."""
  folder.mkdir(exist_ok=True)
  where = {}
  for part, chosen in enumerate([[*tensors][::2], [*tensors][1::2]], 1):
    file = f'diffusion_pytorch_model-0000{part}-of-00002.safetensors'
    save_file({name: tensors[name] for name in chosen}, folder / file)
    where |= dict.fromkeys(chosen, file)
  index = folder / 'diffusion_pytorch_model.safetensors.index.json'
  index.write_text(json.dumps({'metadata': {}, 'weight_map': where}))
  return folder


def one_file(path, tensors):
  save_file(tensors, path)
  return path


def imported(source, workdir, **more):
  import_weights(config_of(**more), source, workdir)
  return load_params(workdir)


SOURCES = {
  'shards of diffusers': lambda path, dtype: shards(
    path / 'transformer', drawn('text_to_video', 'diffusers', dtype)
  ),
  'shards of the original': lambda path, dtype: shards(
    path / 'wan', drawn('text_to_video', 'original', dtype)
  ),
  'one file': lambda path, dtype: one_file(
    path / 'wan.safetensors', drawn('text_to_video', 'original', dtype)
  ),
  'one file with a prefix': lambda path, dtype: one_file(
    path / 'wan.safetensors',
    {
      f'model.diffusion_model.{name}': array
      for name, array in drawn('text_to_video', 'original', dtype).items()
    },
  ),
  'a file of PyTorch': lambda path, dtype: torch_file(
    path / 'wan.pth', drawn('text_to_video', 'original', dtype)
  ),
}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('source', SOURCES)
def test_a_transformer_goes_through_bit_by_bit_in_both_layouts(source, dtype, tmp_path):
  keep = dtype != 'float32'
  params, meta = imported(SOURCES[source](tmp_path, dtype), tmp_path / 'run', keep_type=keep)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params['backbone'])} == {dtype}
  assert params['text']['null'].shape == (oracle.TEXT,)
  assert meta['notes']['latents'] == LATENTS[16].as_dict()
  for layout in ('diffusers', 'original'):
    export_weights(tmp_path / 'run', tmp_path / layout, layout)
    file = tmp_path / layout / 'diffusion_pytorch_model.safetensors'
    assert_same(load_file(file), drawn('text_to_video', layout, dtype))
