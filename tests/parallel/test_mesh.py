"""The mesh, the table, and arrays in their places."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mgjax.core import axes
from mgjax.core.errors import ConfigError
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import AXES, BATCH, PARAMETERS, PRESETS, TOKENS, partition
from mgjax.parallel.shard import make_initialise, parameter_shardings, put_batch


@pytest.mark.parametrize(
  ('sizes', 'shape'),
  [
    (None, (1, 8, 1, 1, 1)),
    ({'data': -1}, (1, 8, 1, 1, 1)),
    ({'data': 2, 'fsdp': -1}, (1, 2, 4, 1, 1)),
    ('context=8', (1, 1, 1, 8, 1)),
    ('data=2, fsdp=-1', (1, 2, 4, 1, 1)),
    ({'fsdp': 2, 'context': 2, 'tensor': 2}, (1, 1, 2, 2, 2)),
  ],
)
def test_mesh_has_all_devices_and_all_axes(sizes, shape):
  mesh = make_mesh(sizes)
  assert mesh.axis_names == AXES
  assert mesh.devices.shape == shape


ANY, TEXT = 'fsdp_tp_cp', 'expected sizes of axes'


@pytest.mark.parametrize(
  ('sizes', 'rules', 'message'),
  [
    ({'model': 8}, ANY, r"unknown mesh axes \['model'\]; expected some of slice, data, fsdp"),
    ({'data': 3}, ANY, r'does not fit 8 device\(s\)'),
    ({'data': -1, 'fsdp': -1}, ANY, r'does not fit 8 device\(s\); .* one of them may be -1'),
    ({'data': 0}, ANY, r'does not fit 8 device\(s\)'),
    ({'data': 4}, ANY, r'uses 4 of 8 device\(s\)'),
    *(
      (each, ANY, f"the mesh '{each}': {TEXT}, as in fsdp=32,context=16")
      for each in ('context', 'context=4,context=2', 'context=0', 'context=1e3')
    ),
    ({'tensor': 8}, 'fsdp', "mesh.tensor = 8, but the rules 'fsdp' .* take --config.rules=fsdp_tp"),
    ({'context': 8}, 'fsdp_tp', 'mesh.context = 8, .* take --config.rules=fsdp_cp'),
    ({'fsdp': 8}, 'single', 'mesh.fsdp = 8, .* take --config.rules=fsdp'),
    ({'fsdp': 8}, 'zero', "unknown sharding rules 'zero'; expected one of single, fsdp"),
  ],
)
def test_axes_and_sizes_that_do_not_fit_are_a_sentence(sizes, rules, message):
  with pytest.raises(ConfigError, match=message):
    make_mesh(sizes, rules)


@pytest.mark.parametrize('rules', PRESETS)
def test_a_preset_takes_the_axes_it_names(rules):
  for axis in PRESETS[rules]:
    assert make_mesh({axis: 8}, rules).shape[axis] == 8


def test_a_mesh_axis_is_used_once_and_only_where_it_divides():
  mesh = make_mesh({'fsdp': 8})
  assert partition(('embed', 'hidden'), (16, 24), mesh) == P('fsdp', None)
  assert partition(('embed', 'embed'), (16, 16), mesh) == P('fsdp', None)
  assert partition(('embed', 'embed'), (12, 16), mesh) == P(None, 'fsdp')
  mesh = make_mesh({'fsdp': 2, 'context': 2, 'tensor': 2})
  assert partition(('embed', 'hidden'), (16, 24), mesh) == P(('context', 'fsdp'), 'tensor')
  assert partition(('hidden', 'embed'), (7, 6), mesh) == P(None, 'context')  # by 2, not by 4


def test_vectors_stay_whole():
  mesh = make_mesh({'fsdp': 8})
  assert partition(('embed',), (16,), mesh) == P(None)
  assert partition(('layers', 'embed'), (8, 16), mesh) == P(None, None)


def test_unknown_names_are_sentences():
  for names in (('width',), (None,), ('embed', 'embed')):
    with pytest.raises(ConfigError, match=r'shape \(8,\) names its axes'):
      partition(names, (8,), make_mesh())


def test_the_table_speaks_of_axes_that_exist():
  assert PARAMETERS.keys() <= axes.LOGICAL_AXES.keys()
  for used in (BATCH, TOKENS, *PARAMETERS.values(), *PRESETS.values()):
    assert set(used) <= set(AXES)


def test_a_parameter_without_axes_is_an_error():
  with pytest.raises(ConfigError, match=r'a parameter of shape \(3, 4\) has no logical axes'):
    parameter_shardings({'kernel': jnp.zeros((3, 4))}, make_mesh())


def test_parameters_are_made_in_their_shards():
  def init(key):
    value = jax.random.normal(key, (16, 4))
    return {'kernel': nn.LogicallyPartitioned(value, ('embed', 'hidden'))}

  initialise, shardings = make_initialise(init, make_mesh({'fsdp': 8}))
  kernel = initialise(jax.random.key(0))['kernel']
  assert kernel.sharding == shardings['kernel']
  assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 4)}
  np.testing.assert_array_equal(kernel, init(jax.random.key(0))['kernel'].value)


def test_rows_of_a_batch_lie_on_their_devices():
  batch = {'text': np.arange(16, dtype=np.int32).reshape(8, 2)}
  placed = put_batch(batch, make_mesh({'data': 2, 'fsdp': 4}))['text']
  assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 2)}
  np.testing.assert_array_equal(placed, batch['text'])


def test_rows_that_devices_cannot_share_are_a_sentence():
  with pytest.raises(ConfigError, match=r"'text' has 6 rows, which 8 groups of devices cannot"):
    put_batch({'text': np.zeros((6, 2))}, make_mesh())
