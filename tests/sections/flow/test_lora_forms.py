"""Adapters mean what their authors meant, in every published form: merged kernels say so.

The oracle is W + s B A in float64, of DoRA m V / |V| with V = W + s B A.
"""

import itertools
import json
import math
import time

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.nn.lora import joined, merge
from mgjax.nn.quantize import dequantised, store
from mgjax.sections.flow.lora_files import are_adapters, read_adapters

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


@pytest.fixture(scope='module')
def base():
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


# Names

HOLDERS = (
  *('', 'model.', 'model.diffusion_model.', 'diffusion_model.', 'transformer.', 'unet.', 'dit.'),
  *('base_model.model.', 'base_model.model.transformer.', 'base_model.model.model.'),
  *('pipe.dit.', 'module.', '_orig_mod.', 'base_model.model._orig_mod.', 'module.transformer.'),
  *('transformer._fsdp_wrapped_module.', 'net.', 'text_encoder.', 'text_encoder_2.'),
)
FLAT = (
  *('lora_unet_', 'lora_te_', 'lora_te1_', 'lora_te2_', 'lora_transformer_', 'lora_dit_'),
  *('lycoris_', 'lora_', 'lora_prior_unet_', 'lycoris_unet_'),
)
SUFFIXES = (
  *(('.lora_A.weight', '.lora_B.weight'), ('.lora_A', '.lora_B')),
  *(('.lora_A.default.weight', '.lora_B.default.weight'), ('.lora_A.my_style', '.lora_B.my_style')),
  *(('.lora_down.weight', '.lora_up.weight'), ('.lora.down.weight', '.lora.up.weight')),
  *(
    ('_lora.down.weight', '_lora.up.weight'),
    ('.lora_A.default_0.weight', '.lora_B.default_0.weight'),
  ),
  ('.lora_linear_layer.down.weight', '.lora_linear_layer.up.weight'),
)
NAMES = [
  *((holder + '{}', SUFFIXES[0]) for holder in HOLDERS),
  *((holder + '{}', SUFFIXES[4]) for holder in FLAT),
  *(
    (holder, suffix)
    for holder, suffix in itertools.product(('transformer.{}', 'lora_unet_{}'), SUFFIXES)
  ),
]


@pytest.mark.parametrize(('holder', 'suffixes'), NAMES)
def test_maps_are_found_by_the_names_of_every_project(base, tmp_path, holder, suffixes):
  pairs = factors(base, (Q0, Q1, LINEAR, CONV))
  tensors = {}
  for module, pair in pairs.items():
    flat = holder.startswith(('lora_', 'lycoris_'))
    text = holder.format(module.replace('.', '_') if flat else module)
    tensors |= {text + end: each for end, each in zip(suffixes, pair, strict=True)}
    tensors[f'{text}.alpha'] = np.array(3, np.float32)
  save_file(tensors, tmp_path / 'a.safetensors')
  assert are_adapters(tmp_path / 'a.safetensors')
  check_scaled(base, tmp_path / 'a.safetensors', pairs, 3 / 4)


@pytest.mark.parametrize('wrapper', ['_checkpoint_wrapped_module', '_orig_mod', 'module'])
def test_a_wrapper_in_the_middle_of_a_name_is_left_out(base, tmp_path, wrapper):
  pairs = factors(base, (Q0, Q1))
  tensors = {
    key.replace('.attention', f'.{wrapper}.attention'): each for key, each in named(pairs).items()
  }
  save_file(tensors, tmp_path / 'a.safetensors')
  check_scaled(base, tmp_path / 'a.safetensors', pairs, 1)


@pytest.mark.parametrize(
  ('one', 'two'),
  [
    ('transformer.{}.lora_A.weight', 'diffusion_model.{}.lora_A.weight'),
    ('{}.lora_A.weight', 'model.diffusion_model.{}.lora_down.weight'),
    ('{}.lora_A.weight', '{}.lora_A.default.weight'),
    ('{}.lora_A.one.weight', '{}.lora_A.two.weight'),
    ('transformer.{}.lora_B.weight', 'unet.{}.lora_B.weight'),
    ('{}.alpha', 'transformer.{}.alpha'),
    ('{}.lora_magnitude_vector', '{}.dora_scale'),
    ('transformer.{}.lora_A.weight', 'base_model.model.{}.dora_scale'),
  ],
)
def test_a_map_that_is_there_twice_is_refused_by_both_names(base, tmp_path, one, two):
  """Also one whose A and B are of two holders: nobody knows which belong together."""
  pairs = factors(base, (Q0,))
  holder = one.partition('{}')[0]
  tensors = named(pairs, holder + '{}.lora_{}.weight')
  more = {'A': pairs[Q0][0], 'B': pairs[Q0][1]}
  for form in (one, two):
    key = form.format(Q0)
    role = next((name for name in 'AB' if f'lora_{name}' in key), '')
    tensors[key] = more.get(role, np.ones(1 if 'alpha' in key else 6, np.float32))
  tensors = {key: np.array(each) for key, each in tensors.items()}  # no two in one place
  if not one.endswith('A.weight') and 'lora_A' in one:
    del tensors[f'{holder}{Q0}.lora_A.weight']
  save_file(tensors, tmp_path / 'a.safetensors')
  with pytest.raises(ConfigError, match=f'adapters of {Q0} twice') as caught:
    read_adapters(tmp_path / 'a.safetensors', base)
  assert two.format(Q0) in str(caught.value)


