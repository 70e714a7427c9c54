"""Ports add up, and contexts stand side by side with their masks."""

import jax.numpy as jnp
import numpy as np

from mgjax.models.conditioning.ports import GatedContext, Ports, combine


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


def group(length, gate=0.5):
  mask = jnp.arange(length)[None] < jnp.array([[length], [0]])
  return GatedContext(tokens=jnp.ones((2, length, 3)), mask=mask, gate=jnp.full((2, 1), gate))


def test_groups_behind_gates_stay_apart_and_offsets_add():
  first = Ports(gated=(group(1),), offset=jnp.array([1, 2]))
  second = Ports(context=jnp.ones((2, 2, 3)), gated=(group(4),), offset=jnp.array([0, 5]))
  both = combine([first, Ports(), second])
  assert [each.tokens.shape[1] for each in both.gated] == [1, 4]
  assert both.context.shape == (2, 2, 3)
  np.testing.assert_array_equal(both.offset, [1, 7])


def test_a_row_of_which_nothing_may_be_read_has_no_gate():
  tokens, mask, gate = group(2).opened(jnp.bfloat16)
  assert tokens.dtype == gate.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(gate, np.float32), [[0.5], [0]])
  np.testing.assert_array_equal(mask, [[True, True], [False, False]])
