"""Adapters leave in the forms that others read, come back from them, and are taken off again."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mgjax.api import load, train
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.tree import named_leaves
from mgjax.nn.lora import merge
from mgjax.sections.flow.lora_files import FORMS, read_adapters
from mgjax.training.checkpoints.workdir import load_adapters, load_params
from tests import tiny

PROMPT = ['a red 3']


@pytest.fixture(scope='module')
def style(tiny_runs, tmp_path_factory):
  """A run of adapters with large enough B that they are seen."""
  where = tmp_path_factory.mktemp('style') / 'style'
  config = tiny.video(
    tiny_runs,
    start_from=str(tiny_runs / 'video'),
    optimizer__learning_rate=0.05,
    lora__rank=4,
    lora__alpha=8.0,
    lora__targets=('backbone/*', 'text/project/*'),
  )
  train(config, where)
  return where


@pytest.mark.parametrize('form', FORMS)
def test_what_is_written_is_read_back_and_sampled_as_merged(tiny_runs, style, tmp_path, form):
  out = tmp_path / ('folder' if form == 'peft' else 'style.safetensors')
  export_weights(style, out, form)
  base, _ = load_params(tiny_runs / 'video')
  ours, _ = load_adapters(style)
  found = named_leaves(read_adapters(out, base))
  for name, leaf in named_leaves(ours).items():
    factor = 2 if name.endswith('lora_a') else 1  # alpha / r
    np.testing.assert_array_equal(found[name], factor * np.asarray(leaf), err_msg=name)

  tensors = load_file(out / 'adapter_model.safetensors' if form == 'peft' else out)
  key = {
    'peft': 'base_model.model.backbone.layers.0.self_attention.query.lora_A.weight',
    'comfyui': 'diffusion_model.backbone.layers.0.self_attention.query.lora_A.weight',
    'kohya': 'lora_unet_backbone_layers_0_self_attention_query.lora_down.weight',
  }[form]
  assert tensors[key].shape == (4, 16)
  if form == 'peft':
    described = json.loads((out / 'adapter_config.json').read_text())
    assert (described['r'], described['lora_alpha']) == (4, 8.0)
    assert 'backbone.layers.0.self_attention.query' in described['target_modules']

  plain = load(tiny_runs / 'video').generate(PROMPT, seed=0)
  merged = load(style).generate(PROMPT, seed=0).astype(int)
  added = load(tiny_runs / 'video', lora=str(out)).generate(PROMPT, seed=0)
  assert np.abs(added - merged).max() <= 1
  assert np.abs(merged - plain).max() > 10
  # With the weight 0, or half of them twice.
  none = load(tiny_runs / 'video', lora=f'{out}:0').generate(PROMPT, seed=0)
  np.testing.assert_array_equal(none, plain)
  halves = load(tiny_runs / 'video', lora=f'{out}:0.5,{style}:0.5').generate(PROMPT, seed=0)
  assert np.abs(halves - merged).max() <= 1


def test_the_checkpoint_that_was_asked_for_is_written(style, tmp_path):
  export_weights(style, tmp_path / 'one.safetensors', 'kohya', which='params')
  export_weights(style, tmp_path / 'mean.safetensors', 'kohya')
  one, mean = (load_file(tmp_path / f'{name}.safetensors') for name in ('one', 'mean'))
  assert any((one[name] != mean[name]).any() for name in one)
  with pytest.raises(CheckpointError, match='77'):
    export_weights(style, tmp_path / 'one.safetensors', 'kohya', step=77)
  with pytest.raises(ConfigError, match="weights = 'int8' of the format 'kohya'"):
    export_weights(style, tmp_path / 'one.safetensors', 'kohya', weights='int8')


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'r': 0}, r'r = 0 of \S+, whose A has rank 4'),
    ({'lora_alpha': None}, 'expected numbers r and lora_alpha'),
    ({'lora_alpha': float('nan')}, 'count nan times'),
    ({'lora_alpha': 10**400}, 'expected numbers r and lora_alpha'),
    ({'use_dora': True}, 'has use_dora, which is not read'),
    ({'init_lora_weights': 'pissa_niter_4'}, 'changes the base model too'),
    ({'rank_pattern': ['query']}, 'expected numbers r and lora_alpha'),
    (
      {'alpha_pattern': {'(a+)+': 1}},
      r"the regular expression '\(a\+\)\+'; expected names of maps",
    ),
  ],
)
def test_what_peft_says_of_a_scale_is_read_or_refused(tiny_runs, style, tmp_path, changes, said):
  export_weights(style, tmp_path / 'out', 'peft')
  described = tmp_path / 'out' / 'adapter_config.json'
  described.write_text(json.dumps(json.loads(described.read_text()) | changes))
  with pytest.raises(ConfigError, match=said):
    read_adapters(tmp_path / 'out', load_params(tiny_runs / 'video')[0])
  with pytest.raises(ConfigError, match='expected a finite weight'):
    load(tiny_runs / 'video', lora=f'{style}:nan')


QUERY = 'backbone.layers.0.self_attention.query'
KEY = 'backbone.layers.0.self_attention.key'


def write_as_diffusers(style, path, said, *, prefix_of=lambda module: 'transformer.', ranks=()):
  """Writes a run's adapters with the metadata `said`; returns A and B by the names of maps."""
  export_weights(style, path, 'comfyui')
  found = {}
  for key, tensor in load_file(path).items():
    module, _, which = key.removeprefix('diffusion_model.').rpartition('.lora_')
    if module:
      rank = dict(ranks).get(module, 4)
      cut = tensor[:rank] if which == 'A.weight' else tensor[:, :rank]
      found.setdefault(module, {})[which[0]] = np.ascontiguousarray(cut)
  tensors = {
    f'{prefix_of(module)}{module}.lora_{which}.weight': tensor
    for module, pair in found.items()
    for which, tensor in pair.items()
  }
  said = said if isinstance(said, str) else json.dumps(said, sort_keys=True)
  save_file(tensors, path, {'format': 'pt', 'lora_adapter_metadata': said})
  return found