# Scales

PATTERNS = [
  # settings, of Q0, Q1, K0 and the head their alpha; the rank is 4 unless they say so
  ({'alpha_pattern': {'query': 3}}, (3, 3, 7, 7)),
  ({'alpha_pattern': {'attention.query': 3, 'head': 5}}, (3, 3, 7, 5)),
  ({'alpha_pattern': {'uery': 3, 'ead': 5}}, (7, 7, 7, 7)),  # not from a dot on
  ({'alpha_pattern': {f'^{Q0}': 3}}, (3, 7, 7, 7)),
  ({'alpha_pattern': {'^query': 3, '^head': 5}}, (7, 7, 7, 5)),
  ({'alpha_pattern': {'query': 3, Q0: 5}}, (3, 3, 7, 7)),  # the first that fits
  ({'alpha_pattern': {Q0: 5, 'query': 3}}, (5, 3, 7, 7)),
  ({'alpha_pattern': {r'layers\.\d+\.attention\.(query|key)': 3}}, (3, 3, 3, 7)),
  ({'alpha_pattern': {r'.*\.0\..*': 3}}, (3, 7, 3, 7)),
  ({'alpha_pattern': {r'(?:query)': 3, '[kh]e(y|ad)': 5}}, (3, 3, 5, 5)),
  ({'alpha_pattern': {r'layers.1.+': 3, 'backbone': 9}}, (7, 3, 7, 7)),
  ({'alpha_pattern': {'query|head': 3}}, (3, 3, 7, 3)),
  ({'alpha_pattern': {'a{3}': 3, r'\w+d$': 5}}, (7, 7, 7, 5)),
  ({'alpha_pattern': {'attention_query': 3, 'attention.quer.': 5}}, (5, 5, 7, 7)),
  ({'alpha_pattern': {}, 'rank_pattern': None}, (7, 7, 7, 7)),
  ({'alpha_pattern': {'query': 0, 'key': -2.5}}, (0, 0, -2.5, 7)),
  ({'r': 2, 'rank_pattern': {'query': 4, 'key|head': 4}}, (7, 7, 7, 7)),
]


def of_peft(tmp_path, base, where, settings, modules=(Q0, Q1, K0, LINEAR)):
  """The same adapters and settings as a folder of peft, or as a file of diffusers."""
  pairs = factors(base, modules)
  if where == 'peft':
    return write_peft(tmp_path / 'out', peft_of(pairs), **settings), pairs
  settings = {'r': 4, 'lora_alpha': 7, **settings}
  said = json.dumps({f'transformer.{field}': value for field, value in settings.items()})
  save_file(named(pairs), tmp_path / 'out.safetensors', {'lora_adapter_metadata': said})
  return tmp_path / 'out.safetensors', pairs


@pytest.mark.parametrize('where', ['peft', 'diffusers'])
@pytest.mark.parametrize('is_stable', [False, True])
@pytest.mark.parametrize(('settings', 'alphas'), PATTERNS)
def test_patterns_are_those_of_peft(base, tmp_path, where, is_stable, settings, alphas):
  path, pairs = of_peft(tmp_path, base, where, settings | {'use_rslora': is_stable})
  scales = dict(zip(pairs, alphas, strict=True))
  check_scaled(base, path, pairs, lambda module: scales[module] / (2 if is_stable else 4))


def test_ranks_of_a_pattern_are_those_of_its_maps(base, tmp_path):
  pairs = factors(base, (Q0, Q1), rank=2) | factors(base, (K0, CONV), rank=9)
  settings = {'r': 2, 'rank_pattern': {'key': 9, 'patch': 9}, 'use_rslora': True}
  write_peft(tmp_path / 'out', peft_of(pairs), **settings)
  check_scaled(base, tmp_path / 'out', pairs, lambda module: 7 / math.sqrt(len(pairs[module][0])))


