"""What both kernels for TPUs promise, interpreted: softmax attention, beside float64.

`ours` are those of `mgjax/experimental/tpu_attention`, `splash` is JAX's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, PartitionSpec, SingleDeviceSharding

from mgjax.experimental.tpu_attention import backward as our_backward
from mgjax.experimental.tpu_attention import forward as our_forward
from mgjax.nn.kernels import splash

KERNELS = {
  'ours': (our_forward.forward, our_backward.backward),
  'splash': (splash.forward, splash.backward),
}


def interpreted(name):
  """Returns forward(q, k, v, mask) and backward(q, k, v, mask, o, lse, do), compiled."""
  ahead, back = KERNELS[name]

  def backward(q, k, v, mask, o, lse, do):
    delta = jnp.einsum('bngk,bngk->bgn', o.astype(jnp.float32), do.astype(jnp.float32))
    return back((q, k, v, mask, delta, lse), do, interpret=True)

  return jax.jit(functools.partial(ahead, interpret=True)), jax.jit(backward)


@pytest.fixture(params=KERNELS)
def kernel(request):
  return interpreted(request.param)


# Scores and values here are below 6 and float32 rounds at 2^-24 relative, so each step of S, exp,
# P V and dO V^T adds at most 4e-7; some ten of them follow one another.
CLOSE = 4e-6
# It would make products of two transposed bfloat16 arrays, of which the CPU has none.
UNFOLDED = {'xla_disable_hlo_passes': 'transpose-folding'}

# (b, n, m, g, k): both paddings of heads, and lengths that no block divides.
SHAPES = [(2, 256, 256, 2, 64), (2, 256, 256, 2, 128), (2, 100, 300, 1, 128)]


def arrays(shape, dtype=jnp.float32):
  """Returns q, k, v and the cotangent of O."""
  b, n, m, g, k = shape
  rng = np.random.default_rng(0)
  sizes = [(b, n, g, k), (b, m, g, k), (b, m, g, k), (b, n, g, k)]
  return [jnp.asarray(rng.normal(size=size), dtype) for size in sizes]


def holes(b, m):
  """Returns a mask in which about every third key may not be read."""
  return jnp.asarray(np.random.default_rng(1).random((b, m)) < 0.7)


def scores(q, k, mask=None):
  """Q K^T / sqrt(k), -inf where a mask of keys (b m) or of queries and keys (b n m) is false."""
  q, k = (np.asarray(x, np.float64) for x in (q, k))
  s = np.einsum('bngk,bmgk->bgnm', q, k) * q.shape[-1] ** -0.5
  readable = True if mask is None else np.reshape(mask, (len(q), 1, -1, k.shape[1]))
  return np.where(readable, s, -np.inf)


def exact_forward(q, k, v, mask=None):
  """Returns O and L in float64, by the textbook."""
  s = scores(q, k, mask)
  top = np.maximum(s.max(axis=-1, keepdims=True), -1e29)
  p = np.exp(s - top)
  total = p.sum(axis=-1)
  p = np.divide(p, total[..., None], out=np.zeros_like(p), where=total[..., None] > 0)
  lse = np.log(total, out=np.full_like(total, -np.inf), where=total > 0) + top[..., 0]
  return np.einsum('bgnm,bmgk->bngk', p, np.asarray(v, np.float64)), lse


def exact_backward(q, k, v, mask, o, lse, do):
  """Returns dQ, dK, dV in float64, by the textbook."""
  p = np.exp(scores(q, k, mask) - np.where(lse > -1e29, lse, np.inf)[..., None])
  q, k, v, o, do = (np.asarray(x, np.float64) for x in (q, k, v, o, do))
  delta = np.einsum('bngk,bngk->bgn', do, o)[..., None]
  ds = p * (np.einsum('bngk,bmgk->bgnm', do, v) - delta) * q.shape[-1] ** -0.5
  return (
    np.einsum('bgnm,bmgk->bngk', ds, k),
    np.einsum('bgnm,bngk->bmgk', ds, q),
    np.einsum('bgnm,bngk->bmgk', p, do),
  )


def exact(q, k, v, do, mask=None):
  """Returns O, dQ, dK, dV."""
  o, lse = exact_forward(q, k, v, mask)
  return o, *exact_backward(q, k, v, mask, o, lse, do)


def assert_close(ours, exact, **tolerance):
  for mine, theirs in zip(ours, exact, strict=True):
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(np.asarray(mine, np.float64), theirs, **tolerance)


def assert_softmax(forward, backward, shape, masked, mask=None):
  """Compares O, L and gradients, where keys may not be read with those of `mask`, or of holes."""
  q, k, v, do = arrays(shape)
  mask = (holes(*k.shape[:2]) if mask is None else mask) if masked else None
  o, lse = forward(q, k, v, mask)
  exact = exact_forward(q, k, v, mask)
  assert_close((o, lse), exact, atol=CLOSE)
  ours = backward(q, k, v, mask, o, lse, do)
  assert_close(ours, exact_backward(q, k, v, mask, *exact, do), atol=CLOSE)


def assert_zero_without_keys(forward, backward, shape):
  """A row that may read nothing has neither a result nor a gradient, however low its L is."""
  q, k, v, do = arrays(shape)
  mask = holes(*k.shape[:2]).at[1].set(False)
  o, lse = forward(q, k, v, mask)
  assert (lse[1] <= -1e29).all() and np.isfinite(lse).all()
  gradients = backward(q, k, v, mask, o, lse.at[1].set(-jnp.inf), do)
  for x in (o, *gradients):
    assert np.isfinite(x).all() and np.abs(x[0]).max() > 0
    assert not x[1].any()


def assert_parts_add_up(backward, q, k, v, mask, do):
  """Gradients of both halves of the keys, given all of O and L, are those of all; returns both."""
  half, (o, lse) = slice(k.shape[1] // 2), exact_forward(q, k, v, mask)
  whole = jnp.asarray(o, jnp.float32), jnp.asarray(lse, jnp.float32)
  parts = [
    backward(q, k[:, part], v[:, part], mask[:, part], *whole, do)
    for part in (half, slice(half.stop, None))
  ]
  dq, dk, dv = zip(*parts, strict=True)
  ours = sum(dq), jnp.concatenate(dk, axis=1), jnp.concatenate(dv, axis=1)
  assert_close(ours, exact_backward(q, k, v, mask, o, lse, do), atol=CLOSE)
  return o, lse


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_forward_and_backward_are_softmax_attention(kernel, shape, masked):
  assert_softmax(*kernel, shape, masked)


def test_a_row_that_may_read_nothing_is_zero_and_has_no_gradient(kernel):
  assert_zero_without_keys(*kernel, (2, 128, 200, 1, 64))


def test_parts_of_the_keys_add_up_given_the_whole_output(kernel):
  forward, backward = kernel
  q, k, v, do = arrays((2, 128, 320, 1, 64))
  mask = holes(2, 320).at[1, :160].set(False)  # of which row 1 sees nothing in the first half
  o, lse = assert_parts_add_up(backward, q, k, v, mask, do)
  halves = [(k[:, part], v[:, part], mask[:, part]) for part in (slice(160), slice(160, None))]
  results = [forward(q, *half) for half in halves]
  weights = [np.exp(np.asarray(part, np.float64) - lse) for _, part in results]
  merged = sum(y * w.swapaxes(1, 2)[..., None] for (y, _), w in zip(results, weights, strict=True))
  np.testing.assert_allclose(merged, o, atol=CLOSE)


def test_bfloat16_keeps_its_type_and_a_float32_log_sum_exp(kernel):
  forward, backward = kernel
  q, k, v, do = arrays((1, 128, 256, 1, 128), jnp.bfloat16)
  o, lse = forward(q, k, v, None)
  gradients = jax.jit(backward, compiler_options=UNFOLDED)(q, k, v, None, o, lse, do)
  assert {x.dtype for x in (o, *gradients)} == {jnp.dtype(jnp.bfloat16)}
  exact = exact_forward(q, k, v)
  # Scaled queries are rounded at 2^-9, which moves scores below 6 by less than 6 x 2^-9 = .012.
  assert lse.dtype == jnp.float32
  np.testing.assert_allclose(lse, exact[1], atol=0.012)
  # P, dS and the results are rounded, too: each 2^-9 of values below 1.
  tolerance = {'atol': 0.012, 'rtol': 3 * 2**-8}
  assert_close((o,), exact[:1], **tolerance)
  assert_close(gradients, exact_backward(q, k, v, None, *exact, do), **tolerance)


def test_each_device_of_a_mesh_can_run_it(kernel):
  forward, backward = kernel
  q, k, v, do = arrays((1, 128, 128, 2, 64))
  mesh = jax.make_mesh((2,), ('tensor',), axis_types=(AxisType.Auto,))
  heads, sums = PartitionSpec(None, None, 'tensor'), PartitionSpec(None, 'tensor')

  def both(q, k, v, do):
    o, lse = forward(q, k, v, None)
    return o, lse, *backward(q, k, v, None, o, lse, do)

  spread = jax.shard_map(
    both, mesh=mesh, in_specs=heads, out_specs=(heads, sums, heads, heads, heads), check_vma=False
  )
  for one, other in zip(jax.jit(spread)(q, k, v, do), both(q, k, v, do), strict=True):
    np.testing.assert_allclose(one, other, atol=CLOSE)


# 73,728 tokens over 16 devices: 48 heads traded by Ulysses, a ring of keys, and reading text.
LARGEST = [
  (73728, 73728, 3, False),
  (73728, 73728, 3, True),
  (4608, 4608, 48, False),
  (4608, 768, 48, True),
]
TOPOLOGIES = ('v4:2x2x1', 'v5p:2x2x1', 'v5e:2x2', 'v6e:2x2', 'tpu7x:2x2x1')
# Inputs and results with heads first are 54 MiB each; ours add dK and dV of two chunks in float32,
# splash 36 partial dQ of one head, 648 MiB.
MOST = {'ours': 2**29, 'splash': 2**30}


@pytest.mark.tpu_aot
@pytest.mark.usefixtures('without_flags_of_the_cpu')
@pytest.mark.parametrize(('tiles', 'masked'), [((144, 18), False), ((288, 36), True)])
@pytest.mark.parametrize('topology', TOPOLOGIES[1:])
def test_the_largest_model_compiles_with_an_index_of_tiles(topology, tiles, masked, monkeypatch):
  index = ((1, 3, *tiles), jnp.int32)
  test_the_largest_model_compiles('ours', topology, 73728, 73728, 3, masked, monkeypatch, index)


@pytest.mark.tpu_aot
@pytest.mark.usefixtures('without_flags_of_the_cpu')
@pytest.mark.parametrize(('n', 'm', 'g', 'masked'), LARGEST)
@pytest.mark.parametrize(
  ('name', 'topology'),
  [(name, each) for name in KERNELS for each in TOPOLOGIES if (name, each) != ('ours', 'v4:2x2x1')],
)
def test_the_largest_model_compiles(name, topology, n, m, g, masked, monkeypatch, index=None):
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  on_it, (ahead, back) = SingleDeviceSharding(devices[0]), KERNELS[name]

  def compiled(function, *shapes):
    inputs = [shape and jax.ShapeDtypeStruct(*shape, sharding=on_it) for shape in shapes]
    return jax.jit(function).lower(*inputs).compile()

  q, k = (((1, length, g, 128), jnp.bfloat16) for length in (n, m))
  mask, rows = ((1, m), jnp.bool_) if masked else None, ((1, g, n), jnp.float32)
  how = lambda at: {} if at is None else {'index': at}  # noqa: E731
  compiled(lambda at, *arrays: ahead(*arrays, **how(at)), index, q, k, k, mask)
  both = q, k, k, mask, rows, rows
  program = compiled(lambda at, do, *saved: back(saved, do, **how(at)), index, q, *both)
  assert program.memory_analysis().temp_size_in_bytes < MOST[name]
