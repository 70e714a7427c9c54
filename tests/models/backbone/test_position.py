"""Positions factorise, and tables grow without moving what they hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.backbone.position import Positions, grow_positions
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps


def tables(lengths, dim=8):
  return random_parameters(lambda key: Positions(lengths, dim).init(key, lengths))


grow = jax.jit(grow_positions, static_argnums=1)


def test_a_position_is_the_sum_of_its_three_entries():
  params = tables((3, 4, 5))
  phi = jax.jit(lambda params: Positions((3, 4, 5), 8).apply({'params': params}, (2, 3, 4)))(params)
  phi = np.asarray(phi).reshape(2, 3, 4, 8)
  for t, h, w in np.ndindex(2, 3, 4):
    expected = params['time'][t] + params['height'][h] + params['width'][w]
    np.testing.assert_allclose(phi[t, h, w], expected, atol=4 * EPS)


def test_an_offset_is_the_first_place_of_a_row_in_time():
  params, offset = tables((5, 4, 5)), np.array([0, 2, 3, 9, -1])
  look = jax.jit(lambda p, offset: Positions((5, 4, 5), 8).apply({'params': p}, (2, 3, 4), offset))
  phi = np.asarray(look(params, offset)).reshape(5, 2, 3, 4, 8)
  # The last two are clamped so that both frames stay within the five entries.
  for row, first in enumerate((0, 2, 3, 3, 0)):
    for t, h, w in np.ndindex(2, 3, 4):
      expected = params['time'][first + t] + params['height'][h] + params['width'][w]
      np.testing.assert_allclose(phi[row, t, h, w], expected, atol=4 * EPS)


def test_gradients_of_positions_go_to_the_entries_that_an_offset_chose():
  params = tables((5, 4, 5))

  def total(params):
    return Positions((5, 4, 5), 8).apply({'params': params}, (2, 3, 4), jnp.array([3, 2])).sum()

  time = np.asarray(jax.jit(jax.grad(total))(params)['time'])[:, 0]
  np.testing.assert_array_equal(time, np.array([0, 0, 1, 2, 1]) * 3 * 4)


def test_a_grid_beyond_the_tables_says_what_to_do():
  with pytest.raises(ConfigError, match=r'\(1, 5, 2\).*tables \(3, 4, 5\).*grow_positions'):
    Positions((3, 4, 5), 8).apply({'params': tables((3, 4, 5))}, (1, 5, 2))


@pytest.mark.parametrize('factor', [1, 2, 3])
def test_growing_is_linear_interpolation_held_at_the_ends(factor):
  params = tables((1, 4, 5))  # of a model of images, whose one entry of time all frames get
  grown = grow(params, tuple(factor * length for length in (1, 4, 5)))
  for name, old in params.items():
    place = (np.arange(factor * len(old)) + 0.5) / factor - 0.5
    exact = np.stack([np.interp(place, np.arange(len(old)), each) for each in old.T], axis=1)
    np.testing.assert_allclose(grown[name], exact, atol=8 * EPS)
  if factor == 1:
    jax.tree.map(np.testing.assert_array_equal, grown, params)


def test_shrinking_is_refused():
  with pytest.raises(ConfigError, match="table 'height' has 4 entries and cannot shrink to 3"):
    grow_positions(tables((3, 4, 5)), (3, 3, 5))