def test_a_name_of_a_pattern_begins_where_peft_wrapped_the_model(base, tmp_path):
  pairs = factors(base, (LINEAR,))
  tensors = named(pairs, 'base_model.model.transformer.{}.lora_{}.weight')
  for pattern, scale in (('^head', 7 / 4), ('^transformer.head', 3 / 4), ('head', 3 / 4)):
    write_peft(tmp_path / 'out', tensors, alpha_pattern={pattern: 3})
    check_scaled(base, tmp_path / 'out', pairs, scale)


def test_a_pattern_that_would_take_for_ever_is_refused(base, tmp_path, monkeypatch):
  monkeypatch.setattr('mgjax.models.foreign_weights.peft_config._SECONDS', 1)
  began = time.monotonic()
  for field in ('alpha_pattern', 'rank_pattern'):
    path, _ = of_peft(tmp_path, base, 'peft', {field: {'(([a-z.0-9]+)+)+!': 3}})
    refused(base, path, f'{field} = .*or take more than 1 s')
  path, _ = of_peft(tmp_path, base, 'peft', {'target_modules': '(([a-z.0-9]+)+)+!'})
  refused(base, path, 'target_modules = .*or take more than 1 s')
  assert time.monotonic() - began < 60


ALPHAS = [
  *(np.array(3, dtype) for dtype in ('f2', 'f4', 'f8', 'i1', 'i4', 'i8', 'u1', ml_dtypes.bfloat16)),
  *(np.full(shape, 3, dtype) for shape in ((1,), (1, 1)) for dtype in ('f4', ml_dtypes.bfloat16)),
  np.array([3], ml_dtypes.float8_e4m3fn),
]


@pytest.mark.parametrize('alpha', ALPHAS, ids=lambda each: f'{each.dtype}{each.shape}')
def test_an_alpha_is_one_number_of_any_type(base, tmp_path, alpha):
  pairs = factors(base, (Q0, CONV))
  alphas = {f'lora_unet_{module.replace(".", "_")}.alpha': alpha for module in pairs}
  tensors = {
    f'lora_unet_{module.replace(".", "_")}.lora_{which}.weight': each
    for module, pair in pairs.items()
    for which, each in zip(('down', 'up'), pair, strict=True)
  }
  save_file(tensors | alphas, tmp_path / 'a.safetensors')
  check_scaled(base, tmp_path / 'a.safetensors', pairs, 3 / 4)


WRONG_ALPHAS = [
  *(np.array(value, dtype) for value in (np.nan, np.inf, -np.inf) for dtype in ('f2', 'f4', 'f8')),
  *(np.array(np.nan, dtype) for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)),
  *(np.array(each) for each in (1e300, True, 1j)),
  *(np.zeros(shape, np.float32) for shape in ((0,), (2,), (4, 4))),
]


@pytest.mark.parametrize('alpha', WRONG_ALPHAS, ids=lambda each: f'{each.ravel()[:1]}{each.dtype}')
def test_an_alpha_that_is_no_number_is_refused(base, tmp_path, alpha):
  alpha = alpha.astype(np.complex64) if alpha.dtype.kind == 'c' else alpha
  save_file(
    named(factors(base, (Q0,))) | {f'transformer.{Q0}.alpha': alpha}, tmp_path / 'a.safetensors'
  )
  refused(base, tmp_path / 'a.safetensors', f'{Q0}.alpha (=|of) .*expected (one )?finite')


HEADERS = [
  # ss_network_alpha, ss_network_dim, how often B A counts; None: refused
  ('7', '4', 7 / 4),
  ('7.5', '4', 7.5 / 4),
  ('None', '4', 1),
  ('7', None, 1),
  (None, '4', 1),
  ('Dynamic', 'Dynamic', 1),
  ('0', '4', 1),
  *(
    ('nan', '4', None),
    ('inf', '4', None),
    ('7', '0', None),
    ('7', 'nan', None),
    ('7', '-4', None),
  ),
  *(('x', '4', None), ('', '4', None), ('1e999', '4', None), ('7', 'inf', None), ('0', '0', None)),
]


@pytest.mark.parametrize(('alpha', 'rank', 'scale'), HEADERS)
def test_a_header_of_kohya_has_a_scale_where_tensors_have_none(base, tmp_path, alpha, rank, scale):
  pairs = factors(base, (Q0, LINEAR))
  header = {
    f'ss_network_{name}': value
    for name, value in (('alpha', alpha), ('dim', rank))
    if value is not None
  }
  save_file(
    named(pairs, 'lora_unet_{}.lora_{}.weight', ('down', 'up')), tmp_path / 'a.safetensors', header
  )
  if scale is None:
    refused(
      base,
      tmp_path / 'a.safetensors',
      'ss_network_alpha = .* and ss_network_dim = .*a rank above 0',
    )
  else:
    check_scaled(base, tmp_path / 'a.safetensors', pairs, scale)


