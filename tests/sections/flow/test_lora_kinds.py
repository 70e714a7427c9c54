"""DoRA and every type of numbers are read, other kinds of adapters are refused by their names."""

import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves, nest
from mgjax.nn.lora import joined, merge
from mgjax.nn.quantize import dequantised, store
from mgjax.sections.flow.lora_files import are_adapters, read_adapters
from tests.sections.flow.lora_forms import (
  CONV,
  K0,
  LINEAR,
  Q0,
  Q1,
  change,
  check_merged,
  factors,
  kernel_of,
  make_base,
  named,
  peft_of,
  place,
  refused,
  write_peft,
)


@pytest.fixture(scope='module')
def base():
  return make_base()


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
  'differences of parameters': ('.diff_g', '.set_weight', '.w_norm', '.b_norm'),
  'parameters themselves': ('.weight', '.bias', '.base_layer.bias', '.modules_to_save.weight'),
  'LoRA with more tensors than A and B': ('.lora_A.weight_scale', '.lora_up.weight_scale_inv'),
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


def test_differences_of_parameters_of_any_kind_are_read(base, tmp_path):
  random = np.random.default_rng(7)
  pairs = factors(base, (Q0,))
  changes = {
    Q1: random.normal(size=(6, 8)).astype('f4'),
    CONV: random.normal(size=(8, 5, 2, 3)).astype('f4'),
  }
  tensors = {f'{module}.diff': change for module, change in changes.items()}
  tensors |= {f'lora_unet_{LINEAR}.diff_b': np.arange(4, dtype=np.float16)}
  save_file(named(pairs) | tensors, tmp_path / 'a.safetensors')
  assert are_adapters(tmp_path / 'a.safetensors')
  wanted = {module: kernel_of(base, module) + change for module, change in changes.items()}
  wanted[Q0] = kernel_of(base, Q0) + change(pairs[Q0])
  adapters = read_adapters(tmp_path / 'a.safetensors', base)
  for several, count in (([(adapters, 1.0)], 1), ([(adapters, 0.5), (adapters, 1.5)], 2)):
    merged = named_leaves(merge(joined(several), base))
    for module, kernel in wanted.items():
      name, layer = place(module)
      before = kernel_of(base, module)
      found = np.moveaxis(np.asarray(merged[name][layer]), (-1, -2), (0, 1))
      np.testing.assert_allclose(found, before + count * (kernel - before), rtol=1e-5, atol=1e-5)
    bias = named_leaves(base)['head/bias'] + count * np.arange(4)
    np.testing.assert_allclose(merged['head/bias'], bias, rtol=1e-5)
  save_file({f'{LINEAR}.diff_b': np.full(4, 2, 'f4')}, tmp_path / 'b.safetensors')
  with pytest.raises(ConfigError, match='change head/bias by no finite number'):
    joined([(read_adapters(tmp_path / 'b.safetensors', base), 3e38)])


@pytest.mark.parametrize('suffix', ['.diff', '.diff_b', '.diff_m'])
def test_differences_that_do_not_fit_are_refused(base, tmp_path, suffix):
  save_file({f'{Q0}{suffix}': np.ones((2, 3), np.float32)}, tmp_path / 'a.safetensors')
  assert are_adapters(tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', f'is of another model: .*{Q0}{suffix}')


def test_shared_matrices_of_vera_and_prompts_are_refused_by_their_kind(base, tmp_path):
  for key, kind in (('base_model.vera_A', 'VeRA'), ('prompt_embeddings', 'prompt')):
    save_file({key: np.ones((2, 3), np.float32)}, tmp_path / 'a.safetensors')
    refused(base, tmp_path / 'a.safetensors', f'holds {kind}, as {key}')


def test_keys_that_fit_nothing_are_named(base, tmp_path):
  for key in (f'transformer.{Q0}.lora_C.x_y.weight_v', f'controlnet.{Q0}.lora_A.weight', 'x', ''):
    save_file({key: np.ones((4, 8), np.float32)}, tmp_path / 'a.safetensors')
    refused(base, tmp_path / 'a.safetensors', 'holds|1 of its 1 keys do not fit')


@pytest.mark.parametrize('part', ['model.', 'module.', 'lora_', '.lora_A', '.lora_x', 'a', '.'])
def test_names_of_megabytes_take_no_time(base, tmp_path, part):
  began = time.monotonic()
  for end in ('.lora_A.weight', '.bia', '.alpha'):
    save_file({part * 300_000 + end: np.ones((4, 8), np.float32)}, tmp_path / 'a.safetensors')
    refused(base, tmp_path / 'a.safetensors', 'holds|keys do not fit')
  assert time.monotonic() - began < 60


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


INFINITE = [  # A, B and alpha
  (1e30, 1e30, 4),
  (1e38, 8, 4),
  (1e20, 1e20, 4),
  (-1e30, 1e30, 4),
]


@pytest.mark.parametrize(('a', 'b', 'alpha'), INFINITE)
@pytest.mark.parametrize('module', [Q1, LINEAR, CONV])
def test_finite_factors_of_an_infinite_product_are_refused(base, tmp_path, module, a, b, alpha):
  one, two = factors(base, (module,))[module]
  tensors = named({module: (np.full_like(one, a), np.full_like(two, b))})
  tensors[f'transformer.{module}.alpha'] = np.array(alpha)
  save_file(tensors, tmp_path / 'a.safetensors')
  refused(base, tmp_path / 'a.safetensors', f'changes {place(module)[0]} by no finite number')


def test_large_factors_of_a_small_product_are_read(base, tmp_path):
  """The largest numbers of A and of B do not meet, so only the product says that it is finite."""
  a, b = factors(base, (Q0,))[Q0]
  a[0], b[:, 0], a[1], b[:, 1] = 1e30, 1e-30, 1e-30, 1e30
  save_file(named({Q0: (a, b)}), tmp_path / 'a.safetensors')
  check_merged(base, tmp_path / 'a.safetensors', {Q0: kernel_of(base, Q0) + change((a, b))})


@pytest.mark.parametrize('weights', [(3e38, 1), (1, -3e38), (2, 2), (1e30, 1e30)])
def test_adapters_that_are_infinite_together_are_refused(base, tmp_path, weights):
  several = []
  for number, weight in enumerate(weights):
    pair = tuple(np.full_like(each, 8e18) for each in factors(base, (Q0,), rank=2)[Q0])
    save_file(named({Q0: pair}), tmp_path / f'{number}.safetensors')
    several.append((read_adapters(tmp_path / f'{number}.safetensors', base), weight))
  with pytest.raises(ConfigError, match=r'with the weights .* change backbone/.* by no finite'):
    joined(several)
  joined([(adapters, 0.1) for adapters, _ in several])


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
