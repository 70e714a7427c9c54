"""Gradients of weights in pieces: summed and scattered, also over an axis of all devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from mgjax.lab.planning.aot import devices_of
from mgjax.nn.linear import products
from mgjax.parallel.chips import parse_topology
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.gather import scatter_in_stages
from mgjax.parallel.mesh import make_mesh


@pytest.mark.parametrize('sizes', [{'fsdp': 8}, {'data': 2, 'fsdp': 4}, {'fsdp': 2, 'context': 4}])
@pytest.mark.parametrize('dimension', [0, 1])
def test_a_sum_in_two_stages_is_the_sum_at_once(sizes, dimension):
  """Bit by bit of whole numbers, whose sums have no rounding."""
  mesh = make_mesh(sizes)
  whole = np.random.default_rng(0).integers(-9, 9, (8, 16, 24)).astype(np.float32)
  spec = PartitionSpec('fsdp') if dimension == 0 else PartitionSpec(None, 'fsdp')

  def run(scatter):
    each = lambda x: scatter(x[0] * (1.0 + lax.axis_index('fsdp')))  # noqa: E731
    cut = functools.partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec(), check_vma=False)
    return np.asarray(jax.jit(cut(each, out_specs=spec))(whole))

  how = {'axis_name': 'fsdp', 'scatter_dimension': dimension, 'tiled': True}
  at_once = functools.partial(lax.psum_scatter, **how)
  staged = functools.partial(scatter_in_stages, axis='fsdp', dimension=dimension)
  np.testing.assert_array_equal(run(staged), run(at_once))
  count = sizes['fsdp']
  np.testing.assert_array_equal(run(staged), whole[0] * count * (count + 1) / 2)


@pytest.mark.tpu_aot
@pytest.mark.usefixtures('without_flags_of_the_cpu')
@pytest.mark.parametrize('width', [4608, 6144])  # of which 18 and 24 rows lie on a chip of 256
@pytest.mark.parametrize('topology', ['v5e:16x16', 'v6e:8x8', 'v5p:4x4x4'])
def test_no_whole_gradient_is_summed_where_all_chips_lie_on_one_axis(topology, width):
  pytest.importorskip('libtpu')
  place = parse_topology(topology)
  devices = devices_of(place)
  mesh = make_mesh({'fsdp': len(devices)}, devices=devices, torus=place.torus)
  cut = lambda *shape: jax.ShapeDtypeStruct(  # noqa: E731
    shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec('fsdp'))
  )

  def gradient(x, kernel):
    loss = lambda kernel: jnp.sum(products(x, (kernel,), ('embed', 'heads'), jnp.bfloat16)[0])  # noqa: E731
    return jax.grad(loss)(kernel)

  with jax.set_mesh(mesh):
    x, kernel = cut(len(devices), 64, width), cut(width, width)
    compiled = jax.jit(gradient).lower(x, kernel).compile(compiler_options(devices[0], mesh.size))
  text = compiled.as_text()
  assert 'reduce-scatter' in text
  assert f'[{width},{width}]{{1,0:T(8,128)(2,1)}} all-reduce(' not in text
