"""Rates by name, and frozen parameters that nothing touches; their twin is in test_optimizer.py."""

import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgjax
from mgjax.api import train
from mgjax.apps.dry_run import dry_run
from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.core.tree import named_leaves
from mgjax.nn.linear import Linear
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import put_batch
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import verify_checkpoint
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config
from mgjax.training.optimizers.optimizer import make_optimizer
from mgjax.training.optimizers.rates import describe_rates
from mgjax.training.settings import OptimizerSettings
from mgjax.training.spec import Adversary
from mgjax.training.state import abstract_state, shardings_of, start_discriminator, start_state
from mgjax.training.step import make_learn, make_step
from tests import tiny

EPSILON = float(np.finfo(np.float32).eps)
RATES = (('tower/layers/*', 0.0), ('tower/*', 0.25), ('*/bias', 3.0))
FACTORS = {
  'head/bias': 3.0,
  'head/kernel': 1.0,
  'tower/layers/bias': 0.0,
  'tower/layers/kernel': 0.0,
  'tower/out/bias': 0.25,
  'tower/out/kernel': 0.25,
}


def linear(name, features, axes):
  return Linear(features, axes, use_bias=True, name=name)


class Tower(nn.Module):
  @nn.compact
  def __call__(self, x):
    inside = jnp.tanh(linear('layers', 8, ('embed', 'hidden'))(x))
    return linear('out', 4, ('hidden', 'embed'))(inside)


class Model(nn.Module):
  @nn.compact
  def __call__(self, x):
    return linear('head', 1, ('embed', 'channels'))(jnp.tanh(Tower(name='tower')(x)))


MODEL = Model()
BATCH = {'x': jnp.float32(np.random.default_rng(0).normal(size=(8, 4)))}
PARAMS = nn.unbox(MODEL.init(jax.random.key(0), BATCH['x'])['params'])


def objective(predict, batch, key):
  loss = 30 * jnp.mean((predict(batch['x']) - batch['x'][:, :1]) ** 2)
  return loss, {'loss': loss}


def settings_of(rates, **more):
  return OptimizerSettings(learning_rate=0.01, rates=rates, **more)


def made(rates, accumulate=1):
  """An optimizer and a step."""
  optimizer = make_optimizer(settings_of(rates), 10)
  options = {'seed': 0, 'decay': 0.9, 'accumulate': accumulate, 'rates': rates}
  return optimizer, jax.jit(make_step(MODEL, objective, optimizer, **options))


def taken(rates, accumulate=1):
  """The state after three steps and the metrics of the last one."""
  optimizer, step = made(rates, accumulate)
  state, metrics = start_state(PARAMS, optimizer), {}
  for _ in range(3):
    state, metrics = step(state, BATCH)
  return state, metrics


@pytest.mark.parametrize('accumulate', [1, 2])
def test_frozen_parameters_stay_bit_by_bit_without_moments_or_decay(accumulate):
  before, (state, metrics) = named_leaves(PARAMS), taken(RATES, accumulate=accumulate)
  after, average = named_leaves(state.params), named_leaves(state.average)
  for name, factor in FACTORS.items():
    assert np.array_equal(after[name], before[name]) == (factor == 0), name
    assert np.array_equal(average[name], after[name]) == (factor == 0), name
  adam = state.opt_state[1]
  for moments in (adam.mu, adam.nu):
    assert named_leaves(moments).keys() == {name for name, factor in FACTORS.items() if factor}
  # Of the norm too they are no part, hence not of the clipping.
  assert {name for name in metrics if 'gradient_norm/' in name} == {
    'gradient_norm/head/bias',
    'gradient_norm/head/kernel',
    'gradient_norm/tower/out',
  }
  groups = [metrics[name] for name in metrics if 'gradient_norm/' in name]
  assert metrics['gradient_norm'] == pytest.approx(np.sqrt(sum(float(g) ** 2 for g in groups)))


def test_a_factor_of_1_and_no_rates_are_the_same_run_and_the_same_state():
  plain, _ = taken(())
  tiny.same_state(taken((('*', 1.0),))[0], plain)
  assert jax.tree.structure(taken((('head/*', 1.0),))[0]) == jax.tree.structure(plain)


def test_frozen_parameters_cost_no_gradient():
  everything = (('head/*', 1.0), ('*', 0.0))
  flops = [
    jax.jit(make_learn(MODEL, objective, seed=0, rates=rates))
    .lower(start_state(PARAMS, make_optimizer(settings_of(rates), 10)), BATCH)
    .compile()
    .cost_analysis()['flops']
    for rates in ((), everything)
  ]
  assert flops[1] < 0.75 * flops[0]


@pytest.mark.parametrize(
  ('rates', 'sentence'),
  [
    ((('towr/*', 0.0),), r"rates: 'towr/\*' matches no parameter; did you mean tower/\*\?"),
    ((('tower/layers', 0.0),), r'matches no parameter; did you mean tower/layers/\*\?'),
    ((('tower/*', 0.5), ('tower/out/*', 0.0)), r"all that 'tower/out/\*' matches is decided by"),
    ((('*', 0.0),), 'freezes all 81 parameters'),
  ],
)
def test_rates_that_say_nothing_are_errors(rates, sentence):
  with pytest.raises(ConfigError, match=sentence):
    describe_rates(rates, PARAMS)


def test_the_description_counts_what_each_pattern_decides_about():
  assert describe_rates(RATES, PARAMS) == [
    '41 of 81 parameters train',
    'tower/layers/*: 40 in 2 leaves, frozen',
    'tower/*: 36 in 2 leaves, at 0.25 of the learning rate',
    '*/bias: 1 in 1 leaves, at 3 of the learning rate',
    'all others: 4 in 1 leaves, at the full learning rate',
  ]
  assert describe_rates((), PARAMS) == []


