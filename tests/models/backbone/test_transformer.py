"""The backbone: what it answers before training, and what may and may not change its answer."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.backbone.modulation import TimeModulation
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.ports import GatedContext, Ports
from mgjax.parallel.mesh import make_mesh
from tests.random_parameters import random_parameters

ROWS, DIM, DEPTH, CONTEXT = 3, 32, 2, 5
EPS = np.finfo(np.float32).eps
# Per layer the roundings of one block (tests/models/backbone/test_block.py), and some around them.
TOLERANCE = (DEPTH + 1) * 400 * EPS


def model(**fields):
  defaults = {'dim': DIM, 'depth': DEPTH, 'heads': 4, 'mlp_dim': 48, 'positions': (4, 4, 4)}
  return Transformer(**(defaults | fields))


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def inputs():
  mask = np.arange(CONTEXT)[None] < np.array([[5], [3], [1]])
  ports = Ports(context=draw(ROWS, CONTEXT, DIM, seed=1), context_mask=jnp.asarray(mask))
  return draw(ROWS, 2, 4, 8, 3), jnp.array([0.1, 0.5, 0.9]), ports


@pytest.fixture(scope='module')
def fresh():
  """Parameters as they start."""
  return nn.unbox(jax.jit(model().init)(jax.random.key(0), *inputs()))['params']


@pytest.fixture(scope='module')
def params():
  return random_parameters(model().init, *inputs())


@functools.partial(jax.jit, static_argnames='dtype')
def apply(params, x, time, ports, dtype=jnp.float32):
  return model(dtype=dtype).apply({'params': params}, x, time, ports)


def close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.abs(theirs).max())


def differs(ours, theirs):
  return np.abs(np.asarray(ours) - theirs).max() > 1e-2


def test_an_untrained_model_answers_zero(fresh):
  x, time, ports = inputs()
  y = apply(fresh, x, time, ports)
  assert y.shape == x.shape
  assert not y.any()


def test_gates_are_closed_at_first(fresh):
  embed = jax.jit(lambda params, time: TimeModulation(DIM).apply({'params': params}, time, None))
  embedding, modulation = embed(fresh['time'], jnp.array([0.0, 0.5, 1.0]))
  assert not modulation.any()
  assert differs(embedding[0], np.asarray(embedding[1]))  # and yet time is seen
  assert not fresh['layers']['modulation'].any()


def test_gradients_reach_every_parameter_after_a_step(params):
  loss = lambda params: jnp.sum(jnp.sin(apply(params, *inputs())))  # noqa: E731
  gradients = jax.jit(jax.grad(loss))(params)
  unused = [path for path, g in jax.tree_util.tree_leaves_with_path(gradients) if not g.any()]
  assert not unused


def test_windows_of_tiles_that_reach_everything_change_nothing(params):
  x, time, ports = inputs()
  one, near = (
    jax.jit(model(tile=tile, window=window).apply)({'params': params}, x, time, ports)
    for tile, window in (((1, 2, 2), (3, 3, 3)), ((1, 1, 1), (1, 1, 3)))
  )
  close(one, apply(params, x, time, ports))
  assert differs(near, one)
  for fields, said in (({'tile': (2, 2)}, r'model\.tile = '), ({'chosen': 2}, 'give model.tile')):
    with pytest.raises(ConfigError, match=said):
      model(**fields).apply({'params': params}, x, time, ports)


def test_depthwise_convolutions_start_as_the_model_without_them(params):
  made = random_parameters(model(depthwise=True).init, *inputs())
  layers = {name: made['layers'][name] for name in ('self_depthwise', 'feed_depthwise')}
  start = jnp.zeros_like(layers['self_depthwise']['taps']).at[:, 1, 1, 1].set(1)
  identity = params | {'layers': params['layers'] | {name: {'taps': start} for name in layers}}
  run = jax.jit(lambda params: model(depthwise=True).apply({'params': params}, *inputs()))
  plain = apply(params, *inputs())
  close(run(identity), plain)
  assert differs(run(params | {'layers': params['layers'] | layers}), plain)
  init = jax.jit(model(depthwise=True).init)
  fresh = nn.unbox(init(jax.random.key(0), *inputs()))['params']
  np.testing.assert_array_equal(fresh['layers']['feed_depthwise']['taps'], start)


def test_velocity_is_float32_whatever_the_compute_type(params):
  exact, y = (np.asarray(apply(params, *inputs(), dtype)) for dtype in (jnp.float32, jnp.bfloat16))
  assert y.dtype == np.float32
  # Forty roundings to 8 bits a layer (tests/models/backbone/test_block.py) add like their square
  # root.
  rms = lambda a: np.sqrt(np.mean(a * a))  # noqa: E731
  assert 0 < rms(y - exact) < np.sqrt(40 * (DEPTH + 1)) * 2**-8 * rms(exact)


def test_products_of_one_byte_change_the_velocity_a_little_and_unknown_ones_are_refused(params):
  ours, exact = (
    np.asarray(jax.jit(model(products=kind).apply)({'params': params}, *inputs()))
    for kind in ('int8', 'dtype')
  )
  # As of bfloat16 above: steps of the largest over 127 are coarser than 8 bits of each.
  rms = lambda a: np.sqrt(np.mean(a * a))  # noqa: E731
  assert 0 < rms(ours - exact) < np.sqrt(40 * (DEPTH + 1)) * 2**-6 * rms(exact)
  with pytest.raises(ConfigError, match="products = 'int4'; expected dtype or int8 or int8_both"):
    model(products='int4').apply({'params': params}, *inputs())


def test_masked_context_is_neutral(params):
  x, time, ports = inputs()
  mask = np.asarray(ports.context_mask)
  y = apply(params, x, time, ports)
  changed = ports.replace(context=np.where(mask[..., None], ports.context, np.float32(1e3)))
  np.testing.assert_array_equal(apply(params, x, time, changed), y)
  longer = Ports(
    context=np.pad(ports.context, ((0, 0), (0, 4), (0, 0)), constant_values=1),
    context_mask=np.pad(mask, ((0, 0), (0, 4))),
  )
  close(apply(params, x, time, longer), y)


def group(gate, length=3, seed=4):
  there = np.arange(length)[None] < np.array([[length], [length - 1], [0]])  # the last is dropped
  return GatedContext(
    tokens=draw(ROWS, length, DIM, seed=seed), mask=jnp.asarray(there), gate=jnp.asarray(gate)
  )


OPEN = np.full((ROWS, 1), 0.7, np.float32)


def test_a_dropped_row_of_gated_context_is_absent_bit_for_bit(params):
  x, time, ports = inputs()
  y, opened = (
    np.asarray(apply(params, x, time, each))
    for each in (ports, ports.replace(gated=(group(OPEN),)))
  )
  np.testing.assert_array_equal(opened[2], y[2])
  assert differs(opened[0], y[0]) and differs(opened[1], y[1])


def test_a_model_without_other_context_has_cross_attention_for_its_groups():
  x, time, _ = inputs()
  alone = random_parameters(model().init, x, time, Ports())
  own = random_parameters(model().init, x, time, Ports(gated=(group(OPEN),)))
  assert 'cross_attention' not in alone['layers'] and 'cross_attention' in own['layers']
  shared = own | {'layers': own['layers'] | alone['layers']}  # the same layers, one reads
  y = apply(alone | {k: v for k, v in own.items() if k != 'layers'}, x, time, Ports())
  closed = apply(shared, x, time, Ports(gated=(group(0 * OPEN),)))
  np.testing.assert_array_equal(closed, y)
  assert differs(apply(shared, x, time, Ports(gated=(group(OPEN),)))[0], np.asarray(y)[0])


def test_an_offset_moves_a_row_along_the_table_of_time(params):
  x, time, ports = inputs()
  y = apply(params, x, time, ports.replace(offset=jnp.array([0, 2, 1])))
  for row, first in enumerate((0, 2, 1)):
    table = params['positions']['time']
    moved = params | {'positions': params['positions'] | {'time': np.roll(table, -first, axis=0)}}
    close(y[row], np.asarray(apply(moved, x, time, ports))[row])
  assert differs(y[1], np.asarray(apply(params, x, time, ports))[1])


def test_an_offset_of_zero_is_none_bit_for_bit(params):
  x, time, ports = inputs()
  moved = ports.replace(offset=jnp.zeros(ROWS, jnp.int32))
  np.testing.assert_array_equal(apply(params, x, time, moved), apply(params, x, time, ports))


def test_gates_and_offsets_of_a_dit_are_the_same_on_a_mesh():
  """7 tokens of context and 3 behind the gate divide by nothing; gradients of all of them."""
  dit = model(norm='layer', affine=False, bias=True, feed_forward='silu')
  x, time, ports = inputs()
  x, time, ports = jax.tree.map(lambda a: jnp.concatenate([a, a[:1]]), (x, time, ports))
  gated = jax.tree.map(lambda a: jnp.concatenate([a, a[:1]]), group(OPEN))
  ports = ports.replace(offset=jnp.array([0, 2, 1, 2]))
  params = random_parameters(dit.init, x, time, ports.replace(gated=(gated,)))

  def loss(params, gate, tokens):
    given = ports.replace(gated=(gated.replace(gate=gate, tokens=tokens),))
    return jnp.sum(jnp.sin(dit.apply({'params': params}, x, time, given)))

  def run():
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(params, gated.gate, gated.tokens)

  expected = run()
  with jax.set_mesh(make_mesh({'fsdp': 2, 'context': 2, 'tensor': 2})):
    found = run()
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
  for one, other in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
    np.testing.assert_allclose(other, one, atol=TOLERANCE * largest)


@pytest.mark.parametrize('remat', ['nothing', 'full'])
def test_tokens_behind_a_layer_are_those_of_a_model_that_ends_there(params, remat):
  """On a mesh as on one device; asked for, they change neither the velocity nor a gradient."""
  x, time, ports = jax.tree.map(lambda a: jnp.concatenate([a, a[:1]]), inputs())
  first = params | {'layers': jax.tree.map(lambda leaf: leaf[:1], params['layers'])}

  @functools.partial(jax.jit, static_argnames=('tap', 'depth'))
  def run(params, tap, depth=DEPTH):
    def loss(params):
      made = model(depth=depth, remat=remat).apply({'params': params}, x, time, ports, tap)
      velocity, tokens = made if tap else (made, None)
      return jnp.sum(jnp.sin(velocity)), (velocity, tokens)

    return jax.value_and_grad(loss, has_aux=True)(params)

  plain, (tapped, last) = run(params, None), (run(params, tap) for tap in (1, DEPTH))
  np.testing.assert_array_equal(tapped[0][1][0], plain[0][1][0])
  jax.tree.map(close, tapped[1], plain[1])
  tokens = tapped[0][1][1]
  assert tokens.shape == (4, 2 * 2 * 4, DIM) and differs(tokens, last[0][1][1])
  close(run(first, 1, depth=1)[0][1][1], tokens)
  with jax.set_mesh(make_mesh({'fsdp': 2, 'context': 2, 'tensor': 2})):
    close(run(params, 1)[0][1][1], tokens)


def test_a_layer_that_is_not_there_has_no_tokens(params):
  with pytest.raises(ConfigError, match=r'tap = 3; expected a layer, from 1 to model\.depth = 2'):
    model().apply({'params': params}, *inputs(), tap=3)


def test_a_width_that_does_not_divide_into_the_heads_is_refused():
  with pytest.raises(ConfigError, match=r'model\.dim = 32 does not divide into 5 heads'):
    jax.eval_shape(model(heads=5).init, jax.random.key(0), *inputs())


def test_heads_that_do_not_divide_over_the_mesh_are_a_sentence():
  with (
    jax.set_mesh(make_mesh({'tensor': 8})),
    pytest.raises(
      ConfigError, match=r'4 heads do not divide over mesh\.tensor = 8; take one of 1, 2, 4'
    ),
  ):
    model = Transformer(32, 1, 4, 48, (2, 2, 2))
    model.init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 4)), jnp.zeros(1), Ports())
