"""Our kernels for TPUs, interpreted, against softmax attention in float64; and compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from mgjax.experimental.tpu_attention import backward as backwards
from mgjax.experimental.tpu_attention import forward as forwards
from mgjax.experimental.tpu_attention import layout
from mgjax.nn import attention
from mgjax.nn.attention import attend
from mgjax.nn.kernels import tpu_blocks as blocks
from mgjax.nn.kernels.kernel import NOTHING, AttentionKernel
from mgjax.nn.kernels.tiles import Tiles, tiled
from tests.experimental.tpu_attention.test_tpu_promises import (
  CLOSE,
  UNFOLDED,
  arrays,
  assert_close,
  assert_softmax,
  exact_backward,
  exact_forward,
  holes,
  interpreted,
)
from tests.oracles.tpu_schedules import WHOSE, schedules

forward, backward = interpreted('ours')


@pytest.fixture
def small_blocks(monkeypatch):
  """Makes short sequences span several blocks, chunks and tiles."""
  caches = (blocks._search.cache_clear, forward.clear_cache, backward.clear_cache)
  monkeypatch.setattr(blocks, 'BLOCK', 256)
  monkeypatch.setattr(blocks, 'QUERY_TILE', 128)
  for name in ('FORWARD', 'BACKWARD'):
    small = {'tile': 2**14, 'block': 2**17, 'kept': 256 * 128 * 4}
    which = getattr(blocks, name)
    monkeypatch.setattr(blocks, name, blocks.dataclasses.replace(which, **small))
  for clear in caches:
    clear()
  yield
  for clear in caches:
    clear()


def is_safe(q, k, v):
  return bool(forwards.safe(layout.scaled(q), k, v))


# (b, n, m, g, k): both paddings of heads, and lengths that no block divides.
@pytest.mark.parametrize('masked', [False, True])
def test_blocks_tiles_and_chunks_change_nothing(small_blocks, masked):
  sizes = blocks.backward_blocks(300, 520, 64, 4, 2)
  assert sizes.chunks > 1 and sizes.n > sizes.queries > sizes.query_tile and sizes.m > sizes.keys
  # Of the second row's blocks of keys one may not be read at all, one wholly, and one in part.
  size = sizes.keys
  mask = holes(2, 520).at[1, :size].set(False).at[1, size : 2 * size].set(True)
  assert_softmax(forward, backward, (2, 300, 520, 1, 64), masked, mask)


@pytest.mark.parametrize('masked', [False, True])
def test_scores_without_a_known_bound_take_the_running_maximum(small_blocks, masked):
  q, k, v, _ = arrays((1, 128, 384, 1, 64))
  mask = holes(1, 384) if masked else None
  assert is_safe(q, k, v)
  q = 100 * q
  assert not is_safe(q, k, v)
  # Scores below 600 are rounded nine times, in scaling, six levels of a sum of 64, subtraction and
  # logarithm: 9 x 600 x 2^-24 = 3.3e-4; weights that times 1, and O that times values below 6.
  o, lse = forward(q, k, v, mask)
  exact = exact_forward(q, k, v, mask)
  np.testing.assert_allclose(lse, exact[1], atol=3.3e-4)
  np.testing.assert_allclose(o, exact[0], atol=6 * 3.3e-4)


def test_the_bound_is_of_the_longest_and_false_where_it_is_not_a_number():
  q, k, v, _ = arrays((1, 128, 128, 1, 64))
  one = jnp.zeros_like(q).at[0, 3, 0, 0].set(1)
  other = jnp.zeros_like(k).at[0, 5, 0, 0].set(1)
  for reach, expected in ((0.99 * forwards.REACH, True), (1.01 * forwards.REACH, False)):
    assert bool(forwards.safe(reach * one, other, v)) is expected
  assert not is_safe(q.at[0, 0, 0, 0].set(jnp.nan), k, v)
  assert not is_safe(q, k, v.at[0, 0, 0, 0].set(2 * forwards.VALUES))
  assert not is_safe(q, k, v.at[0, 0, 0, 0].set(jnp.inf))


@pytest.mark.parametrize('sign', [-1, 1])
def test_scores_at_the_bound_lose_nothing_without_a_maximum(sign):
  q, k, v, do = arrays((1, 128, 256, 1, 64))
  # All scores near the end of what is taken for safe, on either side: 2^60 or 2^-60 a power.
  q = jnp.zeros_like(q).at[..., 0].set(sign * 1.0)
  k = (0.01 * k).at[..., 0].set(0.99 * forwards.REACH / layout.LOG2E * 8)
  assert is_safe(q, k, v)
  o, lse = forward(q, k, v, None)
  exact = exact_forward(q, k, v)
  # Scores of 41 carry an error of 41 x 2^-24 x 3 roundings = 7.4e-6, weights that times 1.
  np.testing.assert_allclose(lse, exact[1], atol=7.4e-6)
  np.testing.assert_allclose(o, exact[0], atol=6 * 7.4e-6)
  gradients = backward(q, k, v, None, o, lse, do)
  # dQ's first number is a sum of dS that cancels, times keys of 332 / 8.
  exact = exact_backward(q, k, v, None, *exact, do)
  tolerances = (330 / 8 * 8 * 7.4e-6, 6 * 7.4e-6, 6 * 7.4e-6)
  for ours, theirs, tolerance in zip(gradients, exact, tolerances, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=tolerance)


@pytest.fixture
def interpreted(monkeypatch):
  """Makes `attend` take these kernels for its own, on any platform."""
  interpret = {'interpret': True}
  kernel = AttentionKernel(
    functools.partial(forwards.forward, **interpret),
    functools.partial(backwards.backward, **interpret),
    takes_tiles=blocks.takes_tiles,
  )
  monkeypatch.setattr(attention, 'BLOCKWISE', kernel)
  attention._make_attend.cache_clear()
  yield
  attention._make_attend.cache_clear()


@pytest.mark.parametrize('exchange', ['ring', 'ulysses'])
def test_gradients_through_a_mesh_with_saved_attention(interpreted, exchange):
  q, k, v, do = arrays((1, 256, 256, 2, 64))
  mask = None if exchange == 'ring' else holes(1, 256)
  policy = jax.checkpoint_policies.save_only_these_names('attention', 'attention_sums')

  def layer(q, k, v):
    return attend(q, k, v, mask=mask, impl='flash', exchange=exchange)

  mesh = jax.make_mesh(
    (1, 1, 1, 2, 1), ('slice', 'data', 'fsdp', 'context', 'tensor'), axis_types=(AxisType.Auto,) * 5
  )
  with jax.set_mesh(mesh):
    saved = jax.checkpoint(layer, policy=policy)
    both = jax.jit(lambda *arrays: (saved(*arrays), jax.vjp(saved, *arrays)[1](do)))
    program = str(jax.make_jaxpr(lambda *arrays: jax.vjp(saved, *arrays)[1](do))(q, k, v))
    y, gradients = both(q, k, v)
  exact = exact_forward(q, k, v, mask)
  np.testing.assert_allclose(y, exact[0], atol=CLOSE)
  assert_close(gradients, exact_backward(q, k, v, mask, *exact, do), atol=CLOSE)
  assert 'attention_backward' in program


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
  ('tiles', 'more'),
  [
    (Tiles((4, 8, 8), (2, 4, 8), (1, 1, 1), 3), 0),  # all are read
    (Tiles((3, 9, 8), (2, 4, 4), (1, 3, 1), 1), 5),  # padded, beyond the grid and masked
    (Tiles((3, 16, 32), (3, 16, 16), (1, 1, 1)), 0),  # too large for one block of float32
  ],
)
def test_an_index_of_tiles_says_what_copies_do(interpreted, tiles, more, dtype, monkeypatch):
  n, b = int(np.prod(tiles.grid)) + more, 3 if more else 1
  monkeypatch.setattr(layout, 'SMEM', 256)  # of heads that choose, each comes by itself
  q, k, v, do = arrays((b, n, n, 3 // b, 64), dtype)
  mask = holes(b, n).at[1].set(False).at[2, n // 2 :].set(True) if more else None

  def run(kernel, q, k, v, do):
    o, lse = (kernel := tiled(kernel, tiles)).forward(q, k, v, mask)
    o, do = (attention._readable(x, lse) for x in (o, do))
    saved = q, k, v, mask, attention._delta(o, do).swapaxes(1, 2), lse
    return o, jnp.maximum(lse, NOTHING), *kernel.backward(saved, do)

  run = jax.jit(run, static_argnums=0, compiler_options=UNFOLDED)
  ours = run(attention.BLOCKWISE, q, k, v, do)
  copies = run(attention.XLA, *(x.astype(jnp.float32) for x in (q, k, v, do)))
  # Both round: as of one kernel beside float64, and twice that.
  wide = {'atol': 0.012, 'rtol': 3 * 2**-8} if dtype == jnp.bfloat16 else {'atol': 2 * CLOSE}
  assert_close(ours, copies, **wide)
  if tiles.chosen == 3:
    o, lse = exact_forward(q, k, v)
    assert_close(ours, (o, lse, *exact_backward(q, k, v, None, o, lse, do)), **wide)
  program = str(jax.make_jaxpr(tiled(attention.TPU, tiles).forward)(q, k, v, None))
  assert 'attention_forward_fixed_tiles' in program


@pytest.mark.parametrize('itemsize', [2, 4])
@pytest.mark.parametrize('k', [64, 128, 256])
def test_blocks_divide_what_they_pad_and_fit_in_the_memory(k, itemsize):
  for n, m in ((1, 1), (100, 300), (4608, 768), (4608, 4608), (73728, 73728), (300_000, 1000)):
    ahead = blocks.forward_blocks(n, m, k, itemsize)
    assert blocks.forward_vmem(ahead, itemsize) <= blocks.VMEM
    for heads in (1, 2, 3):
      back = blocks.backward_blocks(n, m, k, itemsize, heads)
      assert blocks.backward_vmem(back, itemsize) <= blocks.VMEM
      # Two cores share heads and chunks, where there is more than one block to share.
      assert heads * back.chunks % 2 == 0 or back.n == back.queries
      assert back.n % (back.queries * back.chunks) == 0
      for each in (ahead, back):
        assert each.n >= n and each.n % each.queries == 0 and each.queries % each.query_tile == 0
        assert each.m >= m and each.m % each.keys == 0 and each.keys % each.key_tile == 0
        assert not any(side % 128 for side in (each.query_tile, each.key_tile, each.k))


def test_long_rows_are_hardly_padded():
  for n in (4608, 9216, 18432, 73728, 36864 + 1024):
    assert blocks.forward_blocks(n, n, 128, 2).n == n
    assert blocks.backward_blocks(n, n, 128, 2, 3).n <= 1.02 * n


@pytest.mark.tpu_aot
@pytest.mark.usefixtures('without_flags_of_the_cpu')
@pytest.mark.timeout(900)
@pytest.mark.parametrize('topology', ['v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'])
def test_schedules_are_no_longer_than_those_of_splash(topology):
  """Cycles of a core for 1,024 x 1,024 scores of one head, and the cores that work on it."""
  found = schedules(topology, length=8192)
  ours, theirs = ({each['what']: each for each in found if each['whose'] == w} for w in WHOSE)
  for what in ('forward', 'backward'):
    mine, other = ours[what], theirs[what]
    assert mine['cycles'] / mine['cores'] <= 1.02 * other['cycles'] / other['cores']
    assert mine['vector'] < other['vector']
  if topology.startswith('v5p'):  # one head: JAX's kernels leave one of its two cores idle
    assert {each['cores'] for each in ours.values()} == {2}
  else:
    assert ours['forward']['cycles'] < 0.7 * theirs['forward']['cycles']
    assert ours['backward']['cycles'] < 0.8 * theirs['backward']['cycles']
