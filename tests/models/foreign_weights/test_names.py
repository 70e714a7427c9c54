"""Tables of names: every tensor and every parameter is accounted for, and every bit comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.foreign_weights.names import (
  TRANSPOSED,
  TensorName,
  arrange,
  export_tensors,
  import_tensors,
)
from tests.tensors import assert_same, changed

ROWS = (
  TensorName('embed/table', ('shared.weight', 'encoder.embed_tokens.weight')),
  TensorName('layers/up/kernel', 'block.{layer}.up.weight', TRANSPOSED),
  TensorName('layers/norm/scale', 'block.{layer}.norm.weight'),
  TensorName('key/kernel', 'fused.weight', TRANSPOSED, part=(1, 2)),
  TensorName('query/kernel', 'fused.weight', TRANSPOSED, part=(0, 2)),
  TensorName('patch/kernel', 'conv.weight', (2, 3, 1, 0)),
  TensorName('only/in/others', 'other.{layer}.weight'),
  TensorName(None, 'decoder.*'),
)
SHAPES = {
  'shared.weight': (7, 4),
  'fused.weight': (6, 4),
  'conv.weight': (5, 3, 2, 2),
  **{f'block.{i}.up.weight': (8, 4) for i in range(12)},
  **{f'block.{i}.norm.weight': (4,) for i in range(12)},
}
PARAMS = {
  'embed': {'table': (7, 4)},
  'layers': {'up': {'kernel': (12, 4, 8)}, 'norm': {'scale': (12, 4)}},
  'key': {'kernel': (4, 3)},
  'query': {'kernel': (4, 3)},
  'patch': {'kernel': (2, 2, 3, 5)},
}


def shapes():
  is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), PARAMS, is_leaf=is_shape)


def drawn(dtype=np.float32):
  random = np.random.default_rng(0)
  return {name: random.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def read(tensors, **how):
  return import_tensors(ROWS, tensors, shapes(), expected='those of a test', **how)


def test_every_tensor_comes_to_its_place():
  tensors = drawn()
  params, left_out = read(tensors)
  assert not left_out
  assert_same(export_tensors(ROWS, params), tensors)
  np.testing.assert_array_equal(params['embed']['table'], tensors['shared.weight'])
  for layer in (0, 2, 11):  # by number: 'block.10' is not the second
    up = params['layers']['up']['kernel'][layer]
    np.testing.assert_array_equal(up, tensors[f'block.{layer}.up.weight'].T)
  np.testing.assert_array_equal(params['query']['kernel'], tensors['fused.weight'][:3].T)
  np.testing.assert_array_equal(params['key']['kernel'], tensors['fused.weight'][3:].T)
  assert params['patch']['kernel'][1, 0, 2, 4] == tensors['conv.weight'][4, 2, 1, 0]


@pytest.mark.parametrize('dtype', [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize('keep_type', [True, False])
def test_export_gives_back_every_bit(dtype, keep_type):
  tensors = drawn(dtype)
  params, _ = read(tensors, keep_type=keep_type)
  leaf = params['layers']['up']['kernel']
  assert leaf.dtype == (dtype if keep_type else np.float32)
  assert_same(export_tensors(ROWS, params, {n: str(t.dtype) for n, t in tensors.items()}), tensors)


def test_a_tensor_may_stand_by_any_of_its_names():
  tensors = drawn()
  expected, _ = read(tensors)
  alias = dict(tensors)
  alias['encoder.embed_tokens.weight'] = alias.pop('shared.weight')
  jax.tree.map(np.testing.assert_array_equal, read(alias)[0], expected)
  assert_same(export_tensors(ROWS, expected, dict.fromkeys(alias, 'float32')), alias)


def test_a_tensor_by_two_names_must_be_one():
  tensors = drawn()
  twice = tensors | {'encoder.embed_tokens.weight': tensors['shared.weight'].copy()}
  params, _ = read(twice)
  assert_same(export_tensors(ROWS, params, dict.fromkeys(twice, 'float32')), twice)
  twice['encoder.embed_tokens.weight'][0, 0] += 1
  with pytest.raises(ConfigError, match=r'shared\.weight and encoder.* are one'):
    read(twice)


def test_what_rows_leave_out_is_named():
  params, left_out = read(drawn() | {'decoder.block.0.up.weight': np.ones(3, np.float32)})
  assert left_out == ['decoder.block.0.up.weight']
  assert set(params) == set(PARAMS)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'block.5.up.weight': None}, r'1 missing \(block.5.up.weight\)'),
    ({'shared.weight': None, 'fused.weight': None}, r'3 missing \(shared.weight, fused'),
    ({'block.12.up.weight': (8, 4)}, r'1 unknown \(block.12.up.weight\)'),
    ({'other.0.weight': (3,)}, r'1 unknown \(other.0.weight\)'),
    ({'block.3.up.weight': (4, 8)}, r'1 of another shape \(block.3.up.weight \(4, 8\)\)'),
    ({'block.3.norm.weight': ()}, r'1 of another shape \(block.3.norm.weight \(\)\)'),
    ({'fused.weight': (7, 4)}, r'of another shape \(fused.weight \(7, 4\)'),
    ({'embed.weight': (7, 4), 'block.5.up.weight': None}, '1 missing .*, 1 unknown .*of a test'),
  ],
)
def test_every_name_and_shape_is_accounted_for(change, message):
  with pytest.raises(ConfigError, match=message):
    read(changed(drawn(), change))


def test_parameters_are_finite_and_may_have_fractions():
  """Of what is left out anything may be there, such as a mask of -inf."""
  whole, endless = np.ones((7, 4), np.int32), np.full((7, 4), -np.inf, np.float16)
  great = np.full((7, 4), 1e300)
  for wrong, name in ((whole, 'int32'), (endless, 'float16'), (great, 'float64')):
    with pytest.raises(ConfigError, match=rf'1 tensors are not of .*\(shared.weight {name}\)'):
      read(drawn() | {'shared.weight': wrong})
    assert read(drawn() | {'decoder.mask': wrong})[1] == ['decoder.mask']


def test_tensors_that_take_no_bytes_are_no_parameters():
  nothing = {'a': jax.ShapeDtypeStruct((0, 2**40), jnp.float32)}
  empty = {'x': np.zeros((0, 2**40), np.float32)}
  with pytest.raises(ConfigError, match=r'1 of another shape \(x \(0, 1099511627776\)\)'):
    import_tensors([TensorName('a', 'x')], empty, nothing, expected='one')
  with pytest.raises(ConfigError, match='1 of another shape'):
    arrange(nothing, {'a': 'x'}, {'a': empty['x']}, empty, 'one')


def test_a_parameter_has_one_row():
  with pytest.raises(ConfigError, match='no row of the parameter new/kernel'):
    export_tensors(ROWS, {'new': {'kernel': np.ones(2)}})
  with pytest.raises(ConfigError, match='two rows of the parameter embed/table'):
    export_tensors((*ROWS, ROWS[0]), {})


def test_place_leaves_what_is_not_named():
  old = {'a': np.zeros(2), 'b': np.ones(3)}
  new = arrange(old, {'a': 'x'}, {'a': np.full(2, 5.0)}, {'x': np.full(2, 5.0)}, 'two')
  np.testing.assert_array_equal(new['a'], [5, 5])
  assert new['b'] is old['b']
  with pytest.raises(ConfigError, match=r'1 missing \(x\), 1 unknown \(y\)'):
    arrange(old, {'a': 'x'}, {}, {'y': np.zeros(2)}, 'two')
