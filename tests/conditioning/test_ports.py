"""Ports add up, and contexts stand side by side with their masks."""

import jax.numpy as jnp
import numpy as np

from mgjax.conditioning.ports import Ports, combine


def test_nothing_combines_to_nothing():
  assert combine([]) == Ports()
  assert combine([Ports(), Ports()]) == Ports()


def test_tokens_and_vectors_are_summed():
  first = Ports(tokens=jnp.ones((1, 2, 3)), vector=jnp.ones((1, 3)))
  second = Ports(tokens=jnp.full((1, 2, 3), 2.0))
  both = combine([first, Ports(), second])
  np.testing.assert_array_equal(both.tokens, np.full((1, 2, 3), 3.0))
  np.testing.assert_array_equal(both.vector, np.ones((1, 3)))
  assert both.context is None


def test_contexts_stand_in_order_and_without_a_mask_are_read():
  masked = Ports(context=jnp.ones((1, 2, 3)), context_mask=jnp.array([[True, False]]))
  plain = Ports(context=jnp.zeros((1, 1, 3)))
  both = combine([masked, plain])
  np.testing.assert_array_equal(both.context[0, :, 0], [1, 1, 0])
  np.testing.assert_array_equal(both.context_mask, [[True, False, True]])
