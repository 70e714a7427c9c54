"""Optimizer, schedules and averages against float64 numpy twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.training.ema import start_average, update_average
from mgjax.training.optimizers.optimizer import decays, make_learning_rate, make_optimizer
from mgjax.training.optimizers.rates import fill, mask_like
from mgjax.training.settings import OptimizerSettings

EPSILON = float(np.finfo(np.float32).eps)
FACTORS = {
  'position/table': 1.0,
  'stack/linear/bias': 3.0,
  'stack/linear/kernel': 0.25,
  'stack/norm/scale': 0.0,
}


def make_params():
  numbers = np.random.default_rng(0)
  shapes = {
    'stack': {'linear': {'kernel': (2, 4, 3), 'bias': (2, 3)}, 'norm': {'scale': (2, 4)}},
    'position': {'table': (5, 4)},
  }
  return jax.tree.map(
    lambda shape: numbers.normal(size=shape).astype(np.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def rate_twin(kind, peak, steps, warmup, final, step):
  progress = min(max((step - warmup) / (steps - warmup), 0), 1)
  shape = {'constant': 1, 'linear': 1 - progress, 'cosine': (1 + np.cos(np.pi * progress)) / 2}
  warm = min(1, (step + 1) / warmup) if warmup else 1
  if kind == 'exponential':
    return peak * warm * final**progress
  return peak * warm * (final + (1 - final) * shape[kind])


@pytest.mark.parametrize('kind', ['constant', 'linear', 'cosine', 'exponential'])
@pytest.mark.parametrize('warmup', [0, 10])
def test_schedule_equals_its_formula(kind, warmup):
  rate = make_learning_rate(
    OptimizerSettings(schedule=kind, learning_rate=1e-4, warmup=warmup, final_fraction=0.1), 50
  )
  steps = np.arange(60)
  given = jax.jit(jax.vmap(rate))(jnp.asarray(steps))
  expected = [rate_twin(kind, 1e-4, 50, warmup, 0.1, step) for step in steps]
  # About ten float32 operations on numbers no larger than the peak.
  np.testing.assert_allclose(given, expected, rtol=0, atol=10 * EPSILON * 1e-4)


def test_an_optimizer_that_is_not_there_is_refused_by_name():
  with pytest.raises(ConfigError, match=r"optimizer\.name = 'adam'; expected one of adamw, muon"):
    make_optimizer(OptimizerSettings(name='adam', learning_rate=1e-4), 50)


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    (
      {'schedule': 'cosin'},
      "schedule = 'cosin'; expected one of constant, cosine, exponential, linear",
    ),
    ({'warmup': 100}, 'warmup is 100 of 100 steps'),
    ({'final_fraction': 2.0}, r'final_fraction = 2.0; expected .* from 0 to 1'),
    (
      {'schedule': 'exponential', 'final_fraction': 0.0},
      'an exponential schedule does not reach 0',
    ),
  ],
)
def test_schedule_says_what_is_wrong(change, sentence):
  with pytest.raises(ConfigError, match=sentence):
    fields = {'schedule': 'cosine', 'learning_rate': 1.0} | change
    make_learning_rate(OptimizerSettings(**fields), 100)


def test_only_kernels_decay_however_many_axes():
  assert decays(make_params()) == {
    'stack': {'linear': {'kernel': True, 'bias': False}, 'norm': {'scale': False}},
    'position': {'table': False},
  }


def test_optimizer_equals_adamw_twin_with_rates_by_name():
  beta1, beta2, epsilon, decay, clip, steps = 0.9, 0.95, 1e-8, 0.1, 1.0, 8
  settings = OptimizerSettings(
    schedule='linear',
    learning_rate=1e-2,
    warmup=3,
    beta1=beta1,
    beta2=beta2,
    epsilon=epsilon,
    weight_decay=decay,
    clip=clip,
    rates=tuple(FACTORS.items()),
  )
  optimizer = make_optimizer(settings, steps)
  params = jax.tree.map(jnp.asarray, make_params())
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  leaves, treedef = jax.tree.flatten(params)
  twin = [np.asarray(leaf, np.float64) for leaf in leaves]
  means, squares = [0.0] * len(twin), [0.0] * len(twin)
  decayed = jax.tree.leaves(decays(params))
  factors = [FACTORS[name] for name in named_leaves(params)]
  numbers = np.random.default_rng(1)
  for step in range(steps):
    gradients = [numbers.normal(size=p.shape).astype(np.float32) for p in twin]
    if step % 2:
      gradients = [g * np.float32(0.01) for g in gradients]  # these pass the clipping unchanged
    updates, state = update(jax.tree.unflatten(treedef, gradients), state, params)
    params = fill(jax.tree.map(jnp.add, mask_like(params, updates), updates), params)
    learning = [np.float64(g) for g, factor in zip(gradients, factors, strict=True) if factor]
    norm = np.sqrt(sum(np.sum(g**2) for g in learning))
    for i, g in enumerate(gradients):
      g = g.astype(np.float64) * min(1, clip / norm)
      means[i] = beta1 * means[i] + (1 - beta1) * g
      squares[i] = beta2 * squares[i] + (1 - beta2) * g**2
      direction = means[i] / (1 - beta1 ** (step + 1))
      direction /= np.sqrt(squares[i] / (1 - beta2 ** (step + 1))) + epsilon
      learning_rate = rate_twin('linear', 1e-2, steps, 3, 0, step)
      twin[i] -= factors[i] * learning_rate * (direction + decay * decayed[i] * twin[i])
  for given, expected in zip(jax.tree.leaves(params), twin, strict=True):
    # Each step rounds parameters of size ~4 once, and an update of at most 3 x 1e-2 about 30 times;
    # the bias correction 1 - beta2 = 0.05 of the first step loses a factor 20 of the latter.
    np.testing.assert_allclose(given, expected, rtol=0, atol=steps * EPSILON * (4 + 20 * 30 * 3e-2))


def test_infinite_clip_never_clips():
  optimizer = make_optimizer(OptimizerSettings(learning_rate=1.0, beta1=0.0, clip=float('inf')), 1)
  params = {'a': jnp.zeros(2)}
  _, state = optimizer.update({'a': jnp.asarray([3e3, 4e3])}, optimizer.init(params), params)
  assert state[1].mu['a'].tolist() == [3e3, 4e3]


def test_moments_and_updates_are_float32():
  optimizer = make_optimizer(OptimizerSettings(learning_rate=0.1), 1)
  params = {'kernel': jnp.ones((2, 2), jnp.bfloat16)}
  updates, state = optimizer.update(params, optimizer.init(params), params)
  assert updates['kernel'].dtype == jnp.float32
  assert state[1].mu['kernel'].dtype == state[1].nu['kernel'].dtype == jnp.float32


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    ({'beta2': 1.0}, r'beta2 = 1.0; expected .* from 0 below 1'),
    ({'clip': 0.0}, 'clip = 0.0; expected a number above 0'),
    ({'weight_decay': -1.0}, 'weight_decay = -1.0; expected .* from 0'),
  ],
)
def test_optimizer_says_what_is_wrong(change, sentence):
  with pytest.raises(ConfigError, match=sentence):
    OptimizerSettings(learning_rate=0.1, **change)


def test_average_equals_its_formula():
  numbers = np.random.default_rng(2)
  start = numbers.normal(size=5).astype(np.float32)
  average, twin = start_average({'p': jnp.asarray(start)}), start.astype(np.float64)
  for step in range(20):
    value = numbers.normal(size=5).astype(np.float32)
    average = update_average(average, {'p': jnp.asarray(value)}, 0.6, jnp.int32(step))
    decay = min(0.6, (1 + step) / (10 + step))
    twin = decay * twin + (1 - decay) * value
  # A step rounds numbers of size ~3 about five times; the decay, at most 0.6, forgets what a
  # step adds, and the sum of what is left is at most 1 / (1 - 0.6) of it.
  np.testing.assert_allclose(average['p'], twin, rtol=0, atol=5 * 3 * EPSILON / 0.4)


def test_average_is_a_float32_copy():
  params = {'p': jnp.ones(3), 'h': jnp.ones(3, jnp.bfloat16)}
  average = start_average(params)
  assert average['h'].dtype == jnp.float32
  assert average['p'].unsafe_buffer_pointer() != params['p'].unsafe_buffer_pointer()
  after = update_average(average, params, 0.999, 5)
  assert after['h'].dtype == jnp.float32
  assert after['p'].tolist() == [1.0, 1.0, 1.0]  # what does not change is not moved by rounding