def test_settings_lie_beside_a_file_of_peft_that_is_named_itself(base, tmp_path):
  path, pairs = of_peft(tmp_path, base, 'peft', {})
  check_scaled(base, path / 'adapter_model.safetensors', pairs, 7 / 4)
  (path / 'adapter_config.json').unlink()
  refused(base, path, 'adapter_config.json.* cannot be read: No such file')


def test_a_folder_of_diffusers_is_read(base, tmp_path):
  path, pairs = of_peft(tmp_path, base, 'diffusers', {})
  (tmp_path / 'folder').mkdir()
  path.rename(tmp_path / 'folder/pytorch_lora_weights.safetensors')
  assert are_adapters(tmp_path / 'folder')
  check_scaled(base, tmp_path / 'folder', pairs, 7 / 4)


# Settings

HARMLESS = {
  'auto_mapping': {'a': 'b'},
  'base_model_name_or_path': 'x',
  'revision': 'main',
  'task_type': 'FEATURE_EXTRACTION',
  'inference_mode': True,
  'peft_version': '0.21.2',
  'lora_dropout': 0.3,
  'fan_in_fan_out': True,
  'megatron_core': 'megatron.core',
  'loftq_config': {'loftq_bits': 4},
  'eva_config': {'rho': 2.0},
  'corda_config': {'corda_method': 'ipm'},
  'lora_ga_config': {},
  'qalora_group_size': 16,
  'runtime_config': {'ephemeral_gpu_offload': False},
  'init_lora_weights': 'gaussian',
  'target_modules': ['query', 'key', 'head'],
  'layers_pattern': None,
  'use_dora': False,
  'modules_to_save': None,
  'layer_replication': None,
  'a_field_of_tomorrow': None,
  'another_one': [],
}


@pytest.mark.parametrize('where', ['peft', 'diffusers'])
def test_settings_that_do_not_matter_change_nothing(base, tmp_path, where):
  path, pairs = of_peft(tmp_path, base, where, HARMLESS)
  check_scaled(base, path, pairs, 7 / 4)


@pytest.mark.parametrize(
  'start', [True, False, None, 'gaussian', 'Gaussian', 'eva', 'orthogonal', 'mica', 'MiCA']
)
def test_a_start_that_leaves_the_base_alone_changes_nothing(base, tmp_path, start):
  path, pairs = of_peft(tmp_path, base, 'peft', {'init_lora_weights': start})
  check_scaled(base, path, pairs, 7 / 4)


@pytest.mark.parametrize(
  'start',
  [
    'pissa',
    'PiSSA',
    'pissa_niter_4',
    'olora',
    'OLoRA',
    'corda',
    'loftq',
    'lora_ga',
    'tomorrow',
    3,
    [],
  ],
)
def test_a_start_that_changes_the_base_is_refused_by_its_name(base, tmp_path, start):
  for where in ('peft', 'diffusers'):
    path, _ = of_peft(tmp_path, base, where, {'init_lora_weights': start})
    refused(base, path, 'init_lora_weights = .*, which changes the base model too')


REFUSED = {
  'peft_type': 'LOHA',
  'bias': 'lora_only',
  'modules_to_save': ['head'],
  'layers_pattern': 'layers',
  'layer_replication': [[0, 1], [0, 1]],
  'lora_bias': True,
  'use_qalora': True,
  'use_bdlora': {'nblocks': 2},
  'alora_invocation_tokens': [1, 2],
  'trainable_token_indices': [1],
  'target_parameters': ['head.weight'],
  'megatron_config': {'a': 1},
  'arrow_config': {'top_k': 3},
  'kasa_config': {'beta': 0.1},
  'velora_config': {'num_groups': 64},
  'monteclora_config': {'a': 1},
  'ensure_weight_tying': True,
  'a_field_of_tomorrow': 3,
}


@pytest.mark.parametrize('where', ['peft', 'diffusers'])
@pytest.mark.parametrize(('field', 'value'), REFUSED.items())
def test_a_setting_that_is_not_read_is_refused_by_its_name(base, tmp_path, where, field, value):
  path, _ = of_peft(tmp_path, base, where, {field: value})
  refused(base, path, rf'{field} = .*, which is not read; expected plain LoRA or DoRA')
  if field == 'bias':
    refused(base, of_peft(tmp_path, base, where, {'bias': 'all'})[0], "bias = 'all'")