@pytest.mark.parametrize(
  'rates', [(('a', -1.0),), (('a', float('nan')),), (('a',),), ((1.0, 'a'),)]
)
def test_rates_are_checked_by_their_name(rates):
  with pytest.raises(ConfigError, match=r'optimizer\.rates'):
    unpack(OptimizerSettings, {'learning_rate': 0.1, 'rates': rates}, 'optimizer')


def test_a_saved_state_with_frozen_parts_goes_on_in_its_shards_as_if_undisturbed(tmp_path):
  optimizer, step = made(RATES)
  mesh = make_mesh({'fsdp': 4, 'data': 2}, 'fsdp')
  with jax.set_mesh(mesh), Checkpoints(tmp_path) as checkpoints:
    init = lambda key: MODEL.init(key, BATCH['x'])['params']  # noqa: E731
    target, batch = abstract_state(init, optimizer, mesh), put_batch(BATCH, mesh)
    place = jax.jit(
      lambda params: start_state(params, optimizer), out_shardings=shardings_of(target)
    )
    first, _ = step(place(PARAMS), batch)
    whole, _ = step(first, batch)
    checkpoints.save(first, {})
    restored, _ = checkpoints.restore(target)
    verify_checkpoint(checkpoints.path_of(1))
    assert not restored.opt_state[1].mu['head']['kernel'].is_fully_replicated
    tiny.same_state(step(restored, batch)[0], whole)
  alone, _ = taken(RATES)
  # Sums of gradients over 8 rows in another order; AdamW moves by 0.03 at most, whatever they are.
  for name, leaf in named_leaves(step(whole, batch)[0].params).items():
    np.testing.assert_allclose(leaf, named_leaves(alone.params)[name], atol=1e-5, err_msg=name)


def test_both_of_two_players_may_be_frozen_in_part():
  def generator(predict, batch, key, judge):
    y = predict(batch['x'])
    loss = jnp.mean(y**2 + judge.predict(batch['x']) * y)
    return loss, {'loss': loss}, y

  def opposing(predict, batch, y, key):
    return jnp.mean(predict(batch['x']) * y), {}

  others = (('head/*', 0.0),)
  both = [make_optimizer(settings_of(rates), 10) for rates in (RATES, others)]
  adversary = Adversary(MODEL, (BATCH['x'],), generator, opposing, settings_of(others), 0)
  step = make_adversarial_step(MODEL, adversary, *both, seed=0, decay=0.9, rates=RATES)
  state = start_state(PARAMS, both[0], start_discriminator(PARAMS, both[1]))
  after, _ = jax.jit(step)(state, BATCH)
  before = tiny.bits(PARAMS)
  for params, factor in (
    (after.params, FACTORS.get),
    (after.discriminator['params'], lambda name: not name.startswith('head')),
  ):
    for name, bits in tiny.bits(params).items():
      assert (bits == before[name]) == (not factor(name)), name


def test_a_decoder_alone_that_trains_on_serves_models_of_the_latents(tiny_runs, tmp_path):
  before = tiny_runs / 'autoencoder'
  config = tiny.autoencoder(optimizer__rates=(('encoder/*', 0.0),), data__digits__jitter=1.0)
  config.start_from = f'={before}'
  train(config, tmp_path / 'decoder', stop_at=2)
  old, new = (load_codec(path) for path in (before, tmp_path / 'decoder'))
  assert old.statistics == new.statistics and new.fingerprints[1:] == old.fingerprints
  assert new.fingerprints[0] != old.fingerprints[0]
  shutil.copytree(tiny_runs / 'video', tmp_path / 'video')
  other = read_config(tmp_path / 'video').to_dict() | {'autoencoder': str(tmp_path / 'decoder')}
  (tmp_path / 'video/config.json').write_text(json.dumps(other))
  mine, theirs = (
    mgjax.load(path / 'video').generate(['the red digit 3 moves up'])
    for path in (tmp_path, tiny_runs)
  )
  assert mine.shape == theirs.shape and (mine != theirs).any()  # from the same latents


@pytest.mark.slow
def test_a_sharded_run_with_frozen_parts_resumes_bit_by_bit(tmp_path):
  rates = (('encoder/level_*', 0.0), ('encoder/*', 0.5))
  config = tiny.autoencoder(
    optimizer__rates=rates, mesh__fsdp=2, rules='fsdp', train__steps=4, train__evaluate_every=0
  )
  config.train.update({'accumulate': 2, 'save_every': 2, 'show_every': 0})
  config.buckets.video.batch_size = 16
  assert ', frozen' in dry_run(config, tmp_path / 'dry')
  first = train(config, tmp_path / 'whole', stop_at=0)
  start = tiny.bits(first.params)
  whole = tiny.resumed(config, tmp_path, 3)
  frozen = {name for name, bits in tiny.bits(whole.params).items() if bits == start[name]}
  assert frozen == {name for name in start if name.startswith('encoder/level_')}
  assert tiny.bits(whole.average).items() >= {(name, start[name]) for name in frozen}
  assert not any('/encoder/level_' in name for name in named_leaves(whole.opt_state))
  verify_checkpoint(open_checkpoints(tmp_path / 'whole').path_of(4))
  config.optimizer.rates = ()
  with pytest.raises(ConfigError, match=r'rates: .*encoder/level.* -> \[\].*--config\.start_from='):
    train(config, tmp_path / 'whole')
