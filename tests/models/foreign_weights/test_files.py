"""Weights of one file or several: all that an index says is there, and every file is known."""

import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.models.foreign_weights.files import read_weights
from tests.tensors import assert_same

TENSORS = {'a': np.ones((2, 3), np.float32), 'b': np.ones(4, jnp.bfloat16), 'ids': np.arange(5)}
INDEX = 'model.safetensors.index.json'


def shards(folder, weight_map=None):
  """Two files with an index."""
  folder.mkdir(exist_ok=True)
  save_file({'a': TENSORS['a']}, folder / 'model-1-of-2.safetensors')
  save_file({name: TENSORS[name] for name in ('b', 'ids')}, folder / 'model-2-of-2.safetensors')
  where = {'a': 'model-1-of-2.safetensors', 'b': 'model-2-of-2.safetensors'}
  where = where | {'ids': where['b']} if weight_map is None else weight_map
  (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': where}))
  return folder


def check(weights, *files):
  assert_same(weights.tensors, TENSORS)
  assert weights.types() == {'a': 'float32', 'b': 'bfloat16', 'ids': 'int64'}
  digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
  assert weights.digests() == digests


def test_one_file_alone_or_in_a_folder(tmp_path):
  save_file(TENSORS, tmp_path / 'model.safetensors')
  save_file(TENSORS, tmp_path / 'model.fp16.safetensors')
  (tmp_path / 'config.json').write_text('{"model_type": "t5"}')
  for source, config in ((tmp_path, {'model_type': 't5'}), (tmp_path / 'model.safetensors', None)):
    weights = read_weights(source)
    check(weights, tmp_path / 'model.safetensors')
    assert weights.config == config


def test_several_files_by_their_index(tmp_path):
  folder = shards(tmp_path / 'model')
  files = [folder / f'model-{i}-of-2.safetensors' for i in (1, 2)]
  check(read_weights(folder), *files)
  check(read_weights(folder / INDEX), *files)
  (folder / 'config.json').write_text('{"model_type": "t5"}')
  assert read_weights(folder / INDEX).config == read_weights(folder).config == {'model_type': 't5'}


@pytest.mark.parametrize(
  ('weight_map', 'message'),
  [
    ({'a': 'model-1-of-2.safetensors', 'b': 'model-3.safetensors'}, r'not there: 1 absent \(mode'),
    ({'a': 'model-1-of-2.safetensors', 'b': 'model-2-of-2.safetensors'}, r'1 more \(ids\)'),
    ({'a': 'model-1-of-2.safetensors', 'c': 'model-1-of-2.safetensors'}, r'1 missing \(c\)'),
    ({'a': '../model.safetensors'}, "is in '../model.safetensors'; expected the name of a file"),
    *((given, 'has no weight_map of tensors and files; get it again') for given in ([1], {})),
    ({'a': 7}, 'says that a is in 7; expected the name of a file beside it'),
    ({'\x1b[31m': None}, r"says that '\\x1b\[31m' is in None"),
    *(({'a': name}, 'names files that are') for name in ('a' * 9000, 'b\0', '..', '.', '')),
  ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, weight_map, message):
  with pytest.raises(ConfigError, match=message):
    read_weights(shards(tmp_path / 'model', weight_map))


def test_folders_without_one_answer_are_refused(tmp_path):
  with pytest.raises(ConfigError, match='has no weights; expected model'):
    read_weights(tmp_path)
  for name in ('one', 'two'):
    save_file(TENSORS, tmp_path / f'{name}.safetensors')
  with pytest.raises(ConfigError, match=r'has one\.safetensors, two\.safetensors and no index'):
    read_weights(tmp_path)


@pytest.mark.parametrize(
  ('data', 'told'),
  [
    (b'<!doctype html><title>404</title>', r'a web page \(HTML\)'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n', 'a pointer of Git LFS'),
  ],
)
@pytest.mark.parametrize('name', ['model-2-of-2.safetensors', INDEX, 'config.json', 'model.bin'])
def test_a_shard_that_was_not_downloaded_is_called_by_its_name(tmp_path, name, data, told):
  folder = shards(tmp_path / 'model')
  (folder / name).write_bytes(data)
  with pytest.raises(ConfigError, match=f'{name}.* is {told}, not'):
    read_weights(folder / name if name == 'model.bin' else folder)
