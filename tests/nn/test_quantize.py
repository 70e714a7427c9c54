"""Weights of sampling in fewer bits: how far they are off, what they reach, where they lie."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import flag_values
from mgjax.core.errors import ConfigError
from mgjax.core.precision import STORED
from mgjax.core.tree import named_leaves
from mgjax.lab.planning.memory import weight_bytes
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.flow_model.model import FlowModel
from mgjax.nn.linear import Linear, Map
from mgjax.nn.quantize import (
  bytes_of,
  count,
  dequantised,
  quantised_as,
  store,
  stored_shapes,
)
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_place, parameter_shardings, put_batch
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
QUANTISED = ['int8', 'fp8']
MESH = {'fsdp': 2, 'context': 2, 'tensor': 2}


def model(depth=2, width=32, **fields):
  text = ByteText(width, width=16, depth=1, heads=2, length=7, name='text')
  backbone = Transformer(width, depth, 4, 48, (3, 3, 3), name='backbone', **fields)
  return FlowModel(backbone, (text,))


def inputs():
  rng = np.random.default_rng(0)
  latents = jnp.float32(rng.normal(size=(8, 3, 6, 6, 4)))
  text = jnp.int32(rng.integers(1, 200, (8, 7)))
  return latents, jnp.linspace(0, 1, 8), {'text': text}, {}


def params_of(model):
  return jax.tree.map(jnp.asarray, random_parameters(model.init, *inputs()))


def boxes_of(model):
  return jax.eval_shape(model.init, jax.random.key(0), *inputs())['params']


def kernel(*shape):
  """Of outputs whose sizes differ by six orders of magnitude, and one that is nothing."""
  rng = np.random.default_rng(0)
  found = rng.normal(size=shape) * np.logspace(-3, 3, shape[-1])
  found[..., 1] = 0
  return jnp.float32(found)


def bound(kernel, scale, weights):
  """How far q s is from W: half a step of q, and the roundings of W / s, of at most 127 or 448."""
  scale = np.asarray(scale, np.float64)[..., None, :]
  if weights == 'int8':
    return scale * (0.5 + 127 * EPS)
  # Three bits behind the first one; below 2 ** -6 steps are of 2 ** -9.
  return np.maximum(np.abs(kernel) * 2.0**-4, scale * 2.0**-10) * (1 + 4 * EPS)


@pytest.mark.parametrize('weights', QUANTISED)
@pytest.mark.parametrize('shape', [(64, 24), (3, 64, 24)], ids=['one', 'layers'])
def test_every_weight_is_off_by_half_a_step_of_its_output_at_most(weights, shape):
  w = kernel(*shape)
  found = store({'backbone': {'kernel': w}}, weights)['backbone']['kernel']
  q, scale = np.asarray(found['quantised'], np.float64), found['scale']
  assert found['quantised'].dtype == STORED[weights]
  assert scale.shape == (*shape[:-2], shape[-1])
  back = dequantised({'backbone': {'kernel': found}})['backbone']['kernel']
  np.testing.assert_allclose(back, q * np.asarray(scale)[..., None, :], rtol=EPS)
  off = np.abs(np.asarray(w, np.float64) - q * np.asarray(scale, np.float64)[..., None, :])
  assert (off <= bound(np.asarray(w), scale, weights)).all()
  assert (np.abs(q).max(axis=-2)[..., 2:] == (127 if weights == 'int8' else 448)).all()


@pytest.mark.parametrize('weights', QUANTISED)
def test_every_product_is_off_by_the_bound_of_its_layer_at_most(weights):
  x, w = jax.random.normal(jax.random.key(1), (5, 64)), kernel(64, 24)
  stored = store({'backbone': {'kernel': w}}, weights)['backbone']
  layer = Linear(24, ('embed', 'hidden'))
  y, other = (layer.apply({'params': each}, x) for each in ({'kernel': w}, stored))
  off = bound(np.asarray(w), stored['kernel']['scale'], weights)
  # And one rounding a term of either sum.
  terms = np.abs(x) @ np.broadcast_to(off, w.shape) + 2 * 65 * EPS * (np.abs(x) @ np.abs(w))
  assert (np.abs(y - other) <= terms).all()
  assert not np.array_equal(y, other)


def test_every_kernel_of_the_backbone_is_reached_and_nothing_else():
  seen, params = set(), params_of(model())

  def watch(call, args, kwargs, context):
    if isinstance(context.module, Linear | Map) and context.module.path[0] == 'backbone':
      seen.add('/'.join((*context.module.path, 'kernel')))
    return call(*args, **kwargs)

  with nn.intercept_methods(watch):
    jax.eval_shape(model().apply, {'params': params}, *inputs())
  found = count(params, 'int8')
  assert set(found.kernels) == seen and len(found.kernels) == len(seen)
  before, after = named_leaves(params), named_leaves(store(params, 'int8'))
  kept = before.keys() - seen
  assert after.keys() - kept == {f'{n}/{part}' for n in seen for part in ('quantised', 'scale')}
  assert all(after[name] is before[name] for name in kept)
  assert found.before == sum(leaf.nbytes for leaf in before.values())
  assert found.after == sum(leaf.nbytes for leaf in after.values())
  assert found.numbers == sum(before[name].size for name in seen)
  assert f'{len(seen)} kernels, {found.numbers:,} of {found.parameters:,} parameters' in str(found)


@pytest.mark.parametrize('weights', STORED)
def test_bytes_and_shapes_are_known_without_the_weights(weights):
  params, boxes = params_of(model()), boxes_of(model())
  made = named_leaves(store(params, weights))
  shapes = named_leaves(nn.unbox(stored_shapes(boxes, weights)))
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in made.items()} == {
    name: (leaf.shape, leaf.dtype) for name, leaf in shapes.items()
  }
  total = sum(leaf.nbytes for leaf in made.values())
  assert bytes_of(boxes, weights) == bytes_of(params, weights) == total
  assert bytes_of(boxes) == sum(leaf.nbytes for leaf in named_leaves(params).values())


@pytest.mark.parametrize('weights', ['int8', pytest.param('fp8', marks=pytest.mark.slow)])
def test_sharded_is_unsharded(weights):
  params, mesh = params_of(model()), make_mesh(MESH, 'fsdp_tp_cp')
  stored = store(params, weights)
  spread = store(
    jax.tree.map(jax.device_put, params, parameter_shardings(boxes_of(model()), mesh)), weights
  )
  place = make_place(boxes_of(model()), mesh)
  for name, leaf in named_leaves(spread).items():
    # As load_params puts it there.
    assert leaf.sharding.is_equivalent_to(place(name, leaf.shape), leaf.ndim), name
    np.testing.assert_array_equal(leaf, named_leaves(stored)[name], err_msg=name)
  up = spread['backbone']['layers']['feed_forward']['up']['kernel']
  assert up['quantised'].addressable_shards[0].data.size * 8 == up['quantised'].size
  here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(spread))
  assert here == weight_bytes(stored_shapes(boxes_of(model()), weights), dict(mesh.shape))
  x, time, batch, _ = inputs()
  expected = model().apply({'params': stored}, x, time, batch, {})
  with jax.set_mesh(mesh):
    given = put_batch({'x': x, 'time': time, **batch}, mesh)
    apply = jax.jit(
      lambda params, x, time, batch: model().apply({'params': params}, x, time, batch, {})
    )
    compiled = apply.lower(spread, given['x'], given['time'], {'text': given['text']}).compile()
    found = compiled(spread, given['x'], given['time'], {'text': given['text']})
  # As the gradients of tests/parallel/test_sharded_step.py: sums of 3 layers in another order.
  np.testing.assert_allclose(
    found, expected, atol=float(np.sqrt(3 * 400 * 64) * EPS) * float(np.abs(expected).max())
  )
  if weights == 'int8':
    assert re.search(r's8\[[\d,]+\]\S* all-gather\(', compiled.as_text())  # one byte travels


def test_wide_weights_of_all_layers_never_are_at_once():
  network = model(depth=8, width=128)
  params, needed = params_of(network), {}
  for weights in ('float32', 'int8'):
    run = jax.jit(
      lambda params, x, time, batch: network.apply({'params': params}, x, time, batch, {})
    )
    compiled = run.lower(store(params, weights), *inputs()[:3]).compile()
    needed[weights] = compiled.memory_analysis().temp_size_in_bytes
  layers = bytes_of(params['backbone']['layers'])
  assert needed['int8'] - needed['float32'] < 2 * layers / 8


@pytest.mark.parametrize('weights', ['', 'float32'])
def test_weights_as_they_are_saved_stay_as_they_are(weights):
  params = params_of(model())
  same = named_leaves(store(params, weights))
  assert all(
    leaf is same[name] or np.array_equal(leaf, same[name])
    for name, leaf in named_leaves(params).items()
  )
  quantised = store(params, 'int8')
  assert store(quantised, '') is quantised and store(quantised, 'int8') is quantised
  assert quantised_as(named_leaves(quantised)) == 'int8'
  assert quantised_as(named_leaves(params)) == ''


def test_what_cannot_be_reached_is_an_error():
  params = params_of(model())
  with pytest.raises(ConfigError, match="unknown type of weights 'int4'; expected one of float32"):
    store(params, 'int4')
  with pytest.raises(ConfigError, match=r"'int8', and none of \d+ parameters is a kernel of"):
    store({'text': params['text']}, 'int8')
  with pytest.raises(ConfigError, match="'fp8', and these were saved as 'int8'"):
    store(store(params, 'int8'), 'fp8')
  assert tuple(STORED) == flag_values.WEIGHTS
