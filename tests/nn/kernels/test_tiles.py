"""Windows of tiles are softmax attention with everything outside of the window masked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.nn.attention import attend
from mgjax.nn.kernels.tiles import Tiles
from mgjax.parallel.mesh import make_mesh
from tests.nn.kernels.test_tpu_promises import arrays, exact

HEADS, SIZE = 2, 8
CASES = {
  'tiles that fill the grid': (Tiles((4, 4, 6), (2, 2, 2), (1, 1, 3)), 0),
  'tiles that reach beyond it': (Tiles((3, 5, 4), (2, 2, 2), (1, 3, 1)), 0),
  'tokens that fill up a mesh': (Tiles((2, 3, 3), (1, 2, 2), (3, 1, 1)), 2),
  'a window of everything': (Tiles((4, 4, 4), (2, 2, 2), (3, 3, 3)), 0),
}


def readable(tiles, tokens):
  """Which key each query may read (n n), by hand: tile by tile, the window moved inwards."""
  places = list(itertools.product(*map(range, tiles.grid)))
  allowed = np.zeros((tokens, tokens), bool)
  for query, key in itertools.product(range(len(places)), repeat=2):
    inside = []
    for a, b, tile, size, width in zip(
      places[query], places[key], tiles.tile, tiles.grid, tiles.window, strict=True
    ):
      count = -(-size // tile)
      width = min(width, count)
      first = min(max(a // tile - width // 2, 0), count - width)
      inside.append(first <= b // tile < first + width)
    allowed[query, key] = all(inside)
  return allowed


@pytest.mark.parametrize('impl', ['xla', 'blockwise'])
@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients_are_those_of_a_mask(case, impl):
  tiles, more = CASES[case]
  tokens = int(np.prod(tiles.grid)) + more
  q, k, v, dy = arrays((2, tokens, tokens, HEADS, SIZE))
  mask = jnp.broadcast_to(jnp.arange(tokens) < tokens - more, (2, tokens)) if more else None
  y, pull = jax.vjp(lambda *a: attend(*a, mask=mask, impl=impl, tiles=tiles), q, k, v)
  # As of attention to everything (tests/nn/test_attention.py); dk and dv are sums over windows.
  allowed = np.broadcast_to(readable(tiles, tokens), (2, tokens, tokens))
  for ours, theirs in zip((y, *pull(dy)), exact(q, k, v, dy, allowed), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_window_without_a_middle_is_refused():
  with pytest.raises(ConfigError, match='has no middle'):
    Tiles((4, 4, 4), (2, 2, 2), (2, 1, 1))


@pytest.mark.parametrize('exchange', ['auto', 'ulysses'])
def test_devices_that_trade_tokens_for_heads_see_the_same_windows(exchange):
  tiles = Tiles((2, 3, 3), (1, 2, 2), (1, 1, 1))
  q, k, v, dy = arrays((2, 20, 20, 4, 8))
  mask = jnp.broadcast_to(jnp.arange(20) < 18, (2, 20))

  def run(q, k, v, dy):
    y, pull = jax.vjp(lambda *a: attend(*a, mask=mask, exchange=exchange, tiles=tiles), q, k, v)
    return y, *pull(dy)

  alone = jax.jit(run)(q, k, v, dy)
  with jax.set_mesh(make_mesh({'data': 2, 'context': 2, 'tensor': 2})):
    together = jax.jit(run)(q, k, v, dy)
  for ours, theirs in zip(together, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_devices_that_hold_pieces_of_a_row_are_refused():
  q, tiles = jnp.ones((2, 16, 4, 8)), Tiles((1, 4, 4), (1, 2, 2), (1, 1, 1))
  with (
    jax.set_mesh(make_mesh({'data': 2, 'context': 4})),
    pytest.raises(ConfigError, match='need rows whole'),
  ):
    jax.jit(lambda q: attend(q, q, q, exchange='ring', tiles=tiles))(q)
