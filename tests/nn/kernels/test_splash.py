"""Splash attention, interpreted, against softmax attention in float64; and compiled for TPUs."""

import jax
import jax.numpy as jnp
import pytest

from mgjax.nn.kernels import splash
from tests.experimental.tpu_attention.test_tpu_promises import assert_softmax, interpreted


@pytest.fixture
def small_blocks(monkeypatch):
  """Makes short sequences of float32 span several blocks, of 128 queries and 256 keys."""
  for name in ('QUERIES', 'FORWARD_TILE', 'BACKWARD_TILE'):
    monkeypatch.setattr(splash, name, 256)
  monkeypatch.setattr(splash, 'KEYS', 512)


@pytest.mark.parametrize('masked', [False, True])
def test_blocks_and_turns_of_heads_change_nothing(small_blocks, masked):
  assert_softmax(*interpreted('splash'), (2, 256, 600, 2, 64), masked)


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
