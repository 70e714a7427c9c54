"""Names, scales and settings of adapters mean what peft and trainers meant by them."""

import itertools
import math
import os
import time

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.sections.flow.lora_files import are_adapters, read_adapters
from tests.sections.flow.lora_forms import (
  CONV,
  K0,
  LINEAR,
  Q0,
  Q1,
  check_scaled,
  factors,
  make_base,
  named,
  of_peft,
  peft_of,
  refused,
  write_peft,
)


@pytest.fixture(scope='module')
def base():
  return make_base()


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


@pytest.mark.parametrize(
  ('a', 'b'), [('.style', '.other'), ('', '.other'), ('.style', ''), ('.default', '.style')]
)
def test_a_and_b_of_two_adapters_are_refused_by_both_names(base, tmp_path, a, b):
  one, two = (f'{Q0}.lora_{role}{name}.weight' for role, name in (('A', a), ('B', b)))
  first, second = factors(base, (Q0,))[Q0]
  save_file({one: first, two: second}, tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', f'adapters of {Q0} twice, as .*{one}.* and as .*{two}')


def test_a_magnitude_of_another_adapter_is_refused(base, tmp_path):
  pairs = factors(base, (Q0,))
  tensors = named(pairs, '{}.lora_{}.style.weight')
  key = f'{Q0}.lora_magnitude_vector.other'
  save_file(tensors | {key: np.ones(6, np.float32)}, tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', f'adapters of {Q0} twice')


def test_a_file_without_tensors_is_refused(base, tmp_path):
  save_file({}, tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', 'has no tensors; expected adapters')


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


def test_an_alpha_of_0_which_projects_read_differently_is_refused(base, tmp_path):
  tensors = named(factors(base, (Q0,))) | {f'transformer.{Q0}.alpha': np.array(0, np.float32)}
  save_file(tensors, tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', f'{Q0}.alpha = 0, which kohya reads as the rank')


HEADERS = [
  # ss_network_alpha, ss_network_dim, how often B A counts; None: refused
  ('7', '4', 7 / 4),
  ('7.5', '4', 7.5 / 4),
  ('None', '4', 1),
  ('7', None, 7 / 4),
  ('', '4', 1),
  ('7', '', 7 / 4),
  (None, '4', 1),
  ('Dynamic', 'Dynamic', None),
  *((each, None, None) for each in ('nan', '1e400', 'eight', '8_0', '\u0668', ' 8', '0x8')),
  *(('8', each, None) for each in ('4_0', '\u0664', '4 ', 'four')),
  ('0', '4', 1),
  *(
    ('nan', '4', None),
    ('inf', '4', None),
    ('7', '0', None),
    ('7', 'nan', None),
    ('7', '-4', None),
    ('8', '16', None),  # of tensors of rank 4
  ),
  *(('x', '4', None), ('1e999', '4', None), ('7', 'inf', None), ('0', '0', None)),
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
      'ss_network_alpha = .* and ss_network_dim = .*a rank above 0|dim = 16, and tensors of rank 4',
    )
  else:
    check_scaled(base, tmp_path / 'a.safetensors', pairs, scale)


def test_settings_lie_beside_a_file_of_peft_that_is_named_itself(base, tmp_path):
  path, pairs = of_peft(tmp_path, base, 'peft', {})
  check_scaled(base, path / 'adapter_model.safetensors', pairs, 7 / 4)
  (path / 'adapter_config.json').unlink()
  refused(base, path, 'adapter_config.json.* cannot be read: No such file')


@pytest.mark.parametrize('name', ['style.safetensors', 'pytorch_lora_weights.safetensors'])
def test_settings_lie_beside_a_file_of_peft_that_was_renamed(base, tmp_path, name):
  path, pairs = of_peft(tmp_path, base, 'peft', {})
  (path / 'adapter_model.safetensors').rename(path / name)
  check_scaled(base, path / name, pairs, 7 / 4)
  save_file(named(pairs), path / name)  # of another project, which has no such settings
  check_scaled(base, path / name, pairs, 1)


def test_a_folder_of_diffusers_is_read(base, tmp_path):
  path, pairs = of_peft(tmp_path, base, 'diffusers', {})
  (tmp_path / 'folder').mkdir()
  path.rename(tmp_path / 'folder/pytorch_lora_weights.safetensors')
  assert are_adapters(tmp_path / 'folder')
  check_scaled(base, tmp_path / 'folder', pairs, 7 / 4)


def test_a_folder_of_two_files_is_refused_by_both_names(base, tmp_path):
  path, _ = of_peft(tmp_path, base, 'peft', {})
  (path / 'pytorch_lora_weights.safetensors').write_bytes(
    (path / 'adapter_model.safetensors').read_bytes()
  )
  refused(base, path, 'both adapter_model.safetensors and pytorch_lora_weights.safetensors; give')


@pytest.mark.parametrize('kind', ['fifo', 'zeros', 'folder'])
def test_settings_that_are_no_file_are_refused_at_once(base, tmp_path, kind):
  path, _ = of_peft(tmp_path, base, 'peft', {})
  settings = path / 'adapter_config.json'
  settings.unlink()
  make = {'fifo': lambda: os.mkfifo(settings), 'folder': settings.mkdir}
  make.get(kind, lambda: settings.symlink_to('/dev/zero'))()
  refused(base, path, 'adapter_config.json.* cannot be read: it is no regular file')


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
    ({'layers_to_transform': [0]}, Q1),
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
  *(
    ({field: value}, f'{field} = .*; expected an object of names and numbers')
    for field, value in itertools.product(
      ('alpha_pattern', 'rank_pattern'), (['query'], 5, 'query', True)
    )
  ),
  ({'alpha_pattern': {'(': 3}}, 'no regular expressions'),
  ({'alpha_pattern': {'*': 3}}, 'no regular expressions'),
  ({'alpha_pattern': {'[': 3, '\x1b': 4}}, 'no regular expressions'),
  *(
    ({field: value}, f'{field} = .*; expected a list of names, or a regular expression')
    for field, value in itertools.product(
      ('target_modules', 'exclude_modules'), (5, {'query': 1}, True)
    )
  ),
  *(
    ({'layers_to_transform': value}, 'layers_to_transform = .*; expected a list of numbers')
    for value in ('0', {'0': 1}, 0.5)
  ),
  ({'use_rslora': 'false'}, "use_rslora = 'false'; expected true or false"),
  ({'use_dora': 'no'}, "use_dora = 'no'; expected true or false"),
  ({'use_dora': True}, rf'use_dora = True of {K0}, whose tensors have False'),
]


@pytest.mark.parametrize('where', ['peft', 'diffusers'])
@pytest.mark.parametrize(('settings', 'said'), WRONG)
def test_settings_that_make_no_sense_are_refused(base, tmp_path, where, settings, said):
  path, _ = of_peft(tmp_path, base, where, settings)
  refused(base, path, said)
