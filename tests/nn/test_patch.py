"""Patches come back whole, in the order that the positions have."""

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.nn.patch import grid, patchify, unpatchify


@pytest.mark.parametrize('patch', [(1, 2, 2), (1, 1, 1), (2, 4, 1)])
def test_round_trip_is_exact(patch):
  x = jnp.arange(2 * 4 * 8 * 4 * 3.0).reshape(2, 4, 8, 4, 3)
  sizes = grid(x.shape, patch)
  tokens = patchify(x, patch)
  assert tokens.shape == (2, np.prod(sizes), 3 * np.prod(patch))
  np.testing.assert_array_equal(unpatchify(tokens, sizes, patch), x)


def test_order_is_time_then_height_then_width():
  x = np.zeros((1, 2, 4, 6, 1), np.float32)
  x[0, 1, 2:4, 4:6, 0] = [[1, 2], [3, 4]]  # the patch at t = 1, h = 1, w = 2 of a 2 x 2 x 3 grid
  tokens = patchify(jnp.asarray(x), (1, 2, 2))
  assert np.flatnonzero(np.asarray(tokens).any(axis=-1)).tolist() == [1 * 6 + 1 * 3 + 2]
  np.testing.assert_array_equal(tokens[0, 11], [1, 2, 3, 4])
