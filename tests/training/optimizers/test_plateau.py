"""Learning rates that fall when the validation loss stalls: when, by how much, over restarts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.api import train
from mgjax.core.errors import ConfigError
from mgjax.training.optimizers.optimizer import make_learning_rate, make_optimizer
from mgjax.training.optimizers.plateau import (
  Plateau,
  after_validation,
  learning_rate,
  make_react,
  scale_by_plateau,
)
from mgjax.training.settings import OptimizerSettings, Patience
from mgjax.training.state import start_state
from tests import tiny

ON = Patience(patience=1)
FIELDS = {'patience': 2, 'factor': 0.5, 'improvement': 0.01, 'lowest': 0.2}


def factors(losses, **fields):
  plateau, found = scale_by_plateau().init({}), []
  for loss in losses:
    plateau = after_validation(plateau, jnp.float32(loss), Patience(**(FIELDS | fields)))
    found.append(float(plateau.factor))
  return found


@pytest.mark.parametrize(
  ('losses', 'expected'),
  [
    ([1, 0.9, 0.8, 0.7, 0.6], [1, 1, 1, 1, 1]),
    ([1, 1, 1, 1, 1], [1, 1, 0.5, 0.5, 0.25]),  # the first one is better than nothing
    ([1, 1, 0.9, 0.9, 0.9], [1, 1, 1, 1, 0.5]),
    ([1, 0.995, 0.991], [1, 1, 0.5]),  # each lower than the last, none by 1 %
    ([1] * 9, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]),  # no further than the lowest
    ([np.nan, np.nan, 1.0], [1, 0.5, 0.5]),
    ([1, 1.1, 0.9, 1.1, 0.8], [1, 1, 1, 1, 1]),
  ],
)
def test_the_factor_falls_where_losses_stall(losses, expected):
  np.testing.assert_array_equal(np.float32(factors(losses)), np.float32(expected))


def test_an_update_is_the_schedules_times_the_factor_and_nothing_compiles_again():
  settings = OptimizerSettings(schedule='cosine', learning_rate=0.5)
  rate = make_learning_rate(settings, 10)
  params = {'kernel': jnp.ones((2, 2))}
  falling = dataclasses.replace(settings, plateau=ON)
  optimizers = [make_optimizer(each, 10) for each in (falling, settings)]
  state, plain = (start_state(params, each) for each in optimizers)
  state = jax.device_put(state, jax.devices()[0])  # in its place, as that of a run
  react = make_react(Patience(**FIELDS | {'patience': 1}))
  update = jax.jit(optimizers[0].update)
  for step, factor in enumerate((1.0, 0.5, 0.25)):
    updates, opt_state = update(params, state.opt_state, params)
    expected, plain_state = optimizers[1].update(params, plain.opt_state, params)
    # Halving is exact; what was compiled rounds some ten operations elsewhere.
    wanted = factor * expected['kernel']
    np.testing.assert_allclose(updates['kernel'], wanted, rtol=10 * np.finfo(np.float32).eps)
    assert float(learning_rate(opt_state, rate)) == factor * float(rate(step + 1))
    state, plain = state.replace(opt_state=opt_state), plain.replace(opt_state=plain_state)
    state = react(state, {'validation/video/loss': 1.0})
    state = react(state, {'validation/video/loss': 1.0}) if step == 0 else state
  assert update._cache_size() == 1


def test_without_patience_states_are_what_they_always_were():
  assert make_react(Patience()) is None
  state = make_optimizer(OptimizerSettings(learning_rate=1.0), 10).init({'kernel': jnp.ones(2)})
  assert not any(
    isinstance(each, Plateau)
    for each in jax.tree.leaves(state, is_leaf=lambda each: isinstance(each, Plateau))
  )


def test_two_players_fall_each_by_fields_of_its_own():
  optimizer = make_optimizer(OptimizerSettings(learning_rate=1.0, plateau=ON), 10)
  params = {'kernel': jnp.ones(2)}
  discriminator = {'params': params, 'opt_state': optimizer.init(params)}
  state = start_state(params, optimizer, discriminator)
  react = make_react(Patience(**FIELDS), Patience(**FIELDS | {'patience': 1, 'factor': 0.25}))
  for _ in range(2):
    state = react(state, {'validation/video/loss': 1.0})
  one = lambda _: jnp.float32(1)  # noqa: E731
  assert float(learning_rate(state.opt_state, one)) == 1.0
  assert float(learning_rate(state.discriminator['opt_state'], one)) == 0.25


@pytest.mark.slow
def test_a_run_that_is_stopped_halves_where_an_undisturbed_one_does(tiny_runs, tmp_path):
  # Nothing is ever better by 90 %: the rate falls after steps 4, 6 and 8.
  plateau = {'patience': 1, 'factor': 0.5, 'improvement': 0.9, 'lowest': 0.1}
  changes = {f'optimizer__plateau__{name}': value for name, value in plateau.items()}
  changes |= {
    'optimizer__schedule': 'constant',
    'optimizer__warmup': 0,
    'optimizer__learning_rate': 2.0**-10,
  }
  config = tiny.video(tiny_runs, train__evaluate_every=2, train__steps=9, **changes)
  tiny.resumed(config, tmp_path, 3, 6, end=8)  # between validations, and right after one
  rates = [
    row['learning_rate'] * 2**10 for row in tiny.metrics(tmp_path / 'whole') if 'loss' in row
  ]
  assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
  with pytest.raises(ConfigError, match=r'train\.evaluate_every: 2 -> 4'):
    train(tiny.video(tiny_runs, train__steps=9, **changes), tmp_path / 'whole')


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    ({'patience': -1}, 'patience = -1'),
    ({'factor': 0.0}, 'factor = 0.0; expected .* above 0'),
    ({'lowest': 2.0}, 'lowest = 2.0'),
    ({'improvement': 1.0}, r'improvement = 1.0; expected .* below 1'),
  ],
)
def test_it_says_what_is_wrong(change, sentence):
  with pytest.raises(ConfigError, match=sentence):
    Patience(**FIELDS | change)


def test_a_stall_needs_a_loss():
  optimizer = make_optimizer(OptimizerSettings(learning_rate=1.0, plateau=ON), 10)
  state = start_state({'kernel': jnp.ones(2)}, optimizer)
  with pytest.raises(ConfigError, match='too little validation data'):
    make_react(Patience(**FIELDS))(state, {'validation/video/psnr': 1.0})
