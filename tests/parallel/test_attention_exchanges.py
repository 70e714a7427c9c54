"""Attention over the context axis is the attention of one device, whoever sends what to whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mgjax.core.errors import ConfigError
from mgjax.lab.planning.aot import devices_of
from mgjax.lab.planning.programs.hlo import parse_program
from mgjax.nn.attention import EXCHANGES, attend, heads_exchanged
from mgjax.parallel.chips import parse_topology
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.mesh import make_mesh

B, N, G, K = 2, 48, 4, 8
MESHES = (
  {'data': 2, 'context': 4},
  {'context': 8},  # more devices than heads: a ring of 2 around groups of 4
  {'fsdp': 2, 'context': 2, 'tensor': 2},
)


@functools.cache
def arrays(keys=N):
  rng = np.random.default_rng(0)
  shapes = ((B, N, G, K), (B, keys, G, K), (B, keys, G, K), (B, N, G, K))
  return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def holes(keys):
  """Returns a mask with holes; the second row may read nothing at all."""
  mask = np.random.default_rng(1).random((B, keys)) < 0.7
  mask[0, : keys // 4] = False  # what a whole device holds
  mask[1] = False
  return jnp.asarray(mask)


@functools.partial(jax.jit, static_argnames=('exchange', 'impl'))
def with_gradients(q, k, v, dy, mask, exchange='auto', impl='auto'):
  run = functools.partial(attend, mask=mask, exchange=exchange, impl=impl)
  y, pull = jax.vjp(run, q, k, v)
  return y, *pull(dy)


def same(found, expected):
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=5e-6)


@pytest.mark.parametrize('exchange', EXCHANGES)
@pytest.mark.parametrize('sizes', MESHES, ids=str)
def test_every_exchange_gives_the_numbers_of_one_device(sizes, exchange):
  if exchange == 'ulysses' and sizes['context'] > G:
    pytest.skip('refused: see below')
  inputs, mask = arrays(), holes(N)
  expected = with_gradients(*inputs, mask)
  with jax.set_mesh(make_mesh(sizes)):
    found = with_gradients(*inputs, mask, exchange)
    same(found, expected)
    assert not np.any(found[0][1]) and all(np.isfinite(x).all() for x in found)


@pytest.mark.parametrize('keys', [16, 7])
def test_few_keys_are_read_whole_also_where_they_divide_by_nothing(keys):
  inputs, mask = arrays(keys), holes(keys)
  expected = with_gradients(*inputs, mask)
  with jax.set_mesh(make_mesh({'fsdp': 2, 'context': 4})):
    same(with_gradients(*inputs, mask, 'gather'), expected)


def test_exchanges_go_with_every_kernel():
  inputs, mask = arrays(), holes(N)
  expected = with_gradients(*inputs, mask, impl='xla')
  with jax.set_mesh(make_mesh({'data': 2, 'context': 4})):
    same(with_gradients(*inputs, mask, 'ring', 'blockwise'), expected)


def test_bfloat16_errs_no_more_than_on_one_device():
  inputs = [x.astype(jnp.bfloat16) for x in arrays()]
  exact = with_gradients(*(x.astype(jnp.float32) for x in inputs), None)
  alone = with_gradients(*inputs, None)
  with jax.set_mesh(make_mesh({'context': 8})):
    shared = with_gradients(*inputs, None, 'ring')
  for truth, one, other in zip(exact, alone, shared, strict=True):
    error = [float(jnp.abs(x.astype(jnp.float32) - truth).max()) for x in (one, other)]
    assert error[1] <= 2 * error[0]


def test_heads_are_traded_among_as_many_devices_as_divide_them():
  assert heads_exchanged(48, 16, 'auto') == heads_exchanged(48, 16, 'ulysses') == 16
  assert heads_exchanged(48, 64, 'ring_ulysses') == 16
  assert heads_exchanged(48, 16, 'ring') == 1
  refused = r'48 heads .* mesh\.context = 64, .* take a context of 1, 2, 3, 4'
  with pytest.raises(ConfigError, match=refused):
    heads_exchanged(48, 64, 'ulysses')


@pytest.mark.tpu_aot
@pytest.mark.timeout(900)
@pytest.mark.usefixtures('without_flags_of_the_cpu')
@pytest.mark.parametrize('rows', [1, 2])
@pytest.mark.parametrize('topology', ['v5p:2x2x2', 'v6e:2x4'])
def test_heads_travel_in_whole_tiles(topology, rows):
  """Of tiles of two rows one head of one video fills half, and copies there and back are slow."""
  pytest.importorskip('libtpu')
  place, tokens, heads, size = parse_topology(topology), 16_384, 8, 128
  devices = devices_of(place)
  mesh = make_mesh({'context': 8}, devices=devices, torus=place.torus)
  cut = NamedSharding(mesh, PartitionSpec(None, 'context'))
  x = jax.ShapeDtypeStruct((rows, tokens, heads, size), jnp.bfloat16, sharding=cut)

  def both(q, k, v, dy):
    y, pull = jax.vjp(lambda *qkv: attend(*qkv, impl='flash', exchange='ulysses'), q, k, v)
    return y, pull(dy)

  with jax.set_mesh(mesh):
    compiled = jax.jit(both).lower(x, x, x, x).compile(compiler_options(devices[0], len(devices)))
  program = parse_program(compiled.as_text())
  steps = [each for found in program.computations.values() for each in found]
  assert any('all-to-all' in each.opcode for each in steps)
  own = rows * tokens // 8 * heads * size * 2  # bytes of queries, keys or values on a device
  large = [each for each in steps if any(array.bytes >= own for array in each.arrays)]
  assert len(large) > 10
  assert not [each.name for each in large if 'T(2,128)' in each.shape]
