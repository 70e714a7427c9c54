"""Tangents of what has a backward pass of its own are finite differences, on a mesh as well."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.derivatives import forward_mode
from mgjax.nn.attention import attend
from mgjax.nn.depthwise import convolve
from mgjax.nn.linear import products
from mgjax.parallel.mesh import make_mesh
from tests.parallel.test_sharded_step import MESHES, video_model
from tests.random_parameters import random_parameters

# Central differences are off by the third derivative times STEP^2 / 6, and roundings / STEP.
STEP = 1e-5
EXCHANGES = {
  'ring': {'context': 8},
  'ulysses': {'data': 2, 'context': 4},
  'gather': {'data': 2, 'context': 4},
  'ring_ulysses': {'context': 8},
}


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape))


def check(function, *inputs, mesh=None):
  """Compares tangents of a function on a mesh with differences of its values on one device."""
  tangents = [draw(*x.shape, seed=1) for x in inputs]

  def moved(step):
    return function(*(x + step * t for x, t in zip(inputs, tangents, strict=True)))

  expected = jax.tree.map(lambda a, b: (a - b) / (2 * STEP), moved(STEP), moved(-STEP))
  with forward_mode(), jax.set_mesh(make_mesh(mesh)) if mesh else contextlib.nullcontext():
    value, found = jax.jit(lambda *inputs: jax.jvp(function, inputs, tuple(tangents)))(*inputs)
  for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6 * float(jnp.abs(other).max()))
  for one, other in zip(*map(jax.tree.leaves, (value, moved(0.0))), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('mesh', [None, MESHES['fsdp_tp_cp'], MESHES['fsdp']], ids=str)
@pytest.mark.parametrize('tokens', [(2, 8), (2,)], ids=['gathered', 'stays'])
def test_of_linear_maps_and_their_weights(tokens, mesh):
  def maps(x, *kernels):
    return products(x, kernels, ('embed', 'hidden'), jnp.float64)

  with jax.enable_x64(True):
    check(maps, draw(*tokens, 16), draw(16, 32), draw(16, 64), mesh=mesh)


@pytest.mark.parametrize('impl', ['xla', 'blockwise', 'flash', 'auto'])
def test_of_every_kernel_of_attention(impl):
  with jax.enable_x64(True):
    q, k, v = draw(2, 12, 4, 8), draw(2, 7, 4, 8), draw(2, 7, 4, 8)
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    check(functools.partial(attend, mask=mask, impl=impl), q, k, v)


@pytest.mark.parametrize('exchange', EXCHANGES)
def test_of_attention_whichever_way_devices_meet(exchange):
  with jax.enable_x64(True):
    inputs = [draw(2, 16, 4, 8, seed=seed) for seed in range(3)]
    check(functools.partial(attend, exchange=exchange), *inputs, mesh=EXCHANGES[exchange])


def test_of_depthwise_convolutions():
  with jax.enable_x64(True):
    check(convolve, draw(2, 3, 4, 4, 8), draw(3, 3, 3, 8))


@pytest.mark.parametrize(
  'mesh',
  [pytest.param(MESHES['single'], marks=pytest.mark.slow), MESHES['fsdp_tp_cp']],
  ids=str,
)
def test_of_a_whole_model_along_its_inputs_and_parameters(mesh):
  """In float32: differences over .004 are off by roundings, 1e-7 / .004, and their square."""
  model = video_model('ring', remat='attention')
  x, time = draw(8, 3, 6, 6, 4).astype(jnp.float32), jnp.linspace(0.1, 0.9, 8)
  batch = {'text': jnp.ones((8, 7), jnp.int32)}
  drop = {'text': jnp.zeros(8, bool)}
  params = random_parameters(model.init, x, time, batch, drop)
  tangents = jax.tree.map(lambda p: draw(*p.shape, seed=2).astype(p.dtype) * jnp.std(p), params)

  def velocity(params, x):
    return model.apply({'params': params}, x, time, batch, drop)

  def moved(step):
    along = jax.tree.map(lambda p, t: p + step * t, params, tangents)
    return velocity(along, x + step * x)

  expected = (moved(0.004) - moved(-0.004)) / 0.008
  with jax.set_mesh(make_mesh(mesh)):
    with forward_mode():
      _, found = jax.jit(lambda *at: jax.jvp(velocity, at, (tangents, x)))(params, x)
    error = jnp.abs(found - expected).max() / jnp.abs(expected).max()
    assert error < 1e-3
    # And what is traced outside has its own backward pass again.
    with pytest.raises(TypeError, match='forward-mode'):
      jax.jvp(velocity, (params, x), (tangents, x))
