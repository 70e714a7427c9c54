"""One step: mean gradients of micro-batches, and randomness that is a function of the step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgjax.training.ema import start_average
from mgjax.training.state import State
from mgjax.training.step import make_step

SEED, DECAY, RATE = 3, 0.5, 0.1
ROWS, WIDTH = 8, 3


class Scale(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * self.param('scale', nn.initializers.ones, x.shape[1:])[None]


def objective(predict, batch, key):
  """The mean of w (s x - y)^2, and the draw of the key."""
  errors = (predict(batch['x']) - batch['y']) ** 2
  loss = jnp.mean(batch['w'][:, None] * errors)
  return loss, {'loss': loss, 'draw': jax.random.uniform(key)}


def noisy(predict, batch, key):
  loss = jnp.mean((predict(batch['x']) - jax.random.normal(key, batch['x'].shape)) ** 2)
  return loss, {'loss': loss}


@pytest.fixture
def batch():
  generator = np.random.default_rng(0)
  arrays = {name: generator.normal(size=(ROWS, WIDTH)).astype(np.float32) for name in 'xy'}
  return arrays | {'w': generator.uniform(size=ROWS).astype(np.float32)}


def start(optimizer, step=0):
  params = {'scale': jnp.ones(WIDTH)}
  return State(jnp.int32(step), params, optimizer.init(params), start_average(params))


def made(optimizer=None, objective=objective, **options):
  options = {'seed': SEED, 'decay': DECAY} | options
  return jax.jit(make_step(Scale(), objective, optimizer or optax.sgd(RATE), **options))


@pytest.mark.parametrize('count', [2, 4, 8])
def test_accumulation_is_the_mean_over_micro_batches(batch, count):
  # The loss is a mean over rows, so the mean over equal parts is the loss of the whole.
  state = start(optax.sgd(RATE))
  whole, metrics = made()(state, batch)
  parts, of_parts = made(accumulate=count)(state, batch)
  # Sums of 24 numbers of order 1, in another order.
  bound = 24 * np.finfo(np.float32).eps
  np.testing.assert_allclose(parts.params['scale'], whole.params['scale'], atol=bound)
  np.testing.assert_allclose(of_parts['loss'], metrics['loss'], atol=bound)
  np.testing.assert_allclose(of_parts['gradient_norm'], metrics['gradient_norm'], rtol=bound)


def test_micro_batches_are_disjoint_and_draw_their_own_noise(batch):
  _, metrics = made(accumulate=2)(start(optax.sgd(RATE)), batch)
  key = jax.random.fold_in(jax.random.key(SEED), 0)
  draws = [jax.random.uniform(jax.random.fold_in(key, index)) for index in range(2)]
  np.testing.assert_allclose(metrics['draw'], np.mean(draws), rtol=1e-6)
  assert abs(draws[0] - draws[1]) > 1e-3


@pytest.mark.parametrize('step', [0, 1, 1000])
def test_randomness_is_the_seed_folded_with_the_step(batch, step):
  _, metrics = made()(start(optax.sgd(RATE), step), batch)
  key = jax.random.fold_in(jax.random.key(SEED), step)
  assert metrics['draw'] == jax.random.uniform(key)


def test_neither_history_nor_restart_changes_what_a_step_draws(batch):
  step = made(objective=noisy)
  first, _ = step(start(optax.sgd(RATE)), batch)
  second, _ = step(first, batch)
  # The same step from the same numbers, in another program and without the past.
  again = State(jnp.int32(1), *jax.tree.map(jnp.array, (first.params, first.opt_state)), None)
  again = again.replace(average=jax.tree.map(jnp.array, first.average))
  resumed, _ = made(objective=noisy)(again, batch)
  for one, other in zip(jax.tree.leaves(second), jax.tree.leaves(resumed), strict=True):
    np.testing.assert_array_equal(one, other)
  other_seed, _ = made(objective=noisy, seed=SEED + 1)(start(optax.sgd(RATE)), batch)
  assert not np.array_equal(first.params['scale'], other_seed.params['scale'])


def test_frozen_trees_reach_the_objective_by_name_and_no_batch(batch):
  def asking(predict, batch, key, teacher):
    assert 'teacher' not in batch
    loss, metrics = objective(predict, batch, key)
    return teacher['factor'] * loss, metrics

  optimizer = optax.sgd(RATE)
  step = jax.jit(make_step(Scale(), asking, optimizer, seed=SEED, decay=DECAY, accumulate=2))
  found, _ = step(start(optimizer), batch, frozen={'teacher': {'factor': jnp.float32(2)}})
  plain, _ = made(accumulate=2)(start(optimizer), batch)
  moved = [np.asarray(state.params['scale']) - 1 for state in (found, plain)]
  np.testing.assert_allclose(moved[0], 2 * moved[1], rtol=1e-5)


def test_adapters_train_alone_on_a_frozen_base(batch):
  """With y = s x and s = base + a, a learns what s would; state and average hold a alone."""
  optimizer, base = optax.adam(RATE), {'scale': jnp.ones(WIDTH)}
  step = made(optimizer, adapt=lambda own, base, key: {'scale': base['scale'] + own['a']})
  own = {'a': jnp.zeros(WIDTH)}
  state = State(jnp.int32(0), own, optimizer.init(own), start_average(own))
  whole = start(optimizer)
  for _ in range(3):
    state, metrics = step(state, batch, {'base': base})
    whole, expected = made(optimizer)(whole, batch)
    np.testing.assert_allclose(metrics['loss'], expected['loss'], rtol=1e-6)
  assert set(state.params) == set(state.average) == {'a'}
  np.testing.assert_allclose(1 + state.params['a'], whole.params['scale'], rtol=1e-5)
  shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
  assert shapes == [leaf.shape for leaf in jax.tree.leaves(whole.opt_state)]


def test_the_average_follows_the_new_parameters(batch):
  state, _ = made()(start(optax.sgd(RATE)), batch)
  assert int(state.step) == 1
  # Young averages forget: d = min(decay, (1 + 0) / (10 + 0)) = 0.1.
  expected = 1 + 0.9 * (np.asarray(state.params['scale']) - 1)
  np.testing.assert_allclose(state.average['scale'], expected, rtol=4e-7)


def test_the_gradient_norm_is_that_before_clipping(batch):
  clipped = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(RATE))
  state, metrics = made(clipped)(start(clipped), batch)
  assert metrics['gradient_norm'] > 0.01
  moved = np.linalg.norm(np.asarray(state.params['scale']) - 1)
  np.testing.assert_allclose(moved, RATE * 1e-3, rtol=1e-2)  # differences of numbers near 1
