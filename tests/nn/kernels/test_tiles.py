"""Windows of tiles, and chosen ones, are softmax attention with everything else masked."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.nn.attention import attend
from mgjax.nn.kernels.tiles import Tiles, attend_to_means
from mgjax.nn.multihead import MultiHeadAttention
from mgjax.parallel.mesh import make_mesh
from tests.experimental.tpu_attention.test_tpu_promises import arrays, exact

HEADS, SIZE = 2, 8
CASES = {
  'tiles that fill the grid': (Tiles((4, 4, 6), (2, 2, 2), (1, 1, 3)), 0),
  'tiles that reach beyond it': (Tiles((3, 5, 4), (2, 2, 2), (1, 3, 1)), 0),
  'tokens that fill up a mesh': (Tiles((2, 3, 3), (1, 2, 2), (3, 1, 1)), 2),
  'a window of everything': (Tiles((4, 4, 4), (2, 2, 2), (3, 3, 3)), 0),
  'own tile and two chosen': (Tiles((4, 4, 6), (2, 2, 2), (1, 1, 1), 2), 0),
  'a window and one chosen': (Tiles((3, 5, 4), (2, 2, 2), (1, 3, 1), 1), 0),
  'one chosen on a mesh': (Tiles((2, 3, 3), (1, 2, 2), (1, 1, 1), 1), 2),
  'all chosen': (Tiles((2, 4, 4), (2, 2, 2), (1, 1, 1), 99), 0),
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


def test_a_window_without_a_middle_is_refused():
  with pytest.raises(ConfigError, match='has no middle'):
    Tiles((4, 4, 4), (2, 2, 2), (2, 1, 1))


def test_devices_that_hold_pieces_of_a_row_are_refused():
  q, tiles = jnp.ones((2, 16, 4, 8)), Tiles((1, 4, 4), (1, 2, 2), (1, 1, 1))
  with (
    jax.set_mesh(make_mesh({'data': 2, 'context': 4})),
    pytest.raises(ConfigError, match='need rows whole'),
  ):
    jax.jit(lambda q: attend(q, q, q, exchange='ring', tiles=tiles))(q)


def tile_of(tiles):
  """The tile of each token of the grid, by hand."""
  places = itertools.product(*map(range, tiles.grid))
  tiled = [[at // size for at, size in zip(each, tiles.tile, strict=True)] for each in places]
  return np.array([np.ravel_multi_index(each, tiles.counts) for each in tiled])


def chosen_by_hand(tiles, q, k):
  """Which key each query of each head may read (b g n n)."""
  q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
  (b, tokens, g, _), of, count = q.shape, tile_of(tiles), int(np.prod(tiles.counts))
  near = readable(tiles, tokens)
  allowed = np.zeros((b, g, tokens, tokens), bool)
  for row, head, tile in itertools.product(range(b), range(g), range(count)):
    mine = np.flatnonzero(of == tile)
    means = [k[row, np.flatnonzero(of == other), head].mean(0) for other in range(count)]
    fits = np.array(means) @ q[row, mine, head].mean(0)
    always = sorted({of[key] for key in np.flatnonzero(near[mine[0]])})
    others = [other for other in np.argsort(-fits) if other not in always]
    read = [*always, *others[: tiles.chosen]]
    allowed[row, head][np.ix_(mine, np.flatnonzero(np.isin(of, read)))] = True
  return allowed


@pytest.mark.parametrize('impl', ['xla', 'blockwise'])
@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients_are_those_of_a_mask(case, impl):
  tiles, more = CASES[case]
  tokens = int(np.prod(tiles.grid)) + more
  q, k, v, dy = arrays((2, tokens, tokens, HEADS, SIZE))
  mask = jnp.broadcast_to(jnp.arange(tokens) < tokens - more, (2, tokens)) if more else None

  @jax.jit
  def run(q, k, v, dy):
    y, pull = jax.vjp(lambda *a: attend(*a, mask=mask, impl=impl, tiles=tiles), q, k, v)
    return y, *pull(dy)

  allowed, ours = chosen_by_hand(tiles, q, k), run(q, k, v, dy)
  assert allowed.all() == (case in ('a window of everything', 'all chosen'))
  for head in range(HEADS):
    alone = [x[:, :, head : head + 1] for x in (q, k, v, dy)]
    for mine, theirs in zip(ours, exact(*alone, allowed[:, head]), strict=True):
      np.testing.assert_allclose(mine[:, :, head : head + 1], theirs, atol=2e-5)


@pytest.mark.parametrize('chosen', [0, 2])
@pytest.mark.parametrize('exchange', ['auto', 'ulysses'])
def test_devices_that_trade_tokens_for_heads_see_the_same_tiles(exchange, chosen):
  tiles = Tiles((2, 3, 3), (1, 2, 2), (1, 1, 1), chosen)
  q, k, v, dy = arrays((2, 20, 20, 4, 8))
  mask = jnp.broadcast_to(jnp.arange(20) < 18, (2, 20))

  def both(q, k, v):
    y = attend(q, k, v, mask=mask, exchange=exchange, tiles=tiles)
    return y + 0.5 * attend_to_means(q, k, v, tiles)

  def run(q, k, v, dy):
    y, pull = jax.vjp(both, q, k, v)
    return y, *pull(dy)

  alone = jax.jit(run)(q, k, v, dy)
  with jax.set_mesh(make_mesh({'data': 2, 'context': 2, 'tensor': 2})):
    together = jax.jit(run)(q, k, v, dy)
  for ours, theirs in zip(together, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_means_say_is_attention_among_them_behind_a_closed_gate():
  tiles = Tiles((2, 4, 4), (2, 2, 2), (1, 1, 1), 1)
  q, k, v, _ = arrays((2, 32, 32, HEADS, SIZE))
  of = tile_of(tiles)
  pooled = [
    np.stack([np.asarray(x)[:, of == tile].mean(1) for tile in range(4)], 1) for x in (q, k, v)
  ]
  scores = np.einsum('btgk,bugk->bgtu', *pooled[:2]) / np.sqrt(SIZE)
  shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  known = np.einsum('bgtu,bugk->btgk', shares, pooled[2])[:, of]
  np.testing.assert_allclose(attend_to_means(q, k, v, tiles), known, atol=1e-5)

  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 16)), jnp.float32)
  dense = MultiHeadAttention(HEADS, SIZE)
  sparse = dense.clone(tiles=Tiles((2, 4, 4), (2, 2, 2), (1, 1, 1), 99))
  params = nn.unbox(jax.jit(sparse.init)(jax.random.key(0), x)['params'])
  assert not params['means_gate']['kernel'].any()
  alike = {name: each for name, each in params.items() if name != 'means_gate'}
  made = jax.jit(sparse.apply)({'params': params}, x)
  known = jax.jit(dense.apply)({'params': alike}, x)
  np.testing.assert_allclose(made, known, atol=1e-5)
  gradient = jax.jit(jax.grad(lambda p: sparse.apply({'params': p}, x).sum()))(params)
  assert np.abs(gradient['means_gate']['kernel']).max() > 1e-4
