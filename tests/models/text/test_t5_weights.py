"""Published encoders in and out of work directories: names, sizes, types, every bit."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.text import t5_base, ul2
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.text.t5 import make_t5
from mgjax.models.text.t5_weights import t5_config, t5_fields
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config
from tests.oracles import t5 as oracle
from tests.tensors import assert_same, changed

REST = {'buckets': 32, 'distance': 128, 'bias_in_every_layer': False, 'epsilon': 1e-6}
# Of the whole model, of which the encoder is a part.
DECODER = {'decoder.block.0.layer.0.layer_norm.weight': (24,), 'lm_head.weight': (61, 24)}


def tensors(name, dtype=np.float32):
  with np.load(oracle.VECTORS) as file:
    shapes = json.loads(str(file[f'{name}/shapes']))
  size = oracle.MODELS[name]['head_size']
  return {key: oracle.draw(key, tuple(shape), size).astype(dtype) for key, shape in shapes.items()}


def folder(path, name, dtype=np.float32, **changes):
  """A published folder, as transformers writes them."""
  path.mkdir()
  config = t5_config(REST | oracle.MODELS[name]) | changes
  (path / 'config.json').write_text(json.dumps(config))
  save_file(tensors(name, dtype), path / 'model.safetensors')
  return path


@pytest.mark.parametrize('name', oracle.MODELS)
def test_sizes_are_read_from_tensors_and_config(name):
  fields = REST | oracle.MODELS[name]
  assert t5_fields(tensors(name), t5_config(fields)) == fields
  unseen = ('activation', 'distance', 'epsilon')
  seen = {key: value for key, value in fields.items() if key not in unseen}
  assert t5_fields(tensors(name)) == seen


@pytest.mark.parametrize('number', ['1000000000', '9' * 5000])
def test_a_layer_of_a_great_number_is_one_layer_more(number):
  given = tensors('t5_1_1')
  more = {f'encoder.block.{number}.layer.0.layer_norm.weight': np.ones(1, np.float32)}
  assert t5_fields(given | more)['depth'] == t5_fields(given)['depth'] + 1


@pytest.mark.parametrize('keep', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_an_encoder_goes_back_bit_by_bit(dtype, keep, tmp_path, caplog):
  given = folder(tmp_path / 'given', 't5_1_1', np.dtype(dtype))
  config = t5_base.get_config()
  config.keep_type = keep
  with caplog.at_level('INFO', 'mgjax'):
    import_weights(config, given, tmp_path / 'run')
  assert 'model.heads: 12 -> 5, as the weights need it' in caplog.messages
  made = read_config(tmp_path / 'run')
  assert make_t5(made.model.to_dict()).gated
  params, meta = load_params(tmp_path / 'run')
  assert {str(leaf.dtype) for leaf in named_leaves(params).values()} == {
    dtype if keep else 'float32'
  }
  (digest,) = meta['notes']['source']['sha256'].values()
  assert any(digest in message for message in caplog.messages)
  export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  assert_same(load_file(tmp_path / 'out/model.safetensors'), tensors('t5_1_1', np.dtype(dtype)))
  out = json.loads((tmp_path / 'out/config.json').read_text())
  assert out == json.loads((given / 'config.json').read_text())


def test_the_project_s_own_file_comes_back_bit_by_bit(tmp_path):
  config = ul2.get_config()
  import_weights(config, folder(tmp_path / 'given', 'ul2', np.dtype('bfloat16')), tmp_path / 'one')
  export_weights(tmp_path / 'one', tmp_path / 'one.safetensors')
  import_weights(config, tmp_path / 'one.safetensors', tmp_path / 'two')
  export_weights(tmp_path / 'two', tmp_path / 'two.safetensors')
  files = [(tmp_path / f'{name}.safetensors').read_bytes() for name in ('one', 'two')]
  assert files[0] == files[1]
  export_weights(tmp_path / 'two', tmp_path / 'out', 'transformers')
  assert_same(load_file(tmp_path / 'out/model.safetensors'), tensors('ul2', np.dtype('bfloat16')))


def test_several_files_and_a_decoder_make_the_same_encoder(tmp_path, caplog):
  everything = tensors('t5_base')
  import_weights(t5_base.get_config(), folder(tmp_path / 'one', 't5_base'), tmp_path / 'run')
  (tmp_path / 'many').mkdir()
  everything |= {name: np.ones(shape, np.float32) for name, shape in DECODER.items()}
  names = sorted(everything)
  where = {name: f'model-{index % 2}.safetensors' for index, name in enumerate(names)}
  for file in ('model-0.safetensors', 'model-1.safetensors'):
    part = {name: everything[name] for name in names if where[name] == file}
    save_file(part, tmp_path / 'many' / file)
  (tmp_path / 'many/model.safetensors.index.json').write_text(json.dumps({'weight_map': where}))
  config = t5_base.get_config()
  with caplog.at_level('INFO', 'mgjax'):
    import_weights(config, tmp_path / 'many', tmp_path / 'again')
  said = ' '.join(caplog.messages)
  assert '2 tensors (decoder.block.0.layer.0.layer_norm.weight, lm_head.weight) are left' in said
  assert "no config.json: taken from config.model: activation = 'relu', distance =" in said
  one, other = (named_leaves(load_params(tmp_path / run)[0]) for run in ('run', 'again'))
  assert_same(one, other)


@pytest.mark.parametrize(
  ('config', 'change', 'message'),
  [
    ({'model_type': 'bert'}, {}, r"config\.json is of a model 'bert'; expected one of t5"),
    ({'feed_forward_proj': 'gated-swish'}, {}, "feed_forward_proj = 'gated-swish'; expected"),
    ({'num_heads': 4}, {}, 'says heads = 4, the tensors 5; take both from one model'),
    ({'d_kv': '4'}, {}, "says head_size = '4', the tensors 4"),
    ({'feed_forward_proj': 'relu'}, {}, 'says gated = False, the tensors True'),
    ({'layer_norm_epsilon': 'x'}, {}, "layer_norm_epsilon = 'x'; expected a finite number above"),
    ({'feed_forward_proj': []}, {}, r'feed_forward_proj = \[\]; expected one of relu'),
    ({}, {'encoder.block.7.layer.0.layer_norm.weight': (24,)}, 'depth = 3, the tensors 4'),
    ({}, {'shared.weight': None, 'encoder.embed_tokens.weight': None}, 'no matrix shared.weight'),
    ({}, {'pooler.weight': (3,)}, r'1 unknown \(pooler.weight\); expected those of transformers'),
    ({}, {'encoder.final_layer_norm.weight': None}, r'1 missing \(encoder.final_layer_norm'),
    ({}, {'encoder.final_layer_norm.weight': (25,)}, 'of another shape'),
  ],
)
def test_what_is_no_such_encoder_is_refused_and_nothing_is_written(
  config, change, message, tmp_path
):
  given = folder(tmp_path / 'given', 't5_1_1', **config)
  save_file(changed(tensors('t5_1_1'), change), given / 'model.safetensors')
  with pytest.raises(ConfigError, match=message):
    import_weights(t5_base.get_config(), given, tmp_path / 'run')
  assert not open_checkpoints(tmp_path / 'run').begun()
  assert not (tmp_path / 'run/config.json').exists()


def test_without_a_config_the_activation_must_be_one_of_the_family(tmp_path):
  (folder(tmp_path / 'given', 't5_1_1') / 'config.json').unlink()
  config = t5_base.get_config()
  with pytest.raises(ConfigError, match=r"activation = 'relu' with model\.gated = True; expected"):
    import_weights(config, tmp_path / 'given', tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  config.model.activation = 'gelu'
  import_weights(config, tmp_path / 'given', tmp_path / 'run')
