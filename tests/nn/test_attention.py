"""Every implementation of attention against softmax attention in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.nn import attention
from mgjax.nn.attention import attend
from mgjax.nn.kernels import blockwise
from tests.experimental.tpu_attention.test_tpu_promises import arrays, exact

IMPLEMENTATIONS = ('blockwise', 'xla')  # of every platform; tests/nn/kernels has the others

# (b, n, m, g, k): one token, odd lengths, context shorter and longer than the queries.
SHAPES = [
  (1, 1, 1, 1, 8),
  (2, 7, 7, 3, 8),
  (2, 33, 5, 2, 16),
  (3, 5, 37, 2, 16),
  (1, 301, 301, 1, 8),
]


def some_keys(b, m):
  """Returns a mask that leaves every row some key, and a different number of them."""
  return np.arange(m)[None] <= np.arange(1, b + 1)[:, None] * m // (b + 1)


@functools.partial(jax.jit, static_argnames='impl')
def with_gradients(q, k, v, dy, mask, impl):
  y, pull = jax.vjp(lambda q, k, v: attend(q, k, v, mask=mask, impl=impl), q, k, v)
  return y, *pull(dy)


@pytest.fixture
def small_blocks(monkeypatch):
  """Makes short sequences span several blocks, the last one padded."""
  monkeypatch.setattr(blockwise, 'SMALLEST_BLOCK', 4)
  monkeypatch.setattr(blockwise, 'BLOCK_SCORES', 1)
  caches = (with_gradients.clear_cache, attention._make_attend.cache_clear)
  for clear in caches:
    clear()
  yield
  for clear in caches:
    clear()


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_values_and_gradients_are_softmax_attention(impl, shape, masked):
  inputs = arrays(shape)
  mask = some_keys(shape[0], shape[2]) if masked else None
  for ours, theirs in zip(with_gradients(*inputs, mask, impl), exact(*inputs, mask), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=5e-6)


@pytest.mark.parametrize('shape', SHAPES)
def test_blocks_change_nothing(small_blocks, shape):
  inputs, mask = arrays(shape), some_keys(shape[0], shape[2])
  ours = with_gradients(*inputs, mask, 'blockwise')
  for mine, theirs in zip(ours, exact(*inputs, mask), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=5e-6)


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_bfloat16_keeps_its_type_and_float32_softmax(impl):
  inputs = arrays((2, 65, 65, 2, 16), jnp.bfloat16)
  for ours, theirs in zip(with_gradients(*inputs, None, impl), exact(*inputs), strict=True):
    assert ours.dtype == jnp.bfloat16
    # bfloat16 rounds at 2^-9 relative to the value; P, dS and the result are each rounded once.
    np.testing.assert_allclose(ours.astype(np.float32), theirs, atol=1e-2, rtol=3 * 2**-8)


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_a_row_that_may_read_nothing_returns_zeros(impl):
  inputs = arrays((2, 9, 6, 2, 8))
  mask = np.array([[True] * 6, [False] * 6])
  for result in with_gradients(*inputs, mask, impl):
    assert np.isfinite(result).all()
    assert np.abs(result[0]).max() > 0
    assert not result[1].any()


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
def test_large_scores_do_not_overflow(impl):
  q, k, v, dy = arrays((1, 5, 7, 1, 8))
  for ours, theirs in zip(
    with_gradients(100 * q, 100 * k, v, dy, None, impl), exact(100 * q, 100 * k, v, dy), strict=True
  ):
    # Scores near 3e4 carry an absolute error of 3e4 x 2^-23 = 4e-3; gradients are 100 times that.
    np.testing.assert_allclose(ours, theirs, atol=1)
    assert np.isfinite(ours).all()


def test_saving_attention_saves_all_that_blockwise_needs():
  q, k, v, _ = arrays((1, 16, 16, 1, 8))
  policy = jax.checkpoint_policies.save_only_these_names('attention', 'attention_sums')
  layer = jax.checkpoint(lambda q: jnp.sum(attend(q, k, v, impl='blockwise')), policy=policy)
  # One exponential forward, one backward; a third would be the forward pass computed again.
  assert str(jax.make_jaxpr(jax.grad(layer))(q)).count(' exp ') == 2


def test_memory_of_blockwise_is_linear_in_the_length():
  def peak(n):
    q = jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)
    step = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v, impl='blockwise').sum(), (0, 1, 2)))
    return step.lower(q, q, q).compile().memory_analysis().temp_size_in_bytes

  assert peak(16384) < 2.2 * peak(8192)


def test_auto_chooses_by_the_number_of_scores():
  def chosen(n):
    q = jax.ShapeDtypeStruct((1, n, 4, 8), jnp.float32)
    jaxpr = str(jax.make_jaxpr(lambda q: attend(q, q, q))(q))
    return 'blockwise' if ' scan' in jaxpr else 'xla'

  assert chosen(1023) == 'xla'
  assert chosen(1024) == 'blockwise'


def test_an_unknown_implementation_is_refused():
  q, k, v, _ = arrays((1, 2, 2, 1, 4))
  with pytest.raises(ConfigError, match="kernel 'cudnn'; expected one of auto, xla, blockwise, fl"):
    attend(q, k, v, impl='cudnn')
  with pytest.raises(ConfigError, match="exchange 'star'; expected one of auto, gather, ring"):
    attend(q, k, v, exchange='star')