@pytest.mark.parametrize(
  ('said', 'options', 'scale'),
  [
    ({'transformer.r': 4, 'transformer.lora_alpha': 7}, {}, lambda module: 7 / 4),
    (
      {'unet.r': 4, 'unet.lora_alpha': 7, 'unet.use_rslora': True},
      {'prefix_of': lambda module: 'unet.'},
      lambda module: 7 / 2,
    ),
    ({'r': 4, 'lora_alpha': 7}, {'prefix_of': lambda module: ''}, lambda module: 7 / 4),
    (
      {'transformer.r': 4, 'transformer.lora_alpha': 7, 'text_encoder.use_rslora': True}
      | {'text_encoder.r': 4, 'text_encoder.lora_alpha': 3, 'text_encoder.init_lora_weights': True},
      {'prefix_of': lambda module: f'{"text_encoder" if "text" in module else "transformer"}.'},
      lambda module: 3 / 2 if 'text' in module else 7 / 4,
    ),
    (
      {
        'transformer.r': 4,
        'transformer.lora_alpha': 7,
        'transformer.rank_pattern': {'self_attention.query': 2, 'attention.query': 3},
        'transformer.alpha_pattern': {f'^{QUERY}': 5, '^self_attention.key': 6, KEY[1:]: 6},
      },
      {'ranks': {QUERY: 2}},
      lambda module: 5 / 2 if module == QUERY else 7 / 4,
    ),
  ],
  ids=['one prefix', 'rslora', 'no prefix', 'two prefixes', 'patterns'],
)
def test_the_settings_in_a_file_of_diffusers_count(
  tiny_runs, style, tmp_path, said, options, scale
):
  path = tmp_path / 'style.safetensors'
  found = write_as_diffusers(style, path, said, **options)
  base, _ = load_params(tiny_runs / 'video')
  merged = named_leaves(merge(read_adapters(path, base), base))
  kernels = {name: np.array(leaf, np.float64) for name, leaf in named_leaves(base).items()}
  for module, pair in found.items():
    change = scale(module) * (pair['B'].astype(np.float64) @ pair['A'].astype(np.float64)).T
    name, layer = module.replace('.', '/') + '/kernel', ...
    if '/layers/' in name:
      name, layer = name.replace('/layers/0/', '/layers/'), 0
    kernels[name][layer] += change
    assert np.abs(change).max() > 0.05
  for name, kernel in kernels.items():
    np.testing.assert_allclose(merged[name], kernel, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
  ('said', 'expected'),
  [
    ('{"transformer.r": 4', r"lora_adapter_metadata of '.*' is no readable JSON"),
    ('[4, 7]', 'holds list, expected dict'),
    ('{"transformer.r": 4, "transformer.lora_alpha": NaN}', 'count nan times'),
    ('{"transformer.r": 4, "transformer.lora_alpha": 1e999}', 'count inf times'),
    ('{"transformer.r": 4, "transformer.lora_alpha": 1e300}', r'2\.5e\+299 times'),
    ({'transformer.r': 4}, "'lora_alpha'; expected numbers r and lora_alpha"),
    ({'transformer.r': 8, 'transformer.lora_alpha': 7}, r'r = 8 of \S+, whose A has rank 4'),
    ({'unet.r': 4, 'unet.lora_alpha': 7}, r'does not describe \S+; expected r and lora_alpha with'),
    ({'transformer.use_dora': True}, 'has use_dora, which is not read'),
  ],
)
def test_settings_in_a_file_that_give_no_scale_are_refused(
  tiny_runs, style, tmp_path, said, expected
):
  write_as_diffusers(style, tmp_path / 'style.safetensors', said)
  with pytest.raises(ConfigError, match=expected):
    read_adapters(tmp_path / 'style.safetensors', load_params(tiny_runs / 'video')[0])


