"""CLIP's towers in and out of work directories: layouts, prefixes, one tower of two, every bit."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.text import metaclip_text, metaclip_vision
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.clip.weights import clip_config, clip_fields
from mgjax.registry import find_component
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config
from tests.models.clip.vectors import imported, tensors_of, vectors
from tests.oracles import clip as oracle
from tests.oracles import openclip
from tests.tensors import assert_same, changed

CONFIGS = {'text': metaclip_text, 'vision': metaclip_vision}
TOWERS = [
  ('text', 'metaclip'),
  ('text', 'openai'),
  ('text', 'openclip'),
  ('vision', 'metaclip'),
  ('vision', 'openclip'),
]
# By whole names or beginnings, transformers' to OpenAI's and OpenCLIP's: spelt out, and not the
# table that is tested.
OWN = {
  'embeddings.token_embedding': 'token_embedding',
  'final_layer_norm': 'ln_final',
  'embeddings.position_embedding.weight': 'positional_embedding',
  'embeddings.class_embedding': 'class_embedding',
  'embeddings.patch_embedding': 'conv1',
  'pre_layrnorm': 'ln_pre',
  'post_layernorm': 'ln_post',
  'encoder.layers': 'transformer.resblocks',
}
OWN_LAYER = {
  'layer_norm1': 'ln_1',
  'layer_norm2': 'ln_2',
  'mlp.fc1': 'mlp.c_fc',
  'mlp.fc2': 'mlp.c_proj',
  'self_attn.out_proj': 'attn.out_proj',
}


def to_own(tower, name, prefix=''):
  """A tower's tensors as OpenAI and OpenCLIP name and store them."""
  theirs = {key.removeprefix(f'{tower}_model.'): x for key, x in tensors_of(tower, name).items()}
  own = {}
  for key, x in theirs.items():
    if key.endswith('_projection.weight'):
      own['proj' if tower == 'vision' else 'text_projection'] = np.ascontiguousarray(x.T)
    elif 'self_attn.q_proj' in key:
      new, end = key.replace('self_attn.q_proj.', 'attn.in_proj_'), key.rpartition('.')[2]
      layer = key.partition('self_attn')[0]
      fused = [theirs[f'{layer}self_attn.{letter}_proj.{end}'] for letter in 'qkv']
      own[new.replace('encoder.layers', OWN['encoder.layers'])] = np.concatenate(fused)
    elif not ('self_attn.k_proj' in key or 'self_attn.v_proj' in key):
      for old, new in (OWN | OWN_LAYER).items():
        key = key.replace(old, new)
      own[key] = x
  return {f'{prefix}{key}': x for key, x in own.items()}


def write(folder, tensors, config=None):
  folder.mkdir()
  save_file(tensors, folder / 'model.safetensors')
  if config is not None:
    (folder / 'config.json').write_text(json.dumps(config))
  return folder


def take(tower, source, run, **model):
  """Imports, and returns the parameters and the configuration of what came of it."""
  config = CONFIGS[tower].get_config()
  config.model.update(model)
  import_weights(config, source, run)
  return named_leaves(load_params(run)[0]), read_config(run).model.to_dict()


@pytest.mark.parametrize(('tower', 'name'), TOWERS)
def test_a_tower_of_transformers_goes_back_as_it_came(tower, name, tmp_path):
  given = write(tmp_path / 'given', tensors_of(tower, name), vectors(tower, name)['config'])
  params, fields = take(tower, given, tmp_path / 'run')
  assert_same(params, named_leaves(imported(tower, name)[1]))
  export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  assert_same(load_file(tmp_path / 'out/model.safetensors'), tensors_of(tower, name))
  config = json.loads((tmp_path / 'out/config.json').read_text())
  assert clip_fields(tower, tensors_of(tower, name), config).items() <= fields.items()
  said = vectors(tower, name)['config']
  if fields['projection'] is None:
    said = {key: value for key, value in said.items() if key != 'projection_dim'}
  both = config.keys() & said.keys()
  assert {key: config[key] for key in both} == {key: said[key] for key in both}
  assert len(config) > 9