@pytest.mark.parametrize(
  ('settings', 'left_out'),
  [
    ({'target_modules': ['query', 'key']}, LINEAR),
    ({'target_modules': ['uery', 'key', 'head']}, Q0),
    ({'target_modules': r'.*\.(query|key)'}, LINEAR),
    ({'target_modules': r'.*quer'}, K0),
    ({'exclude_modules': ['query']}, Q0),
    ({'exclude_modules': r'.*\.1\..*'}, Q1),
    ({'target_modules': ['query', 'key', 'head'], 'layers_to_transform': [0]}, Q1),
    ({'target_modules': ['query', 'key', 'head'], 'layers_to_transform': 1}, K0),
    ({'target_modules': r'.*', 'layers_to_transform': [0, 1]}, LINEAR),
  ],
)
def test_adapters_that_peft_would_leave_out_are_refused(base, tmp_path, settings, left_out):
  for where in ('peft', 'diffusers'):
    path, _ = of_peft(tmp_path, base, where, settings)
    refused(base, path, rf'which leaves out {left_out}, and adapters')


@pytest.mark.parametrize(
  'settings',
  [
    {'target_modules': [Q0, 'attention.query', 'key', 'head'], 'exclude_modules': ['uery', 'ad']},
    {'target_modules': 'all-linear'},
    {'target_modules': r'(backbone\.layers\.\d\.attention\.\w+|head)'},
    {'exclude_modules': r'.*value'},
    {'target_modules': ['query', K0, 'head'], 'layers_to_transform': []},
    {
      'target_modules': ['query', 'key', 'head'],
      'layers_to_transform': [0, 1],
      'only': (Q0, Q1, K0),
    },
    {'target_modules': ['query'], 'layers_to_transform': 1, 'only': (Q1,)},
    {'target_modules': ['query', LINEAR], 'layers_to_transform': [1], 'only': (Q1, LINEAR)},
  ],
)
def test_maps_that_settings_reach_are_read(base, tmp_path, settings):
  modules = settings.pop('only', (Q0, Q1, K0, LINEAR))
  for where in ('peft', 'diffusers'):
    path, pairs = of_peft(tmp_path, base, where, settings, modules)
    check_scaled(base, path, pairs, 7 / 4)
  settings['only'] = modules


WRONG = [
  ({'r': 0}, r'r = 0 of \S+, whose tensors have 4'),
  ({'r': 8}, r'r = 8 of \S+, whose tensors have 4'),
  ({'rank_pattern': {'query': 8}}, rf'r = 8 of {Q0}, whose tensors have 4'),
  *(
    ({field: value}, f'{field} = .*; expected finite')
    for field, value in itertools.product(
      ('r', 'lora_alpha'),
      (None, 'x', '4', math.nan, math.inf, -math.inf, 10**400, 1e300, [], {}, True),
    )
  ),
  ({'alpha_pattern': {'query': math.nan}}, f'lora_alpha = nan of {Q0}; expected finite'),
  ({'alpha_pattern': {'query': None}}, f'lora_alpha = None of {Q0}; expected finite'),
  ({'alpha_pattern': ['query']}, 'not as peft writes it'),
  ({'alpha_pattern': 5}, 'not as peft writes it'),
  ({'alpha_pattern': {'(': 3}}, 'no regular expressions'),
  ({'alpha_pattern': {'*': 3}}, 'no regular expressions'),
  ({'alpha_pattern': {'[': 3, '\x1b': 4}}, 'no regular expressions'),
  ({'target_modules': 5}, 'not as peft writes it'),
  ({'use_rslora': 'false'}, "use_rslora = 'false'; expected true or false"),
  ({'use_dora': 'no'}, "use_dora = 'no'; expected true or false"),
  ({'use_dora': True}, rf'use_dora = True of {K0}, whose tensors have False'),
]


@pytest.mark.parametrize('where', ['peft', 'diffusers'])
@pytest.mark.parametrize(('settings', 'said'), WRONG)
def test_settings_that_make_no_sense_are_refused(base, tmp_path, where, settings, said):
  path, _ = of_peft(tmp_path, base, where, settings)
  refused(base, path, said)


# DoRA


def magnitudes(base, pairs, seed=2):
  random = np.random.default_rng(seed)
  return {m: random.uniform(0.5, 2, len(kernel_of(base, m))).astype(np.float32) for m in pairs}


def dora(base, module, pair, scale, magnitude, axis=0):
  """m V / |V| in PyTorch's order, with a norm of each output (axis 0) or input (axis 1)."""
  v = kernel_of(base, module) + scale * change(pair)
  axes = tuple(each for each in range(v.ndim) if each != axis)
  norm = np.sqrt((v**2).sum(axes, keepdims=True))
  return v * np.asarray(magnitude, np.float64).reshape(norm.shape) / norm


