"""The guard: what is bad changes nothing but the counters, for one player and for two."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mgjax.core.errors import ConfigError
from mgjax.parallel.mesh import make_mesh
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.guard import (
  HORIZON,
  WARM_UP,
  UpdateGuard,
  norms_by_group,
  parameter_norms,
  reopened,
)
from mgjax.training.optimizers.optimizer import make_optimizer
from mgjax.training.settings import OptimizerSettings, run_settings
from mgjax.training.spec import Adversary
from mgjax.training.state import start_discriminator, start_state
from mgjax.training.step import make_step
from tests import tiny
from tests.training.test_step import Scale

ROWS, WIDTH = 8, 16
# Where a number of a batch can be that only one of the players, or both, get to read.
PLACES = {1: ('x', 'w'), 2: ('x', 'w', 'z')}


def objective(predict, batch, key):
  noise = jax.random.normal(key, batch['x'].shape)
  loss = jnp.mean(batch['w'][:, None] * (predict(batch['x']) - noise) ** 2)
  return loss, {'loss': loss}


def generator_objective(predict, batch, key, judge):
  loss, metrics = objective(predict, batch, key)
  y = predict(batch['x'])
  return loss + judge.active * jnp.mean(judge.predict(y)), metrics, jax.lax.stop_gradient(y)


def opposing(predict, batch, made, key):
  loss = jnp.mean(batch['z'][:, None] * (predict(made) - 1) ** 2)
  return loss, {'opponent_loss': loss}


OPTIMIZER = make_optimizer(OptimizerSettings(learning_rate=0.1), 10)


def batch_of(step):
  generator = np.random.default_rng(step)
  rows = {name: generator.uniform(0.5, 1, ROWS).astype(np.float32) for name in 'wz'}
  return rows | {'x': generator.normal(size=(ROWS, WIDTH)).astype(np.float32)}


def spoilt(batch, name, value=np.nan):
  """The batch with one bad number, in the last row."""
  array = batch[name].copy()
  array[-1] = value
  return batch | {name: array}


def start(players=1, sharded=False):
  def place(tree):
    if not sharded:
      return tree
    mesh = make_mesh({'fsdp': 8}, 'fsdp')
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec('fsdp')))

  params, other = ({'scale': place(jnp.linspace(a, 1, WIDTH))} for a in (0.5, 0.7))
  against = start_discriminator(other, OPTIMIZER) if players == 2 else None
  return start_state(params, OPTIMIZER, against)


@functools.cache
def made(guard, players=1, accumulate=1):
  options = {'seed': 0, 'decay': 0.9, 'accumulate': accumulate, 'guard': guard}
  if players == 1:
    return jax.jit(make_step(Scale(), objective, OPTIMIZER, **options))
  discriminator = Adversary(
    Scale(),
    (jnp.ones((1, WIDTH)),),
    generator_objective,
    opposing,
    OptimizerSettings(learning_rate=0.1),
    start=0,
  )
  return jax.jit(make_adversarial_step(Scale(), discriminator, OPTIMIZER, OPTIMIZER, **options))


def learnt(state):
  """The bits of all that training changes, but the number of the step and the counters."""
  return tiny.bits(state.replace(step=jnp.int32(0), counters=None))


def numbers(state):
  counters = state.counters
  return int(counters.skipped), int(counters.in_a_row), int(counters.taken)


@pytest.mark.parametrize('accumulate, sharded', [(1, False), (2, True)])
@pytest.mark.parametrize('players', [1, 2])
def test_a_bad_batch_changes_nothing_and_the_next_goes_on(players, accumulate, sharded):
  step = made(UpdateGuard(skip=5), players, accumulate)
  state, _ = step(start(players, sharded), batch_of(0))
  for name in PLACES[players]:
    for value in (np.nan, np.inf):
      before, count = learnt(state), numbers(state)[0]
      state, metrics = step(state, spoilt(batch_of(1), name, value))
      assert learnt(state) == before and int(metrics['skipped']) == 1
      assert int(state.step) == count + 2  # the step counts: its data and its draws are used up
      assert not metrics['stopped']
      state = state.replace(counters=state.counters.replace(in_a_row=jnp.int32(0)))
  skipped = 2 * len(PLACES[players])
  state, metrics = step(state, batch_of(2))
  assert learnt(state) != before and not metrics['skipped']
  assert numbers(state) == (skipped, 0, 2) and int(metrics['skipped_steps']) == skipped
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize('players, accumulate', [(1, 2), (2, 1)])
def test_where_nothing_happens_the_gate_changes_no_bit(players, accumulate):
  free, guarded = start(players), start(players)
  for index in range(4):
    free, _ = made(None, players, accumulate)(free, batch_of(index))
    guarded, metrics = made(UpdateGuard(10, 50.0), players, accumulate)(guarded, batch_of(index))
    assert not metrics['skipped']
  assert learnt(free) == learnt(guarded) and numbers(guarded) == (0, 0, 4)


def test_a_gradient_that_is_not_finite_is_seen_though_the_loss_is():
  def root(predict, batch, key):  # at 0 it has no slope
    loss = jnp.sqrt(jnp.sum(jnp.square(predict(batch['x']))))
    return loss, {'loss': loss}

  step = jax.jit(make_step(Scale(), root, OPTIMIZER, seed=0, decay=0.9, guard=UpdateGuard()))
  before = learnt(start())
  state, metrics = step(start(), {'x': np.zeros((ROWS, WIDTH), np.float32)})
  assert metrics['loss'] == 0 and metrics['skipped'] and learnt(state) == before


def test_more_bad_steps_in_a_row_than_may_pass_close_the_gate_for_good():
  step, state = made(UpdateGuard(skip=2)), start()
  stops = []
  for bad in (True, True, False, True, True, True, False, False):
    before = learnt(state)
    state, metrics = step(state, spoilt(batch_of(1), 'x') if bad else batch_of(1))
    stops.append(bool(metrics['stopped']))
    assert (learnt(state) == before) == (bad or stops[-1])
  assert stops == [False] * 5 + [True] * 3


def test_where_none_may_pass_the_first_closes_it():
  _, metrics = made(UpdateGuard(skip=0))(start(), spoilt(batch_of(0), 'w'))
  assert metrics['stopped'] and metrics['skipped_in_a_row'] == 1


@pytest.mark.parametrize('player', ['model', 'discriminator'])
def test_a_parameter_that_is_not_finite_stops_the_run_and_shows_in_the_norms(player):
  step, state = made(UpdateGuard(skip=1), 2), start(2)
  scale = jnp.ones(WIDTH).at[3].set(jnp.nan)
  if player == 'model':
    state = state.replace(params={'scale': scale})
  else:
    state = state.replace(discriminator=state.discriminator | {'params': {'scale': scale}})
  before, stops = learnt(state), []
  for index in range(3):
    state, metrics = step(state, batch_of(index))
    stops.append(bool(metrics['stopped']))
  assert stops == [False, True, True] and learnt(state) == before
  bad = {name for name, norm in parameter_norms(state).items() if not np.isfinite(norm)}
  assert bad == {
    'parameter_norm/scale' if player == 'model' else 'discriminator_parameter_norm/scale'
  }


def settled(guard, steps):
  """The state after some steps, and their norms."""
  state, norms = start(), []
  for index in range(steps):
    state, metrics = made(guard)(state, batch_of(index))
    norms.append(float(metrics['gradient_norm']))
  return state, norms


def test_a_gradient_a_hundred_times_as_large_is_skipped_if_that_is_asked_for():
  large = batch_of(50)
  large['w'] = large['w'] * 100
  state, _ = settled(UpdateGuard(spike=10.0), WARM_UP)
  after, metrics = made(UpdateGuard(spike=10.0))(state, large)
  assert metrics['skipped'] and learnt(after) == learnt(state)
  assert metrics['running_gradient_norm'] == state.counters.norms['gradient_norm']
  # What is finite is clipped, not skipped, where nobody asks for more.
  taken, metrics = made(UpdateGuard())(state, large)
  assert not metrics['skipped'] and learnt(taken) != learnt(state)
  assert metrics['gradient_norm'] > 10 * state.counters.norms['gradient_norm']
  # And nothing is called a spike before there is enough to compare it with.
  young, _ = settled(UpdateGuard(spike=10.0), WARM_UP - 1)
  assert not made(UpdateGuard(spike=10.0))(young, large)[1]['skipped']


def test_norms_are_averaged_as_it_is_written():
  steps = HORIZON + 20
  state, norms = settled(UpdateGuard(), steps)
  mean = 0.0
  for index, norm in enumerate(norms):
    mean += (norm - mean) * max(1 / (index + 1), 1 / HORIZON)
  # Each of the steps rounds a number of the size of the mean a few times.
  bound = 4 * steps * np.finfo(np.float32).eps
  np.testing.assert_allclose(state.counters.norms['gradient_norm'], mean, rtol=bound)


def test_an_opponent_that_has_not_learnt_yet_is_no_measure_of_spikes():
  step, state = made(UpdateGuard(skip=0, spike=2.0), 2), start(2)
  counters = state.counters.replace(taken=jnp.int32(WARM_UP), norms=dict(state.counters.norms))
  counters.norms['gradient_norm'] = jnp.float32(1e6)
  _, metrics = step(state.replace(counters=counters), batch_of(0))
  assert not metrics['skipped'] and metrics['discriminator_gradient_norm'] > 0


def test_a_gate_that_lets_fewer_pass_than_before_is_not_closed_already():
  mesh = make_mesh({'fsdp': 8}, 'fsdp')
  before = jax.device_put(start(), NamedSharding(mesh, PartitionSpec())).counters
  many = before.replace(in_a_row=before.in_a_row + 7, skipped=before.skipped + 9)
  fewer = reopened(many, UpdateGuard(skip=3))
  tiny.same_state(fewer, many.replace(in_a_row=jnp.int32(3)))
  tiny.same_state(reopened(many, UpdateGuard(skip=7)), many)
  # As the step has it, or it would be compiled again.
  assert fewer.in_a_row.sharding == before.in_a_row.sharding and not fewer.in_a_row.weak_type
  _, metrics = made(UpdateGuard(skip=3))(start().replace(counters=fewer), batch_of(0))
  assert not metrics['stopped'] and not metrics['skipped']


def test_norms_are_told_by_group():
  state, metrics = made(None, 2)(start(2), batch_of(0))
  for player in ('', 'discriminator_'):
    assert metrics[f'{player}gradient_norm/scale'] == metrics[f'{player}gradient_norm']
  expected = np.linalg.norm(np.linspace(0.5, 1, WIDTH))
  assert (
    abs(parameter_norms(state)['parameter_norm/scale'] - expected) < 1
  )  # after one step of 0.1 a number
  many = {'a': {'b': {'c': jnp.full(4, 1.5)}, 'd': jnp.zeros(2)}, 'e': jnp.full(1, -2.0)}
  found = {name: float(norm) for name, norm in norms_by_group('n', many).items()}
  assert found == {'n/a/b': 3.0, 'n/a/d': 0.0, 'n/e': 2.0}


def test_a_gate_that_cannot_be_is_refused():
  train = {'steps': 1}  # as in configurations of before it was a field
  assert run_settings(train).faults == UpdateGuard()
  train['faults'] = {'skip': 0, 'spike': 6.0}
  assert run_settings(train).faults == UpdateGuard(0, 6.0)
  for fields, name in (({'skip': -1}, 'skip'), ({'spike': 0.5}, 'spike'), ({'spike': -2}, 'spike')):
    with pytest.raises(ConfigError, match=f'{name} = '):
      UpdateGuard(**fields)