@pytest.mark.parametrize('name', openclip.MODELS)
@pytest.mark.parametrize('tower', CONFIGS)
def test_openclip_s_models_answer_as_they_do_there(tower, name, tmp_path):
  with np.load(openclip.VECTORS) as file:
    shapes, pooled = json.loads(str(file[f'{name}/shapes'])), file[f'{name}/{tower}']
  tensors = {key: oracle.draw(key, tuple(shape)) for key, shape in shapes.items()}
  given = write(tmp_path / 'given', tensors)
  fields = {'activation': 'quick_gelu' if openclip.MODELS[name] else 'exact_gelu'}
  if tower == 'text':
    fields |= {'heads': openclip.TEXT['heads'], 'eos': openclip.END}
    inputs = (openclip.draw_tokens(), openclip.draw_tokens() > 0)
  else:
    fields |= {'heads': openclip.VISION['width'] // openclip.VISION['head_width']}
    inputs = (openclip.draw_images(),)
  take(tower, given, tmp_path / 'run', dtype='float32', **fields)
  weight_format = find_component(f'clip_{tower}').weights.get()
  model = weight_format.make(read_config(tmp_path / 'run').model.to_dict())
  params, _ = load_params(tmp_path / 'run')
  found = jax.jit(model.apply)({'params': params}, *inputs)[1]
  np.testing.assert_allclose(found, pooled, rtol=0, atol=3e-6)
  export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  out = load_file(tmp_path / 'out/model.safetensors')
  assert_same(out, {key: tensors[key] for key in out})
  assert all(key.startswith('visual.') == (tower == 'vision') for key in out)
  assert len(out) == {'text': 29, 'vision': 32}[tower]


@pytest.mark.parametrize('prefix', ['', 'text.'])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('tower', CONFIGS)
def test_openclip_s_own_names_are_the_same_tower(tower, prefix, dtype, tmp_path):
  both = {
    name: {key: x.astype(dtype) for key, x in to_own(name, 'metaclip', beginning).items()}
    for name, beginning in (('text', prefix), ('vision', 'visual.'))
  }
  assert any(key.endswith('resblocks.2.attn.in_proj_weight') for key in both[tower])
  rest = {'logit_scale': np.full((), 4.6, np.float32), 'context_length': np.array(256)}
  given = write(tmp_path / 'given', both['text'] | both['vision'] | rest)
  fields = {'text': {'heads': 4, 'eos': 37}, 'vision': {'heads': 3}}[tower]
  params, _ = take(tower, given, tmp_path / 'run', **fields)
  for key, x in named_leaves(imported(tower, 'metaclip')[1]).items():
    np.testing.assert_array_equal(params[key], x.astype(dtype), err_msg=key)
  export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  assert_same(load_file(tmp_path / 'out/model.safetensors'), both[tower])


def test_a_file_of_both_towers_gives_either(tmp_path, caplog):
  """As published with old versions of transformers, whose files hold the numbers of positions."""
  ids = {f'{tower}_model.embeddings.position_ids': np.arange(9)[None] for tower in CONFIGS}
  towers = {tower: tensors_of(tower, 'metaclip') for tower in CONFIGS}
  both = towers['text'] | towers['vision'] | ids | {'logit_scale': np.full((), 4.6, np.float32)}
  config = {'model_type': 'clip', 'projection_dim': 16} | {
    f'{tower}_config': vectors(tower, 'metaclip')['config'] for tower in CONFIGS
  }
  given = write(tmp_path / 'given', both, config)
  for tower in CONFIGS:
    with caplog.at_level('INFO', 'mgjax'):
      params, fields = take(tower, given, tmp_path / tower)
    assert 'left out: no part of the encoder' in ' '.join(caplog.messages)
    assert_same(params, named_leaves(imported(tower, 'metaclip')[1]))
    assert fields['heads'] == {'text': 4, 'vision': 3}[tower]
    export_weights(tmp_path / tower, tmp_path / f'{tower}_out', 'transformers')
    assert_same(load_file(tmp_path / f'{tower}_out/model.safetensors'), towers[tower])


def test_a_tower_without_a_prefix_may_hold_positions_in_numbers(tmp_path):
  ids = {'embeddings.position_ids': np.arange(77)[None]}
  given = write(tmp_path / 'given', tensors_of('text', 'openclip') | ids)
  params, fields = take('text', given, tmp_path / 'run', heads=5, eos=39)
  assert_same(params, named_leaves(imported('text', 'openclip')[1]))
  assert fields['projection'] is None


def test_weights_keep_their_type_on_request_and_our_own_file_every_bit(tmp_path):
  half = {key: x.astype('bfloat16') for key, x in tensors_of('vision', 'openclip').items()}
  given = write(tmp_path / 'given', half, vectors('vision', 'openclip')['config'])
  config = metaclip_vision.get_config()
  config.keep_type = True
  import_weights(config, given, tmp_path / 'one')
  leaves = named_leaves(load_params(tmp_path / 'one')[0]).values()
  assert {str(leaf.dtype) for leaf in leaves} == {'bfloat16'}
  export_weights(tmp_path / 'one', tmp_path / 'one.safetensors')
  import_weights(metaclip_vision.get_config(), tmp_path / 'one.safetensors', tmp_path / 'two')
  export_weights(tmp_path / 'two', tmp_path / 'two.safetensors')
  first, second = ((tmp_path / f'{name}.safetensors').read_bytes() for name in ('one', 'two'))
  assert first == second
  export_weights(tmp_path / 'two', tmp_path / 'out', 'transformers')
  assert_same(load_file(tmp_path / 'out/model.safetensors'), half)


def test_silent_configurations_mean_what_transformers_means():
  """Inside of one of both towers, transformers writes only what differs from its defaults."""
  tensors = tensors_of('text', 'metaclip')
  told = clip_fields('text', tensors, {'model_type': 'clip', 'text_config': {'hidden_act': 'gelu'}})
  alone = clip_fields('text', tensors)
  assert told == alone | {
    'heads': 8,
    'activation': 'exact_gelu',
    'epsilon': 1e-5,
    'pooling': 'first_eos',
    'eos': 49407,
  }
  assert 'heads' not in alone
  old = clip_fields('text', tensors, {'eos_token_id': 2})
  assert old['pooling'] == 'largest' and 'eos' not in old
  assert clip_config('text', alone | old | {'eos': 49407})['eos_token_id'] == 2


LAYER = 'text_model.encoder.layers.1.'


@pytest.mark.parametrize(
  ('config', 'change', 'message'),
  [
    ({'model_type': 'siglip_text_model'}, {}, "is of a model 'siglip_text_model'; expected 'clip'"),
    ({'hidden_act': 'relu'}, {}, "hidden_act = 'relu'; expected one of gelu_pytorch_tanh, gelu_n"),
    ({'num_hidden_layers': 4}, {}, 'says depth = 4, the tensors 3; take both from one model'),
    ({'hidden_size': 48}, {}, 'says dim = 48, the tensors 32'),
    ({'max_position_embeddings': 77}, {}, 'says positions = 77, the tensors 256'),
    ({'num_attention_heads': 0}, {}, 'num_attention_heads = 0; expected .* from 1 to 32'),
    ({'num_attention_heads': 5}, {}, 'model.dim = 32 does not divide into 5 heads'),
    ({'eos_token_id': 40}, {}, 'eos_token_id = 40; expected a whole number from 0 to 39'),
    ({'eos_token_id': None}, {}, 'model.eos = 49407 is none of 40 tokens'),
    ({'text_config': [1]}, {}, r"is of a model \[1\]; expected 'clip'"),
    ({}, {f'{LAYER}mlp.fc1.bias': None}, r'1 missing \(text_model.encoder.layers.1.mlp.fc1.bias\)'),
    ({}, {'text_model.pooler.weight': (3,)}, r'1 unknown \(text_model.pooler.weight\); expected'),
    ({}, {f'{LAYER}self_attn.q_proj.weight': (32, 8)}, '1 of another shape'),
    ({}, {'text_model.embeddings.position_embedding.weight': None}, 'no tensor text_model.embedd'),
  ],
)
def test_what_is_no_such_tower_is_refused_and_nothing_is_written(config, change, message, tmp_path):
  tensors = changed(tensors_of('text', 'metaclip'), change)
  given = write(tmp_path / 'given', tensors, vectors('text', 'metaclip')['config'] | config)
  with pytest.raises(ConfigError, match=message):
    take('text', given, tmp_path / 'run')
  assert not open_checkpoints(tmp_path / 'run').begun()
  assert not (tmp_path / 'run/config.json').exists()