def test_what_a_file_says_twice_is_refused(tiny_runs, style, tmp_path):
  base, path = load_params(tiny_runs / 'video')[0], tmp_path / 'style.safetensors'
  metadata = {'lora_adapter_metadata': '{"transformer.r": 4, "transformer.lora_alpha": 7}'}
  write_as_diffusers(style, path, metadata['lora_adapter_metadata'])
  tensors = load_file(path)
  save_file(tensors | {f'transformer.{QUERY}.alpha': np.float32([7])}, path, metadata)
  read_adapters(path, base)
  save_file(tensors | {f'transformer.{QUERY}.alpha': np.array(8, np.float32)}, path, metadata)
  with pytest.raises(ConfigError, match=rf'lora_alpha = 7 of {QUERY}, whose own alpha is 8'):
    read_adapters(path, base)
  again = {f'diffusion_model.{QUERY}.lora_A.weight': tensors[f'transformer.{QUERY}.lora_A.weight']}
  save_file(tensors | again, path, metadata)
  with pytest.raises(ConfigError, match=f'has A of {QUERY} twice'):
    read_adapters(path, base)


def test_imported_adapters_train_on_and_sample_alike(tiny_runs, style, tmp_path):
  export_weights(style, tmp_path / 'style.safetensors', 'kohya')
  config = tiny.video(tiny_runs, start_from=str(tiny_runs / 'video'))
  # Of the name of its model, which is looked for beside it as well.
  import_weights(config, tmp_path / 'style.safetensors', tmp_path / 'video')
  one = load(tmp_path / 'video').generate(PROMPT, seed=0).astype(int)
  assert np.abs(one - load(style).generate(PROMPT, seed=0)).max() <= 1
  with pytest.raises(ConfigError, match=r"adapters are imported with config.start_from = ''"):
    import_weights(tiny.video(tiny_runs), tmp_path / 'style.safetensors', tmp_path / 'no')


def test_layers_that_a_file_lacks_stay_as_they_are(tiny_runs, style, tmp_path):
  export_weights(style, tmp_path / 'style.safetensors', 'comfyui')
  tensors = load_file(tmp_path / 'style.safetensors')
  kept = {name: tensor for name, tensor in tensors.items() if 'self_attention.query' in name}
  save_file(kept, tmp_path / 'few.safetensors')
  base, _ = load_params(tiny_runs / 'video')
  found = named_leaves(read_adapters(tmp_path / 'few.safetensors', base))
  assert set(found) == {f'backbone/layers/self_attention/query/kernel/lora_{each}' for each in 'ab'}


def test_a_file_of_another_model_says_which_keys_do_not_fit(tiny_runs, style, tmp_path):
  base, _ = load_params(tiny_runs / 'video')
  path = tmp_path / 'other.safetensors'
  save_file(
    {
      'transformer.blocks.0.attn.to_q.lora_A.weight': np.ones((4, 16), np.float32),
      'transformer.blocks.0.attn.to_q.lora_B.weight': np.ones((16, 4), np.float32),
    },
    path,
  )
  with pytest.raises(
    ConfigError, match=r'2 of its 2 keys do not fit, as transformer\.blocks\.0\.attn'
  ):
    read_adapters(path, base)
  name = 'diffusion_model.backbone.layers.0.self_attention.query'
  half = {f'{name}.lora_A.weight': np.ones((4, 8), np.float32)}
  save_file(half | {f'{name}.lora_B.weight': np.ones((16, 4), np.float32)}, path)
  with pytest.raises(
    ConfigError, match=r'A \(4, 8\) and B \(16, 4\) of backbone/layers/self_attention'
  ):
    read_adapters(path, base)
  save_file(half, path)
  with pytest.raises(ConfigError, match='one of A and B alone'):
    read_adapters(path, base)
  with pytest.raises(ConfigError, match='trained all parameters'):
    load_adapters(tiny_runs / 'video')
