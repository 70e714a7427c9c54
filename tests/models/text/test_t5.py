"""The T5 family: what transformers answers, whatever the padding, the mesh and the type."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.foreign_weights.names import import_tensors
from mgjax.models.text.t5 import T5Encoder, buckets_of
from mgjax.models.text.t5_weights import EXPECTED, t5_rows
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import parameter_shardings
from tests.oracles import t5 as oracle

WITHIN = 1e-5  # of states of some 4, float32 through two or three layers


def boxed(encoder):
  example = jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), bool)
  return jax.eval_shape(encoder.init, jax.random.key(0), *example)['params']


@functools.cache
def case(name):
  """An encoder, and the drawn tensors in its places."""
  encoder = T5Encoder(**oracle.MODELS[name])
  with np.load(oracle.VECTORS) as file:
    shapes = json.loads(str(file[f'{name}/shapes']))
  tensors = {key: oracle.draw(key, shape, encoder.head_size) for key, shape in shapes.items()}
  params, _ = import_tensors(
    t5_rows(oracle.MODELS[name]), tensors, nn.unbox(boxed(encoder)), expected=EXPECTED
  )
  return encoder, params


@functools.partial(jax.jit, static_argnums=0)
def run(encoder, params, tokens, mask):
  return encoder.apply({'params': params}, tokens, mask)


@pytest.mark.parametrize('length', oracle.LENGTHS)
@pytest.mark.parametrize('name', oracle.MODELS)
def test_states_are_those_of_transformers(name, length):
  tokens, mask = oracle.draw_tokens(name, length)
  ours = oracle.shown(np.asarray(run(*case(name), tokens, mask)))
  with np.load(oracle.VECTORS) as file:
    expected = file[f'{name}/{length}']
  read = oracle.shown(mask[..., None])[..., 0]
  np.testing.assert_allclose(ours[read], expected[read], rtol=0, atol=WITHIN)


@pytest.mark.parametrize('name', ['t5_1_1', 'umt5'])
def test_padding_changes_nothing_at_either_end(name):
  encoder, params = case(name)
  tokens, _ = oracle.draw_tokens(name, 7)
  tokens, all_read = tokens[:1], np.ones((1, 7), bool)
  alone = run(encoder, params, tokens, all_read)
  for before, after in ((0, 9), (9, 0), (4, 5)):
    edges = ((0, 0), (before, after))
    padded = run(encoder, params, np.pad(tokens, edges, constant_values=3), np.pad(all_read, edges))
    np.testing.assert_allclose(padded[:, before : before + 7], alone, rtol=0, atol=WITHIN)


def test_bfloat16_is_near():
  encoder, params = case('ul2')
  tokens, mask = oracle.draw_tokens('ul2', 7)
  exact = run(encoder, params, tokens, mask)
  near = run(encoder.clone(dtype=jnp.bfloat16), params, tokens, mask)
  kept = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
  nearer = run(encoder.clone(dtype=jnp.bfloat16), kept, tokens, mask)
  assert near.dtype == nearer.dtype == jnp.bfloat16
  # Eight bits, and a few roundings of each of some twenty results.
  scale = float(jnp.abs(exact).max())
  for each in (near, nearer):
    distance = jnp.abs(each.astype(jnp.float32) - exact).max()
    assert distance < 20 * 2**-9 * scale


@pytest.mark.parametrize('sizes', [{'fsdp': 8}, {'fsdp': 2, 'context': 2, 'tensor': 2}])
def test_a_mesh_gives_the_same_states(sizes):
  encoder = T5Encoder(**(oracle.MODELS['ul2'] | {'dim': 32, 'vocabulary': 64}))
  rng = np.random.default_rng(0)
  shapes = boxed(encoder)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.2, nn.unbox(shapes)
  )
  tokens = rng.integers(0, 64, (8, 16)).astype(np.int32)
  mask = np.arange(16)[None] < np.array([[16], [3], [9], [1], [2], [15], [8], [4]])
  alone = run(encoder, params, tokens, mask)
  mesh = make_mesh(sizes)
  placed = jax.device_put(params, parameter_shardings(shapes, mesh))
  for kernel in (placed['tokens'], placed['layers']['feed_forward']['up']):
    assert not kernel['kernel'].sharding.is_fully_replicated
  with jax.set_mesh(mesh):
    meshed = jax.jit(lambda p, *x: encoder.apply({'params': p}, *x))(placed, tokens, mask)
  np.testing.assert_allclose(meshed, alone, rtol=0, atol=WITHIN)


def test_buckets_are_halves_by_direction_and_grow_with_distance():
  near = buckets_of(300, 32, 128)
  assert (np.diagonal(near) == 0).all()
  assert near[0, 1:8].tolist() == [*range(17, 24)]
  assert near[7, :7].tolist() == [7, 6, 5, 4, 3, 2, 1]
  assert near[0, 16] == 16 + 10 and near[0, 127] == near[0, 299] == 31 and near[299, 0] == 15
  assert (np.diff(near[0, 1:]) >= 0).all() and (np.diff(near[:, 0]) >= 0).all()