@pytest.mark.parametrize('suffix', ['', '.weight', '.default', '.default.weight'])
@pytest.mark.parametrize('is_stable', [False, True])
def test_dora_of_peft_is_read(base, tmp_path, suffix, is_stable):
  pairs = factors(base, (Q0, Q1, K0, LINEAR, CONV), rank=2)
  several = magnitudes(base, pairs)
  tensors = {
    f'base_model.model.{m}.lora_magnitude_vector{suffix}': each for m, each in several.items()
  }
  conv = next(key for key in tensors if CONV in key)
  tensors[conv] = tensors[conv].reshape(1, -1, 1, 1)  # as peft has it
  settings = {'r': 2, 'use_dora': True, 'use_rslora': is_stable}
  write_peft(tmp_path / 'out', peft_of(pairs) | tensors, **settings)
  scale = 7 / (math.sqrt(2) if is_stable else 2)
  wanted = {m: dora(base, m, pair, scale, several[m]) for m, pair in pairs.items()}
  check_merged(base, tmp_path / 'out', wanted)


@pytest.mark.parametrize('axis', [0, 1])
def test_dora_of_lycoris_is_read_with_a_norm_of_outputs_or_of_inputs(base, tmp_path, axis):
  pairs = factors(base, (Q0, K0, LINEAR, CONV))  # K0 is square
  tensors, wanted = {}, {}
  for number, (module, pair) in enumerate(pairs.items()):
    kernel = kernel_of(base, module)
    shape = [size if each == axis else 1 for each, size in enumerate(kernel.shape)]
    scales = np.random.default_rng(number).uniform(0.5, 2, shape).astype(np.float32)
    flat = f'lora_unet_{module.replace(".", "_")}'
    tensors |= {f'{flat}.dora_scale': scales, f'{flat}.alpha': np.array(3, np.float32)}
    tensors |= {f'{flat}.lora_down.weight': pair[0], f'{flat}.lora_up.weight': pair[1]}
    wanted[module] = dora(base, module, pair, 3 / 4, scales, axis)
  save_file(tensors, tmp_path / 'a.safetensors')
  check_merged(base, tmp_path / 'a.safetensors', wanted)


def test_dora_counts_in_part_and_beside_other_adapters(base, tmp_path):
  pairs = factors(base, (Q0, LINEAR))
  several = magnitudes(base, (Q0,))
  tensors = named(pairs) | {f'transformer.{Q0}.lora_magnitude_vector': several[Q0]}
  save_file(tensors, tmp_path / 'a.safetensors')
  save_file(named(factors(base, (Q0,), seed=5)), tmp_path / 'b.safetensors')
  one, two = (read_adapters(tmp_path / f'{name}.safetensors', base) for name in 'ab')
  found = named_leaves(merge(joined([(one, 0.25), (two, 2.0)]), base))[place(Q0)[0]][0]
  w = kernel_of(base, Q0)
  wanted = w + 0.25 * (dora(base, Q0, pairs[Q0], 1, several[Q0]) - w)
  wanted += 2 * change(factors(base, (Q0,), seed=5)[Q0])
  np.testing.assert_allclose(found, wanted.T, rtol=1e-5, atol=1e-5)


