"""Weights that stay in their pieces give the products of whole ones, and never travel."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.nn.linear import products
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.stationary import stays

ROWS, INPUTS, OUTPUTS = 8, 64, (128, 48)
EPS = np.finfo(np.float32).eps
AXES = [('embed', 'modulation'), ('frequencies', 'embed'), ('embed', 'heads'), ('hidden', 'embed')]
MESHES = [{'fsdp': 2, 'context': 2, 'tensor': 2}, {'data': 2, 'fsdp': 4}, {'context': 8}]


def arrays():
  keys = jax.random.split(jax.random.key(0), 1 + 2 * len(OUTPUTS))
  shapes = [(ROWS, INPUTS), *((INPUTS, o) for o in OUTPUTS), *((ROWS, o) for o in OUTPUTS)]
  x, *rest = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
  return x, tuple(rest[: len(OUTPUTS)]), tuple(rest[len(OUTPUTS) :])


def run(axes, x, kernels, dys):
  ys, pull = jax.vjp(lambda x, *kernels: products(x, kernels, axes, jnp.float32), x, *kernels)
  return ys, pull(dys)


def travelling(jaxpr):
  """Yields the sizes of what collectives of a traced program give."""
  for each in jaxpr.eqns:
    if each.primitive.name in ('all_gather', 'psum', 'psum_invariant', 'reduce_scatter'):
      yield max(math.prod(result.aval.shape) for result in each.outvars)
    for inner in jax.tree.leaves(list(each.params.values()), is_leaf=lambda p: hasattr(p, 'eqns')):
      if hasattr(inner, 'eqns') or hasattr(inner, 'jaxpr'):
        yield from travelling(getattr(inner, 'jaxpr', inner))


@pytest.mark.parametrize('mesh', MESHES, ids=str)
@pytest.mark.parametrize('axes', AXES, ids='-'.join)
def test_products_and_gradients_are_those_of_whole_weights(axes, mesh):
  x, kernels, dys = arrays()
  wide = [np.asarray(each, np.float64) for each in (x, *kernels)]
  with jax.set_mesh(make_mesh(mesh)):
    ys, (dx, *gradients) = jax.jit(lambda *a: run(axes, *a))(x, kernels, dys)
  expected = [wide[0] @ each for each in wide[1:]]
  expected += [sum(dy @ each.T for dy, each in zip(map(np.float64, dys), wide[1:], strict=True))]
  expected += [wide[0].T @ np.float64(dy) for dy in dys]
  for found, true in zip((*ys, dx, *gradients), expected, strict=True):
    # Sums of up to 176 products of normal numbers, each rounded once more at most.
    np.testing.assert_allclose(found, true, atol=4 * sum(OUTPUTS) * EPS * np.abs(true).max())


def test_nothing_as_large_as_a_weight_travels():
  x, kernels, dys = arrays()
  with jax.set_mesh(make_mesh(MESHES[0])):
    traced = jax.make_jaxpr(lambda *a: run(AXES[0], *a))(x, kernels, dys)
  sizes = list(travelling(traced.jaxpr))
  assert sizes and max(sizes) <= ROWS * max(INPUTS, *OUTPUTS) < INPUTS * min(OUTPUTS)


def test_weights_travel_where_they_are_the_smaller_ones():
  assert stays((8, 6144), [(6144, 36864)]) and stays((8, 64), [(64, 128), (64, 48)])
  assert not stays((64, 64), [(64, 64)])  # as many rows as inputs
  assert not stays((1, 4, 6144), [(6144, 6144)])  # tokens
