"""A student's samples are led to where a teacher expects more of them than a critic does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Critic
from mgjax.flow.distillation.distribution_matching import (
  DistributionMatching,
  make_critic_objective,
  make_distribution_matching,
  make_matching_validation,
)
from mgjax.flow.times import uniform
from tests.flow.distillation.players import play, shift
from tests.flow.distillation.test_few_steps import ROWS, SHAPE, batch, model, velocity

EPS = np.finfo(np.float32).eps
FIELDS = {
  'teacher': 'runs/teacher',
  'guidance': (('text', 3.0),),
  'schedule': {'name': 'linear'},
  'steps': (1, 4),
}
MATCHING = DistributionMatching(**FIELDS)
ACTIVE = jnp.asarray(True)


def objective_of(matching=MATCHING, **options):
  return make_distribution_matching(
    matching, lambda frozen: model(frozen), sample_time=uniform, **options
  )


def run(student, critic, key=0, active=ACTIVE):
  judge = Critic(critic, active)
  return objective_of()(student, batch(), jax.random.key(key), judge, teacher=0.7)


def test_the_gradient_is_the_difference_of_what_critic_and_teacher_expect():
  calls = []
  predict = model(0.5, calls)
  found = jax.grad(lambda shift: run(lambda *given: model(1.1)(*given) + shift, predict)[0])(
    jnp.zeros((1, *SHAPE))
  )
  *_, made = run(model(1.1), model(0.5))
  ((x, time, share),) = calls  # the critic is asked once, of samples with noise, and of no step
  assert not np.any(share)
  x, time, text = (np.asarray(each, np.float64) for each in (x, time, batch()['text']))
  none, rest = np.zeros(ROWS), (1 - time)[:, None, None]
  plain = velocity(x, time, none, none, 0.7)
  real = plain + 3.0 * (velocity(x, time, text, none, 0.7) - plain)
  fake = velocity(x, time, text, none, 0.5)
  off = np.mean(np.abs(np.asarray(made, np.float64) - (x + rest * real)), axis=(1, 2))
  wrong = rest * (fake - real) / off[:, None, None]
  # A shift of the velocity moves a sample by 1 - t, of the time t that it is made at.
  moved = np.asarray(found, np.float64)[0] / (wrong.sum(0) / (ROWS * np.prod(SHAPE)))
  left = [1.0, 0.75, 0.5, 0.25]
  nearest = min(left, key=lambda each: abs(each - moved.mean()))
  # Some twenty roundings of numbers below 20 that cancel to some tenths.
  np.testing.assert_allclose(moved, nearest, rtol=2000 * EPS)


def test_samples_are_made_as_a_sampler_makes_them():
  """By steps of Euler of a grid that was learnt, up to the one that is drawn, then straight."""
  drawn = set()
  for key in range(24):
    calls = []
    with jax.disable_jit():
      *_, made = run(model(1.1, calls), model(0.5), key=key)
    shares = [float(share[0]) for *_, share in calls]
    times = [float(time[0]) for _, time, _ in calls]
    assert len(set(shares)) == 1 and shares[0] in (1.0, 0.25)
    np.testing.assert_allclose(times, np.arange(len(times)) * shares[0], atol=EPS)
    x = np.asarray(calls[0][0], np.float64)
    text, share = np.asarray(batch()['text'], np.float64), np.full(ROWS, shares[0])
    for place, time in enumerate(times):
      size = shares[0] if place + 1 < len(times) else 1 - time
      x = x + size * velocity(x, np.full(ROWS, time), text, share, 1.1)
    np.testing.assert_allclose(made, x, rtol=64 * EPS, atol=64 * EPS)
    drawn.add((shares[0], len(times)))
  assert drawn == {(1.0, 1), *((0.25, place) for place in (1, 2, 3, 4))}


def test_neither_player_learns_from_the_loss_of_the_other():
  critic = lambda scale: run(model(1.1), model(scale))[0]  # noqa: E731
  assert jax.grad(critic)(0.5) == 0
  assert (
    jax.grad(
      lambda frozen: objective_of()(
        model(1.1), batch(), jax.random.key(0), Critic(model(0.5), ACTIVE), teacher=frozen
      )[0]
    )(0.7)
    == 0
  )

  def student(scale):
    *_, made = run(model(scale), model(0.5))
    learn = make_critic_objective(sample_time=uniform)
    return learn(model(0.5), batch(), made, jax.random.key(1))[0]

  assert jax.grad(student)(1.1) == 0


def test_a_critic_that_has_not_begun_or_agrees_says_nothing():
  def gradient(critic, active):
    return jax.grad(lambda scale: run(model(scale), critic, active=active)[0])(1.1)

  def as_the_teacher(x, time, given, drop):
    plain = velocity(x, time, jnp.zeros(len(x)), jnp.zeros(len(x)), 0.7)
    return plain + 3.0 * (velocity(x, time, given['text'], jnp.zeros(len(x)), 0.7) - plain)

  assert gradient(model(0.5), jnp.asarray(False)) == 0
  assert abs(gradient(as_the_teacher, ACTIVE)) < 64 * EPS < abs(gradient(model(0.5), ACTIVE))


def test_the_critics_loss_is_flow_matching_of_what_was_made():
  calls, made = [], jnp.asarray(np.random.default_rng(1).normal(size=(ROWS, *SHAPE)), jnp.float32)
  learn = make_critic_objective(sample_time=uniform)
  loss, metrics = learn(model(0.5, calls), batch(), made, jax.random.key(0))
  ((x, time, _),) = calls
  x, time, data = (np.asarray(each, np.float64) for each in (x, time, made))
  ones = time[:, None, None]
  noise = (x - ones * data) / (1 - ones)  # of the straight path, but for its least noise of 1e-5
  text = np.asarray(batch()['text'], np.float64)
  target = data - noise
  error = np.mean((velocity(x, time, text, np.zeros(ROWS), 0.5) - target) ** 2)
  np.testing.assert_allclose(loss, error, rtol=1e-3)
  assert metrics['discriminator_loss'] == loss


def test_one_step_learns_mean_and_deviation_of_a_teacher():
  """Of N(m, d^2) with noise, E[X | X_r] = m + r d^2 (X_r - r m) / (r^2 d^2 + (1 - r)^2).

  So teacher and critic answer; the critic learns its m and d, the student makes m + d noise.
  """
  matching = DistributionMatching(**FIELDS | {'steps': (1,), 'guidance': ()})
  times = lambda key, shape: jax.random.uniform(key, shape, maxval=0.9)  # noqa: E731

  def normal(mean, deviation):
    def predict(x, time, given, drop):
      r, square = time[:, None], deviation**2
      return (mean + r * square * (x - r * mean) / (r**2 * square + (1 - r) ** 2) - x) / (1 - r)

    return predict

  rows = {'latents': jnp.zeros((64, 1))}
  options = {'sample_time': times}
  learn = make_distribution_matching(matching, lambda frozen: normal(*frozen), **options)
  follow, wanted = make_critic_objective(**options), (1.5, 0.4)

  def losses(student, critic, key):
    def mine(params):
      judge = Critic(normal(*critic), ACTIVE)
      value, _, made = learn(shift(params), rows, key, judge, teacher=wanted)
      return value, made

    return mine, lambda params, made: follow(normal(*params), rows, made, key)[0]

  rates = optax.adam(optax.cosine_decay_schedule(1e-2, 2000), b1=0.0), optax.adam(2e-2, b1=0.0)
  student, critic = play(losses, ((0.0, 1.0), (0.0, 1.0)), rates, 2000)
  # Noise of Adam at the critic's rate; the student began 1.5 and .6 away.
  np.testing.assert_allclose(student, wanted, atol=0.1)
  np.testing.assert_allclose(critic, wanted, atol=0.2)


def test_validation_asks_the_teacher_about_samples_and_about_data():
  check = make_matching_validation(MATCHING, lambda frozen: model(frozen), sample_time=uniform)
  loss, metrics = check(model(1.1), batch(), jax.random.key(0), teacher=0.7)
  assert metrics['loss'] == loss and metrics['loss/of_data'] > 0
  same = check(model(1.2), batch(), jax.random.key(0), teacher=0.7)
  assert same[1]['loss/of_data'] == metrics['loss/of_data'] and same[0] != loss


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'steps': ()}, r'expected each number once, as in \(1, 2, 4\)'),
    ({'steps': (2, 2)}, r'expected each number once, as in \(1, 2, 4\)'),
    ({'steps': (0,)}, 'steps'),
    ({'guidance': (('a', 2.0), ('a', 3.0))}, 'twice'),
  ],
)
def test_what_cannot_be_learnt_is_refused(changes, said):
  with pytest.raises(ConfigError, match=said):
    DistributionMatching(**FIELDS | changes)
  with pytest.raises(ConfigError, match='2 steps of a model that learned to take 1, 4; take one'):
    MATCHING.grid(2)