def test_dora_of_a_quantised_model_is_of_the_kernels_that_it_has(base, tmp_path):
  quantised = store(jax.tree.map(jnp.asarray, base), 'int8')
  pairs = factors(base, (Q0, LINEAR))
  several = magnitudes(base, pairs)
  tensors = {f'transformer.{m}.lora_magnitude_vector': each for m, each in several.items()}
  save_file(named(pairs) | tensors, tmp_path / 'a.safetensors')
  widened = dequantised(quantised)
  wanted = {m: dora(widened, m, pair, 1, several[m]) for m, pair in pairs.items()}
  merged = named_leaves(merge(read_adapters(tmp_path / 'a.safetensors', quantised), quantised))
  for module, kernel in wanted.items():
    name, layer = place(module)
    np.testing.assert_allclose(merged[name][layer], kernel.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('shape', [(5,), (7, 1), (1, 7), (2, 5), (), (0,), (6, 8)])
def test_a_magnitude_of_another_model_is_refused(base, tmp_path, shape):
  for suffix in ('lora_magnitude_vector', 'dora_scale'):
    tensors = {f'transformer.{Q0}.{suffix}': np.ones(shape, np.float32)}
    save_file(named(factors(base, (Q0,))) | tensors, tmp_path / 'a.safetensors')
    refused(base, tmp_path / 'a.safetensors', 'is of another model: a magnitude of shape')


def test_dora_of_an_output_that_is_zero_is_refused(base, tmp_path):
  leaves = named_leaves(base)
  zero = nest(leaves | {'head/kernel': np.zeros((8, 4), np.float32)})
  a, b = factors(base, (LINEAR,))[LINEAR]
  tensors = named({LINEAR: (a, 0 * b)}) | {
    f'transformer.{LINEAR}.dora_scale': np.zeros((4, 1), np.float32)
  }
  save_file(tensors, tmp_path / 'a.safetensors')
  refused(zero, tmp_path / 'a.safetensors', 'changes head/kernel by no finite number')


def test_magnitudes_that_settings_do_not_know_of_are_refused(base, tmp_path):
  pairs = factors(base, (Q0, LINEAR))
  tensors = {f'base_model.model.{Q0}.lora_magnitude_vector': np.ones(6, np.float32)}
  write_peft(tmp_path / 'out', peft_of(pairs) | tensors, use_dora=False)
  refused(base, tmp_path / 'out', f'use_dora = False of {Q0}, whose tensors have True')
  write_peft(tmp_path / 'out', peft_of(pairs) | tensors, use_dora=True)
  refused(base, tmp_path / 'out', f'use_dora = True of {LINEAR}, whose tensors have False')


# Other kinds

KINDS = {
  'LoHa': ('.hada_w1_a', '.hada_w2_b', '.hada_t1'),
  'LoKr': ('.lokr_w1', '.lokr_w2_a', '.lokr_t2'),
  r'\(IA\)3': ('.ia3_l', '.on_input', '.ia3_l.default'),
  'OFT': ('.oft_R.weight', '.oft_blocks', '.oft_diag', '.oft_r'),
  'BOFT': ('.boft_R', '.boft_s'),
  'VeRA': ('.vera_lambda_b', '.vera_lambda_d'),
  'GLoRA': ('.a1.weight', '.b2.weight'),
  'AdaLoRA': ('.lora_E', '.ranknum', '.lora_E.default'),
  'LoRA with a middle matrix': ('.lora_mid.weight',),
  'LoRA of embeddings': ('.lora_embedding_A', '.lora_embedding_B.default'),
  'LoRA with biases': ('.lora_B.bias', '.lora_B.default.bias', '.lora_up.bias'),
  'differences of parameters': ('.diff', '.diff_b', '.diff_m', '.set_weight', '.w_norm', '.b_norm'),
  'parameters themselves': ('.weight', '.bias', '.base_layer.bias', '.modules_to_save.weight'),
  'diag': ('.lora_diag',),
  'fourierft': ('.fourierft_spectrum',),
  'hra': ('.hra_u',),
  'miss': ('.miss_block',),
  'bone': ('.bone_block',),
  'shira': ('.shira_weight',),
  'c3a': ('.c3a_kernel',),
  'road': ('.road_theta',),
  'delora': ('.delora_A', '.delora_lambda'),
  'randlora': ('.randlora_lambda', '.randlora_gamma'),
  'waveft': ('.waveft_spectrum',),
  'vblora': ('.vblora_logits_A',),
  'gralora': ('.gralora_A.weight',),
  'ln_tuning': ('.ln_tuning_layers.weight',),
  'trainable_tokens': ('.trainable_tokens_delta',),
}


@pytest.mark.parametrize(('kind', 'suffix'), [(k, s) for k, found in KINDS.items() for s in found])
@pytest.mark.parametrize('beside', [False, True])
def test_another_kind_is_refused_by_its_name(base, tmp_path, kind, suffix, beside):
  tensors = {f'base_model.model.{Q0}{suffix}': np.ones((2, 3), np.float32)}
  tensors |= peft_of(factors(base, (K0,))) if beside else {}
  save_file(tensors, tmp_path / 'a.safetensors')
  key = rf'base_model\.model\.{Q0}{suffix}'
  refused(base, tmp_path / 'a.safetensors', f'holds {kind}, as {key}, which is not read')
  assert are_adapters(tmp_path / 'a.safetensors') == (beside or kind != 'parameters themselves')


def test_shared_matrices_of_vera_and_prompts_are_refused_by_their_kind(base, tmp_path):
  for key, kind in (('base_model.vera_A', 'VeRA'), ('prompt_embeddings', 'prompt')):
    save_file({key: np.ones((2, 3), np.float32)}, tmp_path / 'a.safetensors')
    refused(base, tmp_path / 'a.safetensors', f'holds {kind}, as {key}')


def test_keys_that_fit_nothing_are_named(base, tmp_path):
  for key in (f'transformer.{Q0}.lora_C.x_y.weight_v', f'controlnet.{Q0}.lora_A.weight', 'x', ''):
    save_file({key: np.ones((4, 8), np.float32)}, tmp_path / 'a.safetensors')
    refused(base, tmp_path / 'a.safetensors', 'holds|1 of its 1 keys do not fit')


# Tensors

TYPES = [
  *('float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz', 'bfloat16'),
  *('float16', 'float32', 'float64'),
]


@pytest.mark.parametrize('dtype', TYPES)
def test_tensors_of_every_float_are_read(base, tmp_path, dtype):
  pairs = factors(base, (Q0, Q1, LINEAR, CONV), dtype=jnp.dtype(dtype))
  several = {m: each.astype(dtype) for m, each in magnitudes(base, (Q0,)).items()}
  tensors = named(pairs) | {f'transformer.{LINEAR}.alpha': np.array(3, dtype)}
  save_file(
    tensors | {f'transformer.{Q0}.lora_magnitude_vector': several[Q0]}, tmp_path / 'a.safetensors'
  )
  scales = {LINEAR: 3 / 4}
  wanted = {m: kernel_of(base, m) + scales.get(m, 1) * change(pair) for m, pair in pairs.items()}
  wanted[Q0] = dora(base, Q0, pairs[Q0], 1, several[Q0])
  check_merged(base, tmp_path / 'a.safetensors', wanted)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused(base, tmp_path, dtype, value):
  pairs = factors(base, (Q0,), dtype=jnp.dtype(dtype))
  pairs[Q0][0][1, 2] = value
  save_file(named(pairs), tmp_path / 'a.safetensors')
  if np.isfinite(pairs[Q0][0].astype(np.float32)).all():  # of a type that saturates
    return
  refused(base, tmp_path / 'a.safetensors', r'lora_A\.weight in .* has NaN or infinite numbers')


@pytest.mark.parametrize('dtype', ['i4', 'u1', '?', 'c8'])
def test_what_is_no_float_is_refused(base, tmp_path, dtype):
  save_file(named(factors(base, (Q0,), dtype=dtype)), tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', r'lora_[AB]\.weight of \w+; expected finite floats')


@pytest.mark.parametrize(
  ('a', 'b'),
  [
    *(((0, 8), (6, 0)), ((4, 8), (6,)), ((), (6, 4)), ((4,), (6, 4)), ((4, 8), (6, 5))),
    *(
      ((4, 7), (6, 4)),
      ((4, 8), (5, 4)),
      ((8, 4), (4, 6)),
      ((4, 8, 1), (6, 4)),
      ((4, 8), (6, 4, 2)),
    ),
    *(((4, 8), (6, 0)), ((2, 4, 8), (2, 6, 4))),
  ],
)
def test_matrices_of_another_shape_are_refused(base, tmp_path, a, b):
  save_file(
    named({Q0: (np.ones(a, np.float32), np.ones(b, np.float32))}), tmp_path / 'a.safetensors'
  )
  refused(base, tmp_path / 'a.safetensors', 'of another model: A|expected a matrix')


@pytest.mark.parametrize(
  'left', ['alpha', 'lora_magnitude_vector', 'lora_A.weight', 'lora_B.weight']
)
def test_a_part_alone_is_refused(base, tmp_path, left):
  tensors = {f'transformer.{Q0}.{left}': np.ones((4, 8), np.float32)}
  save_file(tensors | named(factors(base, (K0,))), tmp_path / 'a.safetensors')
  refused(
    base,
    tmp_path / 'a.safetensors',
    f'one of A and B alone, or none, beside transformer.{Q0}.{left}',
  )


def test_a_scale_beyond_all_numbers_is_refused(base, tmp_path):
  a, b = factors(base, (Q0,))[Q0]
  path = write_peft(tmp_path / 'out', peft_of({Q0: (99 * a, b)}), lora_alpha=3e38)
  refused(base, path, 'changes backbone/layers/attention/query/kernel by no finite number')


@pytest.mark.parametrize(
  'text', ['{"transformer.r": 4', '[4, 7]', 'x', '', 'null', '"x"', '[' * 9999]
)
def test_a_header_of_diffusers_that_is_damaged_is_refused(base, tmp_path, text):
  save_file(
    named(factors(base, (Q0,))), tmp_path / 'a.safetensors', {'lora_adapter_metadata': text}
  )
  refused(base, tmp_path / 'a.safetensors', 'no readable JSON|expected dict')


def test_settings_of_another_prefix_are_refused(base, tmp_path):
  said = json.dumps({'unet.r': 4, 'unet.lora_alpha': 7})
  save_file(
    named(factors(base, (Q0,))), tmp_path / 'a.safetensors', {'lora_adapter_metadata': said}
  )
  refused(base, tmp_path / 'a.safetensors', rf'does not describe transformer\.{Q0}; expected r and')
