"""Splash attention, interpreted, against softmax attention in float64; and compiled for TPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, PartitionSpec, SingleDeviceSharding

from mgjax.nn.kernels import splash
from tests.nn.kernels.test_tpu_promises import (
  CLOSE,
  arrays,
  assert_close,
  exact_backward,
  exact_forward,
  holes,
  interpreted,
)

forward, backward = interpreted('splash')


@pytest.fixture
def small_blocks(monkeypatch):
  """Makes short sequences of float32 span several blocks, of 128 queries and 256 keys."""
  for name in ('QUERIES', 'FORWARD_TILE', 'BACKWARD_TILE'):
    monkeypatch.setattr(splash, name, 256)
  monkeypatch.setattr(splash, 'KEYS', 512)


@pytest.mark.parametrize('masked', [False, True])
def test_blocks_and_turns_of_heads_change_nothing(small_blocks, masked):
  q, k, v, do = arrays((2, 256, 600, 2, 64))
  mask = holes(2, 600) if masked else None
  o, lse = forward(q, k, v, mask)
  exact = exact_forward(q, k, v, mask)
  assert_close((o, lse), exact, atol=CLOSE)
  ours = backward(q, k, v, mask, o, lse, do)
  assert_close(ours, exact_backward(q, k, v, mask, *exact, do), atol=CLOSE)


def test_each_device_of_a_mesh_can_run_it():
  q, k, v, do = arrays((1, 128, 128, 2, 64))
  mesh = jax.make_mesh((2,), ('tensor',), axis_types=(AxisType.Auto,))
  heads, rows = PartitionSpec(None, None, 'tensor'), PartitionSpec(None, 'tensor')

  def both(q, k, v, do):
    o, lse = forward(q, k, v, None)
    return o, lse, *backward(q, k, v, None, o, lse, do)

  spread = jax.shard_map(
    both, mesh=mesh, in_specs=heads, out_specs=(heads, rows, heads, heads, heads), check_vma=False
  )
  for one, other in zip(jax.jit(spread)(q, k, v, do), both(q, k, v, do), strict=True):
    np.testing.assert_allclose(one, other, atol=CLOSE)


@pytest.mark.parametrize(
  ('n', 'm', 'segmented'), [(73728, 73728, False), (4608, 4608, False), (4608, 700, True)]
)
def test_only_keys_that_need_padding_cost_a_comparison(n, m, segmented):
  q = jax.ShapeDtypeStruct((1, n, 1, 128), jnp.bfloat16)
  k = jax.ShapeDtypeStruct((1, m, 1, 128), jnp.bfloat16)
  lse = jax.ShapeDtypeStruct((1, 1, n), jnp.float32)
  ahead = jax.make_jaxpr(lambda q, k, v: splash.forward(q, k, v, None))(q, k, k)
  back = jax.make_jaxpr(lambda q, k, v, *sums: splash.backward((q, k, v, None, *sums), q))
  assert ('splash_mha_fwd_segmented' in str(ahead)) == segmented
  assert ('splash_mha_dkv_segmented' in str(back(q, k, k, lse, lse))) == segmented


# 73,728 tokens over 16 devices: 48 heads traded by Ulysses, a ring of keys, and reading text.
LARGEST = [
  (73728, 73728, 3, False),
  (73728, 73728, 3, True),
  (4608, 4608, 48, False),
  (4608, 768, 48, True),
]


@pytest.mark.tpu_aot
@pytest.mark.usefixtures('without_flags_of_the_cpu')
@pytest.mark.parametrize(('n', 'm', 'g', 'masked'), LARGEST)
@pytest.mark.parametrize('topology', ['v4:2x2x1', 'v5p:2x2x1', 'v5e:2x2', 'v6e:2x2', 'tpu7x:2x2x1'])
def test_the_largest_model_compiles(topology, n, m, g, masked, monkeypatch):
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  on_it = SingleDeviceSharding(devices[0])

  def back(*arrays):
    return splash.backward(arrays[:-1], arrays[-1])

  def compiled(function, *shapes):
    inputs = [shape and jax.ShapeDtypeStruct(*shape, sharding=on_it) for shape in shapes]
    return jax.jit(function).lower(*inputs).compile()

  q, k = (((1, length, g, 128), jnp.bfloat16) for length in (n, m))
  mask = ((1, m), jnp.bool_) if masked else None
  compiled(splash.forward, q, k, k, mask)
  rows = ((1, g, n), jnp.float32)
  program = compiled(back, q, k, k, mask, rows, rows, q)
  # 36 partial dQ of one head, 648 MiB, and inputs with heads first, 54 MiB each.
  assert program.memory_analysis().temp_size_in_bytes < 2**30
